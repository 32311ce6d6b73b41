"""What is measured: the cases, whose CPU counts in each, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """A process of the benchmark whose CPU time can count."""

    BARE = "bare gRPC server"
    BARE_UVLOOP = "bare gRPC server on uvloop"
    ROUTER = "Pointsman server"
    CALLER = "calling process"


class Case(StrEnum):
    """One kind of request."""

    ECHO = "echo"
    ECHO_UVLOOP = "echo-uvloop"
    STREAM = "stream-50"
    STREAM_UVLOOP = "stream-50-uvloop"
    STREAM_PACED = "stream-50-paced"
    STREAM_PACED_UVLOOP = "stream-50-paced-uvloop"
    ROUTE = "route"
    COMPLETE_1 = "complete-1"
    COMPLETE_50_BURST = "complete-50-burst"
    COMPLETE_50_PACED = "complete-50-paced"
    HTTPX_WHOLE = "httpx-whole"
    HTTPX_50_BURST = "httpx-50-burst"
    HTTPX_50_PACED = "httpx-50-paced"


@dataclass(frozen=True, slots=True)
class CaseSpec:
    """What a case is, in words, and whose CPU it is charged to."""

    measured: Part
    description: str


CASES: dict[Case, CaseSpec] = {
    Case.ECHO: CaseSpec(Part.BARE, "grpc.aio unary echo of 0.5 kB"),
    Case.ECHO_UVLOOP: CaseSpec(Part.BARE_UVLOOP, "the same on uvloop, as Pointsman runs"),
    Case.STREAM: CaseSpec(Part.BARE, "grpc.aio stream of 50 messages at once"),
    Case.STREAM_UVLOOP: CaseSpec(Part.BARE_UVLOOP, "the same on uvloop"),
    Case.STREAM_PACED: CaseSpec(Part.BARE, "grpc.aio stream of 50 messages, 1 ms apart"),
    Case.STREAM_PACED_UVLOOP: CaseSpec(Part.BARE_UVLOOP, "the same on uvloop"),
    Case.ROUTE: CaseSpec(Part.ROUTER, "Route over 20 endpoints, 1 kB prompt"),
    Case.COMPLETE_1: CaseSpec(Part.ROUTER, "Complete, the answer in 1 chunk"),
    Case.COMPLETE_50_BURST: CaseSpec(Part.ROUTER, "Complete, 50 chunks at once"),
    Case.COMPLETE_50_PACED: CaseSpec(Part.ROUTER, "Complete, 50 chunks 1 ms apart"),
    Case.HTTPX_WHOLE: CaseSpec(Part.CALLER, "the upstream called with httpx, whole answer"),
    Case.HTTPX_50_BURST: CaseSpec(Part.CALLER, "the upstream called with httpx, 50 chunks at once"),
    Case.HTTPX_50_PACED: CaseSpec(Part.CALLER, "the upstream called with httpx, 50 chunks 1 ms apart"),
}

CONCURRENCIES = (1, 8)
"""One request at a time shows latency; eight at a time keep a core busy, so that CPU time is not that of waking up."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a case may cost at most, in multiples of another one's CPU, at the highest concurrency."""

    case: Case
    reference: Case
    ratio_max: float


BARS = (
    # Against grpc.aio as it comes; like with like: what comes at once against what is sent at once.
    Bar(Case.ROUTE, Case.ECHO, 4.0),
    Bar(Case.COMPLETE_50_BURST, Case.STREAM, 3.0),
    Bar(Case.COMPLETE_50_PACED, Case.STREAM_PACED, 3.0),
    # Stricter, and not reached by all: the bare server is given Pointsman's own event loop, or nothing to wait for.
    Bar(Case.ROUTE, Case.ECHO_UVLOOP, 4.0),
    Bar(Case.COMPLETE_50_BURST, Case.STREAM_UVLOOP, 3.0),
    Bar(Case.COMPLETE_50_PACED, Case.STREAM_PACED_UVLOOP, 3.0),
    Bar(Case.COMPLETE_50_PACED, Case.STREAM, 3.0),
)
