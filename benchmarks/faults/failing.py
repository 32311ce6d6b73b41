"""Providers that fail: before the first token, after it, all too slowly, or all of them by a limit of our rate."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from pointsman.v1.router_service_pb2 import DESCRIPTOR, Execution
from pointsman_server.providers.scripted import (
    UNKNOWN_HOST,
    Close,
    DeafPort,
    Hang,
    Pause,
    ReadAnything,
    ReadRequest,
    Repeat,
    Reset,
    Script,
    Send,
    chunk,
    stream_head,
    whole_answer,
)

from benchmarks.faults import figures
from benchmarks.faults.amount import Amount
from benchmarks.faults.bare import port_of, refusing
from benchmarks.faults.calling import Ended, connected, ended, request
from benchmarks.faults.figures import Measured, quantile
from benchmarks.faults.lean import Answered, Raw, answered, calling
from benchmarks.faults.site import ANSWER, PIECES, QUICK, WHOLE, Provided, Seen, Site, delta

_T = TypeVar("_T")

COMPLETE = f"/{DESCRIPTOR.services_by_name['RouterService'].full_name}/Complete"
CONNECT_TIMEOUT_S = 0.5
STALL_S = 0.5
LORIS_TIMEOUT_S = 8.0
"""When a provider that drips bytes is given up; by then all of them are under way."""
LORIS_PER_S = 50.0
"""How fast their calls are begun, before healthy traffic is measured: a burst of calls is a matter of its own."""
LORIS_SETTLED_S = 0.5
"""From the last of these calls until healthy traffic is measured."""
DRIP_PAUSE_COUNT = 100
"""Different pauses between drops: about those that there are until a provider is given up."""
HEALTHY_TTFT_S = 0.1
"""Of healthy traffic: of the first tokens that thefastest.ai measured of hosted models 96 in 100 took longer."""
HEALTHY_PER_S = 50.0
"""At a provider that takes so long, and as many at one that takes no time: their callers wait for the router alone."""
LIMITED_PER_S = 500.0
LIMITED_WARM_UP_PER_S, LIMITED_WARM_UP_S = 100.0, 5.0
LIMITED_DEADLINE_S = 0.2
"""Of the calls of B5: shorter than nearly all waits for an endpoint, which are then refused at once."""
ON_THE_WAY_S = 0.1
"""A call that comes so shortly after the first refusal had left before that was known."""
CLOSING = ("connection", "close")
"""Of answers after which the connection is closed, so that each call is seen as one."""
NO_TLS: Script = (ReadAnything(), Send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Hang())
BAD_GATEWAY: Script = (ReadRequest(), Send(whole_answer("bad gateway", status=502)))


async def before_first_token(amount: Amount) -> Measured:
    """A6: for each way to fail, calls whose first candidate does; each at an endpoint of its own, so that no breaker opens."""
    count = amount.call_count
    with DeafPort() as deaf:
        failing = {
            "resets": Provided(scripts=((ReadRequest(), Reset()),), model_count=count),
            "closes": Provided(scripts=((ReadRequest(), Close()),), model_count=count),
            "refuses": Provided(scripts=(BAD_GATEWAY,), model_count=count),
            "notls": Provided(scripts=(NO_TLS,), model_count=count, url="https://localhost:{port}/v1"),
            "unknown": Provided(model_count=count, url=f"http://{UNKNOWN_HOST}/v1"),
            "deaf": Provided(model_count=count, url=deaf.base_url, lines=f"connect_timeout_s = {CONNECT_TIMEOUT_S}"),
        }
        async with (
            Site({**failing, "healthy": Provided(scripts=(QUICK,), model_count=count)}) as site,
            connected(site.target) as stub,
        ):
            # Its connection is open, as it is where there is traffic.
            usual_s = [_ttft_s(await ended(stub, request("m0@healthy"))) for _ in range(count)]
            found = [
                await ended(stub, request(f"m{number}@{name}->m{number}@healthy"))
                for number in range(count)
                for name in failing
            ]
    served = [one for one in found if one.text == ANSWER and one.events[-1].done.attempt_count == 2]
    beyond_ms = [(_ttft_s(one) - _failure_s(one) - statistics.median(usual_s)) * 1000.0 for one in served]
    return {figures.UNSERVED: len(found) - len(served), figures.BEYOND_FAILURE: quantile(beyond_ms, 0.99)}


def _ttft_s(found: Ended) -> float:
    assert found.first_delta_s is not None, "it was answered"
    return found.first_delta_s - found.started_s


def _failure_s(found: Ended) -> float:
    """How long the failed attempt took, as the router saw it."""
    (failed,) = [event.attempt_failed for event in found.events if event.HasField("attempt_failed")]
    return failed.duration.seconds + failed.duration.nanos / 1e9


async def after_first_token(amount: Amount) -> Measured:
    """A7: for each way to break off, calls whose provider does so after three of its five pieces."""
    sent: Script = (ReadRequest(), Send(stream_head()), *(Send(delta(piece)) for piece in PIECES[:3]))
    # A reset takes back what was not read yet: a moment later everything was.
    failing = {
        "resets": Provided(scripts=((*sent, Pause(0.1), Reset()),), model_count=amount.call_count),
        "closes": Provided(scripts=((*sent, Close()),), model_count=amount.call_count),
        "stalls": Provided(
            scripts=((*sent, Hang()),), model_count=amount.call_count, lines=f"idle_timeout_s = {STALL_S}"
        ),
    }
    async with (
        Site({**failing, "healthy": Provided(scripts=(QUICK,), model_count=amount.call_count)}) as site,
        connected(site.target) as stub,
    ):
        found = await asyncio.gather(
            *(
                ended(stub, request(f"m{number}@{name}->m{number}@healthy"))
                for number in range(amount.call_count)
                for name in failing
            )
        )
    return {figures.INEXACT: sum(not _is_exact(one) for one in found)}


def _is_exact(found: Ended) -> bool:
    """Whether the text is what was sent, the status counts it, and the tokens are told."""
    text = "".join(PIECES[:3])
    usages = [event.usage for event in found.events if event.HasField("usage")]
    return (
        found.code is grpc.StatusCode.UNAVAILABLE
        and found.text == text
        and found.error_info.metadata["character_count"] == str(len(text))
        and len(usages) == 1
        and usages[0].output_token_count > 0
    )


async def dripping(amount: Amount) -> Measured:
    """A8: providers that send a byte now and then, of a head, of a comment, or nothing, beside healthy traffic, which is
    measured alone and beside them by turns."""
    count = amount.loris_count
    answering = Repeat((ReadRequest(is_kept=False), Pause(HEALTHY_TTFT_S), Send(WHOLE)))
    healthy_providers = {
        "healthy": Provided(scripts=((answering,),), is_apart=True),
        "instant": Provided(scripts=(QUICK,), is_apart=True),
    }
    drips = _drips()
    providers = {
        name: Provided(scripts=(script,), model_count=-(-count // len(drips))) for name, script in drips.items()
    }
    async with (
        Site({**providers, **healthy_providers}, is_router_alone=True) as site,
        connected(site.target) as stub,
        connected(site.target, number=1) as healthy_stub,
    ):
        names, numbers, rng = list(drips), itertools.count(), random.Random(count)
        turns = itertools.cycle(healthy_providers)

        async def healthy() -> tuple[str, Ended]:
            # Two hundred candidates take longer to write and to read than all else, and nobody asks for them with each answer.
            name = next(turns)
            return name, await ended(healthy_stub, request(f"m0@{name}", Execution(omit_candidates=True)))

        async def measured(into: dict[str, list[Ended]]) -> None:
            per_s = HEALTHY_PER_S * len(healthy_providers)
            for name, one in await _paced(healthy, per_s, LORIS_TIMEOUT_S - LORIS_SETTLED_S, rng):
                into[name].append(one)

        execution = Execution(max_attempt_count=1, ttft_timeout=Duration(seconds=int(LORIS_TIMEOUT_S)))

        async def dripped() -> Ended:
            number = next(numbers) % count
            return await ended(stub, request(f"m{number // len(names)}@{names[number % len(names)]}", execution))

        begun_s = count / LORIS_PER_S
        await _paced(healthy, HEALTHY_PER_S, 1.0, rng)
        alone: defaultdict[str, list[Ended]] = defaultdict(list)
        beside: defaultdict[str, list[Ended]] = defaultdict(list)
        late_s: list[float] = []
        for _ in range(amount.loris_round_count):
            await measured(alone)
            dripping_calls = asyncio.create_task(_paced(dripped, LORIS_PER_S, begun_s, rng))
            await asyncio.sleep(begun_s + LORIS_SETTLED_S)
            # Until all of them have been given up.
            await measured(beside)
            late_s += [_failure_s(one) - LORIS_TIMEOUT_S for one in await dripping_calls]
    slower, instant_slower = (_p99_s(beside[name]) / _p99_s(alone[name]) - 1.0 for name in healthy_providers)
    return {
        figures.LORIS_LATE: max(late_s) * 1000.0,
        figures.LORIS_SLOWER: slower * 100.0,
        figures.LORIS_INSTANT: instant_slower * 100.0,
    }


def _drips() -> dict[str, Script]:
    """Ways to answer that never get to a token, by name."""
    return {
        "head": (ReadRequest(), Send(b"HTTP/1.1 200 OK\r\nx-drip: "), _drip(b"x")),
        "comment": (ReadRequest(), Send(stream_head()), _drip(chunk(b": up\n\n"))),
        "nothing": (ReadRequest(), Hang()),
    }


def _drip(drop: bytes) -> Repeat:
    """The same bytes ten times a second, but not like clockwork: each time that all who drip are held up for a moment, those
    with one and the same pause would go on in step, until hundreds of drops fall at once."""
    rng = random.Random(drop)
    pauses = [Pause(rng.uniform(0.05, 0.15)) for _ in range(DRIP_PAUSE_COUNT)]
    return Repeat(tuple(step for pause in pauses for step in (Send(drop), pause)))


def _p99_s(found: Sequence[Ended]) -> float:
    assert all(one.text == ANSWER for one in found), "healthy traffic is served"
    return quantile([one.ended_s - one.started_s for one in found], 0.99)


async def _paced(
    call: Callable[[], Coroutine[None, None, _T]], per_s: float, seconds: float, rng: random.Random
) -> list[_T]:
    """Calls at a steady rate, however long each takes; each at a random moment of its share of the time, so that what goes
    by a clock of its own, such as bytes that drip, does not meet all of them or none."""
    started_s = time.monotonic()
    tasks = []
    for number in range(int(per_s * seconds)):
        await asyncio.sleep(max(0.0, started_s + (number + rng.random()) / per_s - time.monotonic()))
        tasks.append(asyncio.create_task(call()))
    return list(await asyncio.gather(*tasks))


@dataclass(frozen=True, slots=True)
class _Limit:
    """One way to say when to come back."""

    headers: tuple[tuple[str, str], ...]
    after_s: float
    """How long a caller has to stay away then."""


def _limits() -> dict[str, _Limit]:
    """Every kind of Retry-After; a date is of now."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    return {
        "seconds": _Limit((("retry-after", "20"),), 20.0),
        "date": _Limit((("retry-after", date),), 30.0),
        "milliseconds": _Limit((("retry-after-ms", "12500"), ("retry-after", "1")), 12.5),
        "silent": _Limit((), 5.0),
        "garbled": _Limit((("retry-after", "soon"),), 5.0),
        "past": _Limit((("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),), 5.0),
        "endless": _Limit((("retry-after", "99999999"),), 60.0),
    }


async def limited(amount: Amount) -> Measured:
    """B5: every endpoint answers 429 to everything, each with another Retry-After."""
    limits = _limits()
    body = json.dumps({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})
    providers = {
        name: Provided(
            scripts=((ReadRequest(), Send(whole_answer(body, status=429, headers=(*limit.headers, CLOSING)))),)
        )
        for name, limit in limits.items()
    }
    rng = random.Random(len(limits))
    async with Site({**providers, "before": Provided(scripts=(QUICK,))}) as site:
        # There is traffic before everyone refuses: a router's very first calls take five times as long.
        await _answers(site.target, "m0@before", LIMITED_WARM_UP_PER_S, LIMITED_WARM_UP_S, rng)
        found = await _answers(
            site.target, "m0@lowest-cost|skip_providers:before", LIMITED_PER_S, amount.limited_s, rng
        )
        seen = {name: await site.seen(name) for name in providers}
    call_count = sum(len(connections) for connections in seen.values())
    refused = [one for one in found if one.code is grpc.StatusCode.RESOURCE_EXHAUSTED]
    well_told = [one for one in refused if one.has_details("RetryInfo", "QuotaFailure")]
    # A caller who may wait for an endpoint does; its deadline can come first.
    late = [one for one in found if one.code is grpc.StatusCode.DEADLINE_EXCEEDED]
    # Where nobody was told well the other figures say so: this one then is of a refusal without details.
    with refusing(COMPLETE, (well_told or found)[-1].details) as child:
        target = f"127.0.0.1:{await port_of(child)}"
        bare = await _answers(target, "", LIMITED_PER_S, amount.limited_s, rng)
    return {
        figures.LIMITED_EXTRA: max(0.0, call_count / len(found) - 1.0) * 100.0,
        figures.LIMITED_EARLY: sum(early_count(seen[name], limit.after_s) for name, limit in limits.items()),
        figures.LIMITED_OTHER: len(found) - len(well_told) - len(late),
        # Whoever is not refused by its deadline has waited for longer than any bar.
        figures.LIMITED_TIME: quantile([one.duration_s for one in found], 0.95) * 1000.0,
        figures.BARE_TIME: quantile([one.duration_s for one in bare], 0.95) * 1000.0,
    }


async def _answers(target: str, router: str, per_s: float, seconds: float, rng: random.Random) -> list[Answered]:
    """What comes of that many calls by that router string."""
    asked = request(router).SerializeToString()
    async with calling(target, COMPLETE, timeout_s=LIMITED_DEADLINE_S) as caller:

        async def call() -> Raw:
            return await caller.call(asked)

        raw = await _paced(call, per_s, seconds, rng)
    return [answered(one, timeout_s=LIMITED_DEADLINE_S) for one in raw]


def early_count(seen: Sequence[Seen], after_s: float) -> int:
    """Calls that came before the time that an earlier refusal had named, those apart that were on the way by then."""
    count, refused_s = 0, None
    for connection in seen:
        called_s = connection.accepted_at_s
        if refused_s is not None and refused_s + ON_THE_WAY_S < called_s < refused_s + after_s:
            count += 1
        elif refused_s is None or called_s >= refused_s + after_s:
            refused_s = called_s
    return count
