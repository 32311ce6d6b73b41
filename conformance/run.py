"""Runs the scenarios with one language's client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial

from conformance.clients import Language, build, environment
from conformance.judge import differences
from conformance.runner import RunnerError, running
from conformance.scenario import Scenario
from conformance.stage import Stage, staged


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one scenario."""

    differences: tuple[str, ...]
    """From what was expected. Empty: it is as it should be."""
    impossible: str = ""
    """Why it can't be. Empty: it can."""


async def outcomes(language: Language, scenarios: Iterable[Scenario]) -> dict[str, Outcome]:
    """Builds the runner, and has it make the call of each scenario, each against a server of its own.

    Raises:
        CommandError: the client can't be built.
    """
    await asyncio.to_thread(build, language.name)
    found: dict[str, Outcome] = {}
    targets: set[str] = set()
    async with running(language.run, folder=language.folder, environment=environment()) as runner:
        for scenario in scenarios:
            async with AsyncExitStack() as stack:
                stage = await at_new_target(
                    stack, partial(staged, scenario, behind_envoy=language.behind_envoy), targets
                )
                try:
                    seen = await runner.call(scenario, stage)
                except RunnerError as error:
                    found[scenario.name] = Outcome((str(error),))
                else:
                    different = tuple(await differences(scenario, seen, stage))
                    found[scenario.name] = outcome_of(different, language.impossible.get(scenario.name, ""))
    return found


async def at_new_target(
    stack: AsyncExitStack, make: Callable[[], AbstractAsyncContextManager[Stage]], targets: set[str]
) -> Stage:
    """A stage where none of `targets` was, of which it becomes one.

    The system hands out a port anew now and then. A client that has found nobody there, when the server of an earlier
    scenario had ended, fails at once for some seconds, as it should. A stage at such a port keeps it while another is made.
    """
    while True:
        stage = await stack.enter_async_context(make())
        if stage.target not in targets:
            targets.add(stage.target)
            return stage


def outcome_of(found: tuple[str, ...], impossible: str) -> Outcome:
    """What came of a scenario. One that is said to be impossible is tried as well, and must not be as it should be."""
    if not impossible:
        return Outcome(found)
    return Outcome(() if found else (f"it is possible, though said not to be ({impossible})",), impossible)
