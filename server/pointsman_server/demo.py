"""The tour: a router at work on real prompts, over real gRPC and HTTP, with simulated providers on loopback.

Decisions come from the shipped quality model and from latencies that are measured while the tour runs; the answers are
simulated, and say so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pointsman import (
    AsyncClient,
    AttemptFailed,
    AttemptStarted,
    Candidate,
    Conversation,
    Decision,
    Delta,
    Done,
    NoEligibleEndpointError,
    conversation,
    seconds,
    user,
)
from pointsman.v1.chat_pb2 import SamplingOptions
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pointsman_server.app import SIMULATION_SEED, Application
from pointsman_server.config.settings import OpenAiDoorSettings
from pointsman_server.providers.simulated import SimulatedProviders
from pointsman_server.providers.weather import OutageKind, demo_weather
from pointsman_server.simulation import simulated_config

DEFAULT_PORT = 50061
DEFAULT_DOOR_PORT = 50062
WARM_UP_ROUND_COUNT = 3
"""Short answers asked of every endpoint first, so that latencies are measured rather than unknown."""
WARM_UP_TOKEN_COUNT = 12
TRAFFIC_COUNT_MAX = 20
"""Requests that open the breakers of a provider's endpoints: five failures each."""
STREAM_TOKEN_COUNT = 60
SEED = 1
"""Of every draw among near-ties, so that the tour is the same each time as far as measured latencies are."""


@dataclass(frozen=True, slots=True)
class DemoPrompt:
    """A prompt of the tour."""

    kind: str
    text: str


PROMPTS = (
    DemoPrompt("small talk", "Hi! How are you today?"),
    DemoPrompt("fact", "What is the capital of Australia, and why is it not Sydney?"),
    DemoPrompt("fact", "Which planet has the most moons?"),
    DemoPrompt("translation", "Translate into French: 'The train leaves at nine from platform four.'"),
    DemoPrompt("rewriting", "Make this politer: 'Send me the report now.'"),
    DemoPrompt("summary", "Summarise in one sentence: a pointsman sets the points so that each train takes its track."),
    DemoPrompt("writing", "Write a haiku about a railway junction in the rain."),
    DemoPrompt("writing", "Write a toast for a colleague who retires after forty years as a signal engineer."),
    DemoPrompt("arithmetic", "A ticket costs 4.35 and I pay with a ten. I buy two. How much change do I get?"),
    DemoPrompt(
        "word problem",
        "A tank fills through pipe A in 6 hours and through pipe B in 4, and leaks empty in 12. All three are open."
        " After how many minutes is it full?",
    ),
    DemoPrompt("algebra", "Find all real x with x^4 - 5x^2 + 4 = 0. Show each step."),
    DemoPrompt("proof", "Prove that there are infinitely many primes congruent to 3 modulo 4."),
    DemoPrompt(
        "olympiad",
        "Let a, b, c be positive reals with abc = 1. Prove that a^2 + b^2 + c^2 >= a + b + c, and say when equality holds.",
    ),
    DemoPrompt("calculus", "Evaluate the integral of x^2 e^(-x) from 0 to infinity, and justify the method."),
    DemoPrompt(
        "physics",
        "A block slides down a frictionless incline of 30 degrees from rest. What is its speed after 2 m?"
        " A) 3.1 m/s B) 4.4 m/s C) 6.3 m/s D) 9.8 m/s",
    ),
    DemoPrompt(
        "chemistry",
        "Which has the highest boiling point? A) CH4 B) NH3 C) H2O D) HF. Explain with intermolecular forces.",
    ),
    DemoPrompt(
        "biology",
        "During which phase of meiosis does crossing over occur? A) Prophase I B) Metaphase I C) Anaphase II D) Telophase II",
    ),
    DemoPrompt(
        "law",
        "A shop displays a coat at 10 instead of 100 by mistake. Is it bound to sell at 10? Argue under the common law.",
    ),
    DemoPrompt("economics", "What happens to a bond's price when interest rates rise, and why? Give a worked example."),
    DemoPrompt("code", "Write a Python function that returns the n-th Fibonacci number in O(log n)."),
    DemoPrompt(
        "code trace",
        "def f(s):\n    out = ''\n    for i, c in enumerate(s):\n        out = c + out if i % 2 else out + c\n    return out\n"
        "What does f('pointsman') return?",
    ),
    DemoPrompt("debugging", "Why does `list.sort()` return None in Python, and how do I get a sorted copy?"),
    DemoPrompt("logic", "All bloops are razzies and some razzies are lazzies. Must some bloops be lazzies? Explain."),
    DemoPrompt("planning", "Plan a three-day trip by rail through the Alps for two people on a budget of 600 euros."),
)

HARD_PROMPT = PROMPTS[11]
ROUTERS = (
    ("default", "what a right answer is worth, against cost and time"),
    ("best", "the best predicted answer, whatever it costs"),
    ("cheap", "the cheapest that is at least 90 % as good as the best"),
    ("router@lowest-ttft", "the fastest first token"),
    ("router@q:1|rc:20|labels:region=eu,retention=none", "only in the EU, nothing kept"),
    ("router@q:1|rc:200|skip_providers:sim-north", "quality, with cost at ten times the weight, never at sim-north"),
    ("llama-3.1-70b-instruct@lowest-itl", "one model, wherever it streams fastest"),
)
IMPOSSIBLE_ROUTER = "router@lowest-cost|c<0.1|q>0.85"


async def run(*, once: bool) -> int:
    """The tour; without `once` the server is left running until Ctrl-C. Returns the exit code."""
    console = Console(highlight=False)
    stop = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    simulated = SimulatedProviders(demo_weather(), seed=SIMULATION_SEED, clock_s=time.monotonic, sleep=asyncio.sleep)
    async with simulated:
        config = simulated_config(f"http://127.0.0.1:{simulated.port}", os.environ)
        port = 0 if once else _free_port(DEFAULT_PORT)
        config = replace(config, server=replace(config.server, listen=f"127.0.0.1:{port}"))
        if not once:
            door = OpenAiDoorSettings(listen=f"127.0.0.1:{_free_port(DEFAULT_DOOR_PORT)}")
            config = replace(config, openai_door=door)
        async with Application(config) as application:
            address = f"127.0.0.1:{application.port}"
            async with AsyncClient(address) as client:
                tour = asyncio.create_task(_tour(console, client, simulated, address, config.catalog.by_name))
                stopped = asyncio.create_task(stop.wait())
                await asyncio.wait({tour, stopped}, return_when=asyncio.FIRST_COMPLETED)
                tour.cancel()
                with suppress(asyncio.CancelledError):
                    await tour
                if not once and not stop.is_set():
                    _invite(console, address, door_port=application.openai_port)
                    await stop.wait()
                stopped.cancel()
    return 0


async def _tour(
    console: Console, client: AsyncClient, simulated: SimulatedProviders, address: str, endpoint_names: Iterable[str]
) -> None:
    names = list(endpoint_names)
    console.print(
        f"Pointsman serves {len(names)} endpoints at {len({n.partition('@')[2] for n in names})} simulated providers on"
        f" {address}. No key, no network: the answers are simulated, the routing is not."
    )
    await _warm_up(console, client, names)
    await _show_prompts(console, client)
    await _show_routers(console, client)
    await _show_impossible(console, client)
    await _show_stream(console, client)
    await _show_failover(console, client, simulated)


async def _warm_up(console: Console, client: AsyncClient, names: Sequence[str]) -> None:
    """Asks every endpoint for short answers, so that decisions rest on measured latencies."""
    short = _limited("Say hello.", WARM_UP_TOKEN_COUNT)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Measuring each endpoint", total=len(names) * WARM_UP_ROUND_COUNT)

        async def ask(name: str) -> None:
            for _ in range(WARM_UP_ROUND_COUNT):
                await client.complete_text(short, router=name, omit_candidates=True)
                progress.advance(task)

        await asyncio.gather(*(ask(name) for name in names))
    console.print(f"Each endpoint has answered {WARM_UP_ROUND_COUNT} times, so its latency is measured.")


async def _show_prompts(console: Console, client: AsyncClient) -> None:
    _heading(console, f"1. Each prompt is assessed on its own ({len(PROMPTS)} prompts, the default router)")
    table = _table("kind", "prompt", "goes to", "quality", "cost", "ttft", "next best")
    chosen: Counter[str] = Counter()
    cost_usd = dearest_usd = 0.0
    for prompt in PROMPTS:
        decision = await client.route(prompt.text, seed=SEED)
        eligible = [candidate for candidate in decision.candidates if candidate.rank]
        winner, runner_up = eligible[0], eligible[1]
        chosen[winner.endpoint] += 1
        cost_usd += winner.cost_usd
        dearest_usd += max(candidate.cost_usd for candidate in eligible)
        table.add_row(
            prompt.kind,
            _short(prompt.text, 46),
            Text(winner.endpoint, style="bold green"),
            _quality(winner),
            f"${winner.cost_usd:.6f}",
            _milliseconds(winner),
            f"{runner_up.endpoint} {_quality(runner_up)}",
        )
    console.print(table)
    shares = ", ".join(f"{count} to {name}" for name, count in chosen.most_common())
    console.print(f"{shares}. Expected cost ${cost_usd:.4f}; all of it at the dearest: ${dearest_usd:.4f}.")


async def _show_routers(console: Console, client: AsyncClient) -> None:
    _heading(console, "2. The same prompt under other constraints and preferences")
    console.print(f"[dim]{_short(HARD_PROMPT.text, 100)}[/dim]")
    table = _table("router", "what it wants", "goes to", "quality", "cost", "ttft", "eligible")
    for router, meaning in ROUTERS:
        decision = await client.route(HARD_PROMPT.text, router=router, seed=SEED)
        eligible = [candidate for candidate in decision.candidates if candidate.rank]
        winner = eligible[0]
        table.add_row(
            router,
            meaning,
            Text(winner.endpoint, style="bold green"),
            _quality(winner),
            f"${winner.cost_usd:.6f}",
            _milliseconds(winner),
            f"{len(eligible)} of {len(decision.candidates)}",
        )
    console.print(table)


async def _show_impossible(console: Console, client: AsyncClient) -> None:
    _heading(console, f"3. Constraints that nothing satisfies: {IMPOSSIBLE_ROUTER}")
    try:
        await client.route(HARD_PROMPT.text, router=IMPOSSIBLE_ROUTER)
    except NoEligibleEndpointError as error:
        console.print(f"[yellow]{error.code.name}[/yellow]: {error}")
        for relaxation in error.relaxations:
            changes = ", ".join(f"{change.bound} to {change.relaxed_bound}" for change in relaxation.changes)
            console.print(f"  {relaxation.endpoint} would do with {changes}")


async def _show_stream(console: Console, client: AsyncClient) -> None:
    _heading(console, "4. An answer, streamed")
    await _stream(console, client, PROMPTS[6].text, router="default")


async def _show_failover(console: Console, client: AsyncClient, simulated: SimulatedProviders) -> None:
    asked = _limited(PROMPTS[7].text, STREAM_TOKEN_COUNT)
    decision = await client.route(asked, seed=SEED)
    _heading(console, f"5. {decision.provider} goes down, just as it is chosen")
    simulated.set_outage(decision.provider, OutageKind.RESET)
    await _stream(console, client, PROMPTS[7].text, router="default")
    again = await _route_until_left_alone(client, decision)
    console.print(
        f"{decision.provider} fails again and again, so the breakers of its endpoints open: the same prompt now goes to"
        f" [bold green]{again.endpoint}[/bold green] at once."
    )
    simulated.set_outage(decision.provider, None)
    console.print(f"{decision.provider} is up again. A trial call each will tell, a few seconds from now.")


async def _route_until_left_alone(client: AsyncClient, before: Decision) -> Decision:
    """Sends a few more requests its way, as traffic would, until the breakers have seen enough."""
    asked = _limited(PROMPTS[7].text, WARM_UP_TOKEN_COUNT)
    for _ in range(TRAFFIC_COUNT_MAX):
        decision = await client.route(asked, seed=SEED)
        if decision.provider != before.provider:
            break
        await client.complete_text(asked, omit_candidates=True, seed=SEED)
    return await client.route(asked, seed=SEED)


def _limited(prompt: str, token_count_max: int) -> Conversation:
    """A user's turn with a limit on the answer, so that the tour goes on."""
    return conversation(user(prompt), sampling=SamplingOptions(max_output_token_count=token_count_max))


async def _stream(console: Console, client: AsyncClient, prompt: str, *, router: str) -> None:
    """Streams one answer to the console, with what happens around it."""
    console.print(f"[dim]{prompt}[/dim]")
    async for event in client.complete(_limited(prompt, STREAM_TOKEN_COUNT), router=router, seed=SEED):
        match event:
            case Decision():
                eligible_count = sum(1 for candidate in event.candidates if candidate.rank)
                console.print(f"[dim]decision {event.id}: {event.endpoint} of {eligible_count} eligible[/dim]")
            case AttemptStarted():
                console.print(f"[dim]attempt {event.attempt_number}: {event.endpoint}[/dim]")
            case AttemptFailed():
                console.print(f"[red]attempt {event.attempt_number} failed: {event.message}[/red]")
            case Delta():
                console.print(event.text, end="", markup=False, soft_wrap=True)
            case Done():
                console.print(
                    f"\n[dim]done by {event.endpoint} after {event.attempt_count} attempt(s): first token after"
                    f" {seconds(event.ttft) * 1000:.0f} ms, {seconds(event.duration):.2f} s in all,"
                    f" ${event.cost_usd:.6f}[/dim]"
                )
            case _:
                pass


def _invite(console: Console, address: str, *, door_port: int) -> None:
    """What to try next."""
    server = "" if address.endswith(f":{DEFAULT_PORT}") else f" --server {address}"
    _heading(console, f"The server is still running on {address}")
    console.print("In another terminal:")
    asked = '{"model": "cheap", "messages": [{"role": "user", "content": "Tell me about trains."}]}'
    url = f"http://127.0.0.1:{door_port}/v1/chat/completions"
    for line in (
        f".venv/bin/pointsman route{server} 'Why is the sky blue?'",
        f".venv/bin/pointsman route{server} --router 'router@lowest-ttft|q>0.5' 'Prove that 17 is prime.'",
        f".venv/bin/pointsman complete{server} --router cheap 'Tell me about trains.'",
        f".venv/bin/pointsman endpoints{server} --watch",
        f"curl -sS {url} -H 'content-type: application/json' -d '{asked}'",
    ):
        console.print(f"  {line}", style="bold", soft_wrap=True)
    console.print("Ctrl-C stops it.")


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(Rule(Text(text, style="bold"), align="left"))


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="ellipsis", no_wrap=column in ("kind", "prompt", "goes to", "quality"))
    return table


def _short(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}\u2026"


def _quality(candidate: Candidate) -> str:
    return f"{candidate.quality.mean:.2f}" if candidate.HasField("quality") else "?"


def _milliseconds(candidate: Candidate) -> str:
    return f"{seconds(candidate.ttft.mean) * 1000:.0f} ms" if candidate.HasField("ttft") else "?"


def _free_port(wanted: int) -> int:
    """`wanted` if it is free, else 0, which takes any."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted
