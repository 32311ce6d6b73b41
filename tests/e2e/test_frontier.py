"""The star plot and the server: a star's string, pasted into a request, decides as the plot says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from e2e.harness import config_of, running
from pointsman import AsyncClient
from pointsman_server.app import Application, Chance
from pointsman_server.cli.frontier_catalog import listed_of
from pointsman_server.quality.artifact import builtin_artifact_path, load
from pointsman_server.runtime.tracker import Observation
from pointsman_server.training.dataset import load_dataset
from pointsman_server.training.frontier import Plan, compute
from pointsman_server.training.frontier_pool import Axis, Listed, build_pool
from pointsman_server.training.frontier_questions import questions_at, routing_of, shares_of
from training.frontier_samples import write_questions

CATALOG = """
[providers.north]
adapter = "openai_compatible"
base_url = "http://127.0.0.1:9/v1"

[[endpoints]]
model = "gpt-4o"
provider = "north"
input_price_usd_per_mtok = 2.5
output_price_usd_per_mtok = 10.0

[[endpoints]]
model = "gpt-4o-mini"
provider = "north"
input_price_usd_per_mtok = 0.15
output_price_usd_per_mtok = 0.6

[[endpoints]]
model = "small"
provider = "north"
quality_model = "llama-3.1-8b-instruct"
input_price_usd_per_mtok = 0.05
output_price_usd_per_mtok = 0.08
"""
UNMEASURED = """
[[endpoints]]
model = "claude-3-haiku"
provider = "north"
input_price_usd_per_mtok = 0.01
output_price_usd_per_mtok = 0.01
"""
PROMPT_ROWS = (0, 1, 2, 3, 17)
LATENCIES_S = {"gpt-4o@north": (0.6, 0.02), "gpt-4o-mini@north": (0.3, 0.012), "small@north": (0.1, 0.004)}
"""Time to the first token and between tokens, as calls have shown them."""
QUALITY_NAMES = {"small": "llama-3.1-8b-instruct"}


@pytest.mark.parametrize("catalog", [CATALOG, CATALOG + UNMEASURED], ids=["whole", "part"])
async def test_a_pasted_star_decides_as_it_was_drawn(tmp_path: Path, catalog: str) -> None:
    """For every router of a plot and several prompts, a running server of the same catalog gives each endpoint the same
    chance that the plot counted it with; also where the catalog has a cheap endpoint that is not in the plot."""
    data = load_dataset(write_questions(tmp_path))
    model = load(builtin_artifact_path())
    config = config_of(catalog)
    pool = build_pool(
        data,
        "own",
        model,
        listed=[Listed(entry.endpoint, entry.quality_model) for entry in config.catalog.entries],
        prices={},
        latencies={},
        chosen=frozenset(),
        axis=Axis.COST,
    )
    assert [endpoint.name for endpoint in pool.endpoints] == ["gpt-4o-mini@north", "gpt-4o@north", "small@north"]
    plan = Plan(Axis.COST, "own", "test", given=("gpt-4o->router@lowest-rc",), prompt_count_max=40)
    drawn = compute(data, pool, model, plan, lambda _share: None)
    rows = np.array(PROMPT_ROWS)
    questions = questions_at(data, pool, model, rows, Axis.COST)
    differing = 0
    async with running(config) as server:
        for router in drawn.routers:
            shares = shares_of(routing_of(router.text, pool, {}), pool, questions)
            differing += len({tuple(row) for row in shares.tolist()}) > 1
            for row, text in enumerate(data.texts[rows]):
                decision = await server.client.route(text, router=router.text)
                chances = {candidate.endpoint: candidate.probability for candidate in decision.candidates}
                expected = dict(zip((endpoint.name for endpoint in pool.endpoints), shares[row], strict=True))
                # The server predicts for its whole catalog at once, which moves single-precision sums by their last bit.
                assert {name: chances[name] for name in expected} == pytest.approx(expected, abs=1e-5), router.text
                assert chances.get("claude-3-haiku@north", 0.0) == 0.0
    assert differing > 3, "some routers tell these prompts apart"


async def test_a_plot_of_live_latencies_decides_as_the_server_that_it_was_drawn_of(tmp_path: Path) -> None:
    """Drawn of what a server tells of itself, a router that weighs the time to the first token gives each endpoint the
    same chance there."""
    data = load_dataset(write_questions(tmp_path))
    model = load(builtin_artifact_path())
    stopped = Chance(clock_s=lambda: 1000.0)
    async with Application(config_of(CATALOG), chance=stopped) as application:
        for name, (ttft_s, gap_s) in LATENCIES_S.items():
            for _ in range(5):
                seen = Observation(name, ttft_s=ttft_s, duration_s=ttft_s + 99.0 * gap_s, output_token_count=100)
                application.router.tracker.observe(seen, now_s=stopped.clock_s())
        async with AsyncClient(f"127.0.0.1:{application.port}", timeout_s=30.0) as client:
            catalog = listed_of(await client.list_endpoints(), await client.list_routers())
            # What a server tells of its endpoints has no name for the quality model: the one of `small` is not known.
            listed = [
                replace(each, quality_model=QUALITY_NAMES.get(each.quality_model, each.quality_model))
                for each in catalog.listed
            ]
            pool = build_pool(
                data, "own", model, listed=listed, prices={}, latencies={}, chosen=frozenset(), axis=Axis.TTFT
            )
            assert [member.endpoint.name for member in pool.members] == sorted(LATENCIES_S)
            questions = questions_at(data, pool, model, np.array(PROMPT_ROWS), Axis.TTFT)
            for text in ("router@q:1|t:0.0006", "router@lowest-ttft|rq>=0.9", "router@highest-q|ttft<=350->router"):
                shares = shares_of(routing_of(text, pool, catalog.routers), pool, questions)
                for row, prompt in enumerate(data.texts[list(PROMPT_ROWS)]):
                    decision = await client.route(prompt, router=text)
                    chances = {candidate.endpoint: candidate.probability for candidate in decision.candidates}
                    expected = dict(zip((each.name for each in pool.endpoints), shares[row], strict=True))
                    assert chances == pytest.approx(expected, abs=1e-5), text
