"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from watched import WATCH, watch_logs

# A busy machine makes an example slow, which says nothing of the code: time never decides a test.
settings.register_profile("pointsman", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pointsman")

watch_logs()


@pytest.fixture(autouse=True, scope="module")
def nothing_secret_is_told() -> Iterator[None]:
    """Fails the module in whose tests a server told what it must never tell."""
    yield
    found = WATCH.taken()
    assert found == [], found
