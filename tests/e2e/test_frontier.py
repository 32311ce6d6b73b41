"""The star plot and the server: a star's string, pasted into a request, decides as the plot says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from e2e.harness import config_of, running
from pointsman_server.quality.artifact import builtin_artifact_path, load
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
