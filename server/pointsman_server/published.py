"""Where the catalog meets the quality models: what is published of an LLM becomes its profile."""

from __future__ import annotations

from collections.abc import Collection

from pointsman_server.catalog.catalog import Catalog
from pointsman_server.catalog.toml_table import Hint, shortened
from pointsman_server.errors import ConfigError, FieldViolation
from pointsman_server.quality.model import QualityModel
from pointsman_server.quality.published import with_published_scores


def with_catalog_scores(model: QualityModel, catalog: Catalog) -> QualityModel:
    """`model`, joined by the LLMs of the catalog that it has no labels of and of which scores are published. Takes a
    few milliseconds for each of them."""
    scores = {entry.quality_model: dict(entry.benchmark_scores) for entry in catalog.entries if entry.benchmark_scores}
    return with_published_scores(model, scores)


def check_benchmarks(catalog: Catalog, benchmarks: Collection[str]) -> None:
    """Makes sure that every published score counts for something.

    Args:
        catalog: whose scores are checked.
        benchmarks: those that the quality artifacts in service know, all together.

    Raises:
        ConfigError: a score is of another benchmark; all are listed.
    """
    advice = f"known are {', '.join(sorted(name for name in benchmarks if '/' not in name))}"
    unknown = {
        f'models."{shortened(entry.quality_model)}".benchmark_scores."{shortened(name)}"': name
        for entry in catalog.entries
        for name, _ in entry.benchmark_scores
        if name not in benchmarks
    }
    if unknown:
        raise ConfigError(
            "the configuration",
            tuple(
                FieldViolation(
                    path, f"is no benchmark that the quality artifact knows{Hint(name, benchmarks, advice).text()}"
                )
                for path, name in unknown.items()
            ),
        )
