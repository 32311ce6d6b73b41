"""How the catalog's parts are written in TOML: names, labels, `[[endpoints]]`, `[models.NAME]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from pointsman_server.catalog.catalog import CatalogEntry
from pointsman_server.catalog.toml_table import NAME_CHARACTER_COUNT_MAX, Hint, Table, TextRule, shortened
from pointsman_server.chat import ReasoningControl
from pointsman_server.decision.router_string import DEFAULT_HEAD
from pointsman_server.decision.types import Capability, Endpoint, RequestFeature

ENDPOINT_COUNT_MAX = 4096
"""A decision ranks every endpoint: beyond this it would cost milliseconds."""
PROVIDER_COUNT_MAX = 256
"""Each holds a pool of connections; there are not as many providers in the world."""
PRICE_USD_PER_MTOK_MAX = 10_000.0
"""More than ten times the highest list price known; a larger one is a price in the wrong unit."""
BENCHMARK_COUNT_MAX = 64
"""Scores of one model: more than any model card tells."""
TOKEN_COUNT_MAX = 1_000_000_000
"""A hundred times the longest context known."""

# Router strings separate with `@ | , ->` and blanks, so no name holds them (`->` would need `>`).
NAME_PATTERN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._/:-]{{0,{NAME_CHARACTER_COUNT_MAX - 1}}}")
MODEL_RULE = TextRule(
    # `router@...` is the default router.
    re.compile(rf"(?!{DEFAULT_HEAD}$){NAME_PATTERN.pattern}"),
    f"1 to {NAME_CHARACTER_COUNT_MAX} letters, digits or any of . _ / : - with a letter or digit first, and not"
    f" `{DEFAULT_HEAD}`",
)
PROVIDER_RULE = TextRule(
    # `model@q:1` is a weight and `model@lowest-cost` an objective, so a provider's name looks like neither.
    re.compile(rf"(?!(?:lowest|highest)-)[A-Za-z0-9][A-Za-z0-9._/-]{{0,{NAME_CHARACTER_COUNT_MAX - 1}}}"),
    f"1 to {NAME_CHARACTER_COUNT_MAX} letters, digits or any of . _ / - with a letter or digit first, not starting"
    " with `lowest-` or `highest-`",
)
UPSTREAM_MODEL_RULE = TextRule(re.compile(r"[\x21-\x7e]{1,512}"), "1 to 512 printable ASCII characters without blanks")
LABEL_RULE = TextRule(
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}"),
    "1 to 63 letters, digits or any of . _ / - with a letter or digit first",
)

PRICES_DATE_RULE = TextRule(re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"), "a date such as 2026-11-30, in quotes")

_Word = TypeVar("_Word", bound=StrEnum)
Labels = tuple[tuple[str, tuple[str, ...]], ...]
"""Values by key, in the order of the file."""


def read_labels(table: Table) -> Labels:
    """The labels of a provider or an endpoint."""
    labels = table.table("labels")
    for key in labels.names:
        if LABEL_RULE.pattern.fullmatch(key) is None:
            labels.fault(key, f"is no key of a label: it must be {LABEL_RULE.wanted}")
    return tuple((key, labels.text_or_texts(key, LABEL_RULE)) for key in labels.names)


def read_entry(table: Table, provider_labels: Mapping[str, Labels]) -> CatalogEntry | None:
    """One endpoint as it is written; None when it lacks a name, which is a fault like every other that is recorded.

    Args:
        table: One of `[[endpoints]]`.
        provider_labels: What endpoints inherit, by the name of their provider. Holds every provider that is declared.
    """
    table.require("model", "provider")
    model = table.text("model", MODEL_RULE)
    provider = table.text("provider")
    if provider is not None and provider not in provider_labels:
        hint = Hint(provider, provider_labels.keys(), "[providers.NAME] declares one")
        table.fault("provider", f"`{shortened(provider)}` is not a declared provider", hint)
    upstream_model = table.text("upstream_model", UPSTREAM_MODEL_RULE)
    quality_model = table.text("quality_model", MODEL_RULE)
    input_price = _price(table, "input_price_usd_per_mtok")
    output_price = _price(table, "output_price_usd_per_mtok")
    cached_input_price = _price(table, "cached_input_price_usd_per_mtok")
    cache_write_price = _price(table, "cache_write_price_usd_per_mtok")
    context_token_count_max = table.whole_number("context_token_count_max", None, minimum=1, maximum=TOKEN_COUNT_MAX)
    output_token_count_max = table.whole_number("output_token_count_max", None, minimum=1, maximum=TOKEN_COUNT_MAX)
    if context_token_count_max is not None and (output_token_count_max or 0) > context_token_count_max:
        table.fault("output_token_count_max", "must be at most context_token_count_max, which counts input and output")
    capabilities = _words(table, "capabilities", Capability, "a capability")
    lacks = _words(table, "lacks", RequestFeature, "something that a request can ask for")
    reasoning_control = _reasoning_control(table)
    labels = dict(provider_labels.get(provider or "", ())) | dict(read_labels(table))
    stream = table.flag("stream", default=True)
    table.finish()
    if model is None or provider is None:
        return None
    return CatalogEntry(
        endpoint=Endpoint(
            model=model,
            provider=provider,
            input_price_usd_per_mtok=input_price,
            output_price_usd_per_mtok=output_price,
            cached_input_price_usd_per_mtok=cached_input_price,
            cache_write_price_usd_per_mtok=cache_write_price,
            context_token_count_max=context_token_count_max,
            output_token_count_max=output_token_count_max,
            capabilities=capabilities,
            labels=frozenset((key, value) for key, values in labels.items() for value in values),
            lacks=lacks,
        ),
        upstream_model=upstream_model or model,
        quality_model=quality_model or model,
        reasoning_control=reasoning_control,
        stream=stream,
    )


def read_benchmark_scores(table: Table) -> tuple[tuple[str, float], ...]:
    """The published scores of a model, by the benchmark's name; which benchmarks there are is for the artifact to say.

    Args:
        table: One of `[models]`.
    """
    table.require("benchmark_scores")
    scores = table.table("benchmark_scores")
    if len(scores.names) > BENCHMARK_COUNT_MAX:
        table.fault("benchmark_scores", f"must hold at most {BENCHMARK_COUNT_MAX} scores, not {len(scores.names)}")
    read = [(name, scores.number(name, None, minimum=0.0, maximum=1.0)) for name in scores.names[:BENCHMARK_COUNT_MAX]]
    table.finish()
    return tuple(sorted((name, score) for name, score in read if score is not None))


def _price(table: Table, key: str) -> float | None:
    return table.number(key, None, minimum=0.0, maximum=PRICE_USD_PER_MTOK_MAX)


def _words(table: Table, key: str, words: type[_Word], what: str) -> frozenset[_Word]:
    """Those of the known words that stand there; any other is a fault."""
    known = {word.value: word for word in words}
    names = table.texts(key)
    for name in names:
        if name not in known:
            hint = Hint(name, known.keys(), f"known are {', '.join(known)}")
            table.fault(key, f"`{shortened(name)}` is not {what}", hint)
    return frozenset(known[name] for name in names if name in known)


def _reasoning_control(table: Table) -> ReasoningControl:
    text = table.text("reasoning_control") or ReasoningControl.EFFORT.value
    known = {control.value: control for control in ReasoningControl}
    if text not in known:
        table.fault("reasoning_control", f"must be {' or '.join(known)}")
    return known.get(text, ReasoningControl.EFFORT)
