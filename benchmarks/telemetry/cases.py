"""What is compared: a server that tells nothing, and ones that tell all or a hundredth to collectors of every manner."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from benchmarks.telemetry.collector import Manner


class Telling(StrEnum):
    """How a server is configured."""

    OFF = "off"
    SAMPLED = "all traces"
    SAMPLED_TOO = "all traces, once more"
    """The same again: by how much its figures differ, a run can't tell."""
    HUNDREDTH = "1 % of the traces"
    METRICS = "no traces"
    SLOW = "all traces, slow collector"
    FROZEN = "all traces, frozen collector"
    DEAD = "all traces, no collector"


@dataclass(frozen=True, slots=True)
class TellingSpec:
    """What makes up a case."""

    sample_ratio: float
    collector: Manner | None
    """None: nobody listens where the collector should be."""


TELLINGS: dict[Telling, TellingSpec | None] = {
    Telling.OFF: None,
    Telling.SAMPLED: TellingSpec(1.0, Manner.PROMPT),
    Telling.SAMPLED_TOO: TellingSpec(1.0, Manner.PROMPT),
    Telling.HUNDREDTH: TellingSpec(0.01, Manner.PROMPT),
    Telling.METRICS: TellingSpec(0.0, Manner.PROMPT),
    Telling.SLOW: TellingSpec(1.0, Manner.SLOW),
    Telling.FROZEN: TellingSpec(1.0, Manner.FROZEN),
    Telling.DEAD: TellingSpec(1.0, None),
}
"""Metrics are sent in all but the first."""

CPU_BARS_US = {Telling.SAMPLED: 350.0, Telling.HUNDREDTH: 50.0, Telling.METRICS: 50.0}
"""What telling may cost a request at most, in CPU time of the server, export included."""
CPU_AIMS_US = {Telling.SAMPLED: 150.0}
ALONE = (Telling.OFF, *CPU_BARS_US)
"""Also measured by itself."""
SPANS_BY_SDK = "the same spans by OpenTelemetry's SDK, without metrics"
"""Measured there for comparison."""
P99_RATIO_MAX = 1.05
"""By how much a collector that fails may slow down the slowest hundredth of the requests, beside one that does not."""
FAILING = (Telling.SLOW, Telling.FROZEN, Telling.DEAD)
SHUTDOWN_S_MAX = 3.5
"""How long a server may take to end: what the last exports are given, and half a second for all the rest."""
