"""A floor of relative quality with a risk, over real gRPC and with the shipped quality model."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from e2e.harness import Running, config_of, endpoints, running
from e2e.test_readme import ADDRESS, address, output_of
from pointsman import NoEligibleEndpointError, constraints, objective
from pointsman.v1.routing_pb2 import Candidate, RejectionReason

__all__ = ["address"]

PAGE = (Path(__file__).parents[2] / "docs" / "quality-floors.md").read_text(encoding="utf-8")
PROMPT = "A train leaves at 9:40 and arrives at 13:05. How long does the journey take?"
MODELS = ["gpt-4o", "gpt-4o-mini", "llama-3.1-8b-instruct"]
CATALOG = endpoints(
    {"north": MODELS, "south": ["gpt-4o-mini"]}, dict.fromkeys(("north", "south"), "http://127.0.0.1:9/v1")
)


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    """A server with three models."""
    async with running(config_of(CATALOG)) as started:
        yield started


def passing(candidates: list[Candidate]) -> set[str]:
    """The endpoints that may be chosen."""
    return {candidate.endpoint for candidate in candidates if candidate.rank}


async def test_a_risk_rejects_who_falls_short_too_often(server: Running) -> None:
    """Each candidate carries its risk, those above the accepted one are rejected with it, and the best passes."""
    decision = await server.client.route(
        PROMPT, constraints=constraints(relative_quality_min=0.9, relative_quality_risk=0.05)
    )
    best = max(decision.candidates, key=lambda candidate: candidate.quality.mean)
    assert best.shortfall_risk == 0.0
    assert best.endpoint in passing(list(decision.candidates))
    for candidate in decision.candidates:
        assert bool(candidate.rank) == (candidate.shortfall_risk <= 0.05 + 1e-9)
        for rejection in candidate.rejections:
            assert rejection.reason == RejectionReason.REJECTION_REASON_RISK_TOO_HIGH
            assert rejection.actual == candidate.shortfall_risk > 0.05
            assert rejection.constraint == "rq.p95>=0.9"


async def test_more_risk_lets_more_pass(server: Running) -> None:
    """From 1 % to 50 % the candidates only become more, and in the end they are more than at first."""
    sets = []
    for risk in (0.01, 0.05, 0.1, 0.2, 0.5):
        wanted = constraints(relative_quality_min=0.9, relative_quality_risk=risk)
        sets.append(passing(list((await server.client.route(PROMPT, constraints=wanted)).candidates)))
    assert all(fewer <= more for fewer, more in pairwise(sets))
    assert len(sets[0]) < len(sets[-1])


async def test_without_a_risk_none_is_told(server: Running) -> None:
    """No candidate carries a risk where no bound states one."""
    decision = await server.client.route(PROMPT, constraints=constraints(relative_quality_min=0.5))
    assert not any(candidate.HasField("shortfall_risk") for candidate in decision.candidates)


async def test_the_nearest_relaxation_names_the_risk_that_would_do(server: Running) -> None:
    """Where the best candidate is out of the question, the error says with which risk another would be taken."""
    best = max((await server.client.route(PROMPT)).candidates, key=lambda candidate: candidate.quality.mean)
    cheap_ones = config_of(CATALOG.replace("input_price_usd_per_mtok = 1.0", "input_price_usd_per_mtok = 900.0", 1))
    assert best.endpoint == "gpt-4o@north"
    async with running(cheap_ones) as dear:
        with pytest.raises(NoEligibleEndpointError) as caught:
            await dear.client.route(PROMPT, router="router@rq.p99>=0.9|ic<2", preferences=objective("highest-quality"))
    assert re.search(r"with rq\.p99>=0\.9 to rq\.p\d\d>=0\.9", str(caught.value))


async def test_the_example_of_the_page_runs(address: str) -> None:
    """The code of docs/quality-floors.md prints each candidate with its risk; those within 10 % pass, the others not."""
    match = re.search(r"<!-- test: quality floor -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    printed = await output_of(sys.executable, "-c", match[1].replace(ADDRESS, address))
    lines = [re.fullmatch(r"(\S+) (\d+)% (.*)", line) for line in printed.splitlines()]
    assert len(lines) == 11
    for line in lines:
        assert line is not None
        assert (line[3] == "passes") == (int(line[2]) <= 10)
        assert line[3] == "passes" or line[3].startswith("falls short of the best too often: rq.p90>=0.9 (risk ")
