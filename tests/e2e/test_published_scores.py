"""A server whose catalog publishes scores of models that its artifact has no labels of."""

from __future__ import annotations

import pytest
from e2e.harness import config_of, endpoints, running
from pointsman_server.app import Application
from pointsman_server.errors import ConfigError

CATALOG = endpoints({"north": ["able", "weak", "unheard-of"]}, {"north": "http://127.0.0.1:9/v1"})
SCORES = """
[models.able.benchmark_scores]
mmlu_pro = 0.85
[models.weak.benchmark_scores]
mmlu_pro = 0.2
"""
QUESTION = "Which particle mediates the strong interaction?\n(A) photon\n(B) gluon\n(C) Z boson\n(D) graviton"


async def test_a_published_score_is_enough_to_be_predicted() -> None:
    """The better score is the better expectation, and a model without any has no quality."""
    async with running(config_of(CATALOG + SCORES)) as server:
        decision = await server.client.route(QUESTION, router="router@highest-quality")
    assert decision.endpoint == "able@north"
    quality = {candidate.endpoint: candidate.quality for candidate in decision.candidates}
    assert quality["able@north"].mean > quality["weak@north"].mean + 0.2
    assert not decision.candidates[[c.endpoint for c in decision.candidates].index("unheard-of@north")].HasField(
        "quality"
    )


async def test_a_change_of_a_score_is_a_change_of_the_router() -> None:
    """The version of every router depends on the scores."""
    versions = set()
    for scores in (SCORES, SCORES.replace("0.85", "0.86")):
        async with running(config_of(CATALOG + scores)) as server:
            versions.add((await server.client.route(QUESTION)).router_version)
    assert len(versions) == 2


async def test_a_score_that_no_artifact_can_read_is_refused() -> None:
    """A server does not start with scores that would count for nothing; every one is listed."""
    scores = SCORES.replace("mmlu_pro", "mmlupro")
    with pytest.raises(ConfigError) as caught:
        Application(config_of(CATALOG + scores))
    advice = "is no benchmark that the quality artifact knows; did you mean mmlu_pro?"
    assert [(violation.field, violation.description) for violation in caught.value.violations] == [
        ('models."able".benchmark_scores."mmlupro"', advice),
        ('models."weak".benchmark_scores."mmlupro"', advice),
    ]
