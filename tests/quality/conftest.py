"""The artifact that ships with the package, loaded once."""

import pytest
from pointsman_server.quality.artifact import builtin_artifact_path, load
from pointsman_server.quality.model import QualityModel


@pytest.fixture(scope="session")
def builtin() -> QualityModel:
    """The built-in quality model."""
    return load(builtin_artifact_path())
