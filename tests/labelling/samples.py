"""Small plans, prompts and records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pointsman_server.catalog.catalog import CatalogEntry
from pointsman_server.chat import SamplingOptions
from pointsman_server.decision.types import Capability, Endpoint
from pointsman_server.labelling.plan import Call, Plan, answer_call
from pointsman_server.labelling.prompts import LabelledPrompt, ScoringDefaults, read_prompts
from pointsman_server.labelling.records import Answered

DEFAULTS = ScoringDefaults(has_judge=True, has_baseline=True)


def entry(
    name: str,
    *,
    price: float | None = 1.0,
    output_token_count_max: int | None = 1000,
    capabilities: Sequence[Capability] = (),
) -> CatalogEntry:
    """An endpoint of this name, at the same price for input and output (USD per million tokens)."""
    model, _, provider = name.partition("@")
    endpoint = Endpoint(
        model,
        provider,
        input_price_usd_per_mtok=price,
        output_price_usd_per_mtok=price,
        output_token_count_max=output_token_count_max,
        capabilities=frozenset(capabilities),
    )
    return CatalogEntry(endpoint=endpoint, upstream_model=model, quality_model=model)


def prompts(*lines: dict[str, Any]) -> tuple[LabelledPrompt, ...]:
    """What a file with these lines holds; where they name no prompt_id, they are p1, p2 and so on."""
    written = [
        json.dumps(
            {"prompt_id": f"p{index}", **({} if "messages" in line else {"prompt": f"Question {index}?"}), **line}
        )
        for index, line in enumerate(lines, start=1)
    ]
    return read_prompts(written, source="prompts.jsonl", defaults=DEFAULTS)


def exact(expected: str, **more: Any) -> dict[str, Any]:
    """A line that is scored by exact match."""
    return {"score": "exact", "expected": expected, **more}


def plan(
    lines: Sequence[dict[str, Any]],
    *names: str,
    judge: CatalogEntry | None = None,
    baseline: str | None = None,
    sampling: SamplingOptions | None = None,
) -> Plan:
    """A plan over these lines and endpoints."""
    entries = {name: entry(name) for name in names}
    return Plan(
        prompts=prompts(*lines),
        entries=tuple(entries.values()),
        judge=judge,
        baseline=None if baseline is None else entries.get(baseline) or entry(baseline),
        sampling=sampling or SamplingOptions(),
    )


def answered(call: Call, text: str, *, cost_usd: float | None = 0.001, latency_s: float = 1.0) -> Answered:
    """The record of a call that was answered so."""
    return Answered(
        key=call.key,
        text=text,
        finish_reason="stop",
        input_token_count=100,
        output_token_count=10,
        cost_usd=cost_usd,
        is_cost_estimated=False,
        ttft_s=latency_s / 2,
        latency_s=latency_s,
    )


def answer(made: Plan, prompt_number: int, name: str, text: str, **more: Any) -> Answered:
    """The record of an endpoint's answer to a prompt, from 1."""
    (found,) = [each for each in made.answering if each.endpoint.name == name]
    return answered(answer_call(made, made.prompts[prompt_number - 1], found), text, **more)
