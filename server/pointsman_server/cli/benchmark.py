"""`pointsman benchmark`: labels for the user's own prompts, from the user's own endpoints."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from difflib import get_close_matches
from pathlib import Path

import uvloop

from pointsman_server.catalog.catalog import CatalogEntry
from pointsman_server.chat import SamplingOptions
from pointsman_server.cli.benchmark_report import Labelling, RunProgress, print_report, show_estimates
from pointsman_server.cli.catalog_show import read_config
from pointsman_server.cli.exit import EXIT_FAILURE, EXIT_USAGE, CommandError
from pointsman_server.cli.output import console
from pointsman_server.config import Config
from pointsman_server.labelling.budget import Budget
from pointsman_server.labelling.errors import LabellingError
from pointsman_server.labelling.journal import Journal, opened_journal
from pointsman_server.labelling.outcomes import labels, outcome_rows, prompt_rows
from pointsman_server.labelling.plan import Plan, check_budget_can_hold, estimates
from pointsman_server.labelling.prompts import LabelledPrompt, ScoringDefaults, read_prompts
from pointsman_server.labelling.run import Limits, Missing, Run, Surroundings
from pointsman_server.labelling.scoring import Method
from pointsman_server.labelling.tables import TableFormat, chosen_format, table_paths, write_tables
from pointsman_server.providers.http_client import default_tls
from pointsman_server.providers.registry import create_provider
from pointsman_server.providers.simulated import SimulatedProviders
from pointsman_server.providers.weather import demo_weather
from pointsman_server.simulation import simulated_config

SIMULATION_SEED = 7
"""Any fixed one, so that the simulated answers are the same every time."""
_NO_ORIGIN = "http://127.0.0.1"
"""Where simulated providers are said to be until they run."""


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Asks what is missing, scores all that is there, writes the tables and shows what came of it."""
    try:
        return _benchmark(arguments, environment)
    except LabellingError as failed:
        raise CommandError(str(failed)) from failed
    except OSError as failed:
        raise CommandError(f"{failed.filename or arguments.out}: {failed.strerror}") from failed


def _benchmark(arguments: Namespace, environment: Mapping[str, str]) -> int:
    config = (
        simulated_config(_NO_ORIGIN, environment) if arguments.simulate else read_config(arguments.config, environment)
    )
    plan = _plan(arguments, config)
    table_format = chosen_format(arguments.format and TableFormat(arguments.format), arguments.out)
    paths = table_paths(arguments.out, table_format)
    if arguments.prompts.resolve() in {path.resolve() for path in paths}:
        raise LabellingError(f"the labelled prompts would be written over {arguments.prompts}: choose another --out")
    if arguments.budget_usd is not None:
        check_budget_can_hold(plan)
    with opened_journal(arguments.out) as journal:
        _confirm(arguments, plan, journal)
        try:
            missing = uvloop.run(_complete(arguments, environment, config, plan, journal))
        except KeyboardInterrupt:
            console(stderr=True).print(
                f"what was answered is kept in {arguments.out}; the same command goes on from there"
            )
            raise
        labelled = labels(plan, journal.ledger)
        outcomes = outcome_rows(labelled)
        write_tables(arguments.out, table_format, prompt_rows(plan.prompts, outcomes), outcomes)
        print_report(Labelling(plan, journal.ledger, labelled, missing, paths), as_json=arguments.json)
    return EXIT_FAILURE if missing else 0


def _plan(arguments: Namespace, config: Config) -> Plan:
    """What is asked for.

    Raises:
        CommandError: an endpoint is not in the catalog, or what is asked for makes no sense.
        LabellingError: the prompts have faults.
    """
    names = list(dict.fromkeys(name.strip() for name in arguments.endpoints.split(",") if name.strip()))
    if not names:
        raise CommandError("--endpoints names none", exit_code=EXIT_USAGE)
    entries = tuple(_entry(config, name) for name in names)
    judge = _entry(config, arguments.judge) if arguments.judge else None
    baseline = _entry(config, arguments.baseline) if arguments.baseline else None
    if entries == (baseline,):
        raise CommandError("--baseline needs another endpoint in --endpoints to compare with", exit_code=EXIT_USAGE)
    defaults = ScoringDefaults(
        method=arguments.score and Method(arguments.score),
        ignore_case=arguments.ignore_case,
        has_judge=judge is not None,
        has_baseline=baseline is not None,
    )
    return Plan(
        prompts=_read_prompts(arguments.prompts, defaults),
        entries=entries,
        judge=judge,
        baseline=baseline,
        sampling=SamplingOptions(temperature=arguments.temperature, output_token_count_max=arguments.output_tokens_max),
        judge_temperature=arguments.judge_temperature,
    )


def _entry(config: Config, name: str) -> CatalogEntry:
    entry = config.catalog.by_name.get(name)
    if entry is not None:
        return entry
    close = get_close_matches(name, config.catalog.by_name, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "`pointsman catalog show` lists them"
    left_out = "".join(f"\n  note: {notice}" for notice in config.notices)
    raise CommandError(f"{name} is not an endpoint of the catalog; {hint}{left_out}", exit_code=EXIT_USAGE)


def _read_prompts(path: Path, defaults: ScoringDefaults) -> tuple[LabelledPrompt, ...]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return read_prompts(file, source=str(path), defaults=defaults)
    except UnicodeDecodeError as failed:
        raise CommandError(f"{path} is not UTF-8", exit_code=EXIT_USAGE) from failed
    except OSError as failed:
        raise CommandError(f"can't read {path}: {failed.strerror}", exit_code=EXIT_USAGE) from failed


def _confirm(arguments: Namespace, plan: Plan, journal: Journal) -> None:
    """Shows what is still to be asked and what that will cost, and asks whether to go on.

    Raises:
        CommandError: the answer is no, or there is nobody to ask.
    """
    missing = estimates(plan, journal.ledger, output_token_count=arguments.assume_output_tokens)
    show_estimates(missing, journal.ledger, budget_usd=arguments.budget_usd)
    if arguments.yes or not missing:
        return
    if not sys.stdin.isatty():
        raise CommandError("nothing was asked yet: --yes goes on without a question", exit_code=EXIT_USAGE)
    sys.stderr.write("Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CommandError("nothing was asked")


async def _complete(
    arguments: Namespace, environment: Mapping[str, str], config: Config, plan: Plan, journal: Journal
) -> tuple[Missing, ...]:
    """Makes the calls that are missing; gives what could not be had."""
    async with AsyncExitStack() as stack:
        if arguments.simulate:
            simulated = SimulatedProviders(
                demo_weather(), seed=SIMULATION_SEED, clock_s=time.monotonic, sleep=asyncio.sleep
            )
            await stack.enter_async_context(simulated)
            config = simulated_config(f"http://127.0.0.1:{simulated.port}", environment)
        tls, providers = default_tls(), {}
        for name in _provider_names(plan):
            providers[name] = create_provider(config.adapters[name], config.providers[name], unix_s=time.time, tls=tls)
            stack.push_async_callback(providers[name].aclose)
        made = Run(
            plan,
            journal,
            providers,
            limits=Limits(
                concurrency=arguments.concurrency,
                attempt_count_max=arguments.attempts,
                timeout_s=arguments.timeout,
            ),
            budget=Budget(arguments.budget_usd, spent_usd=journal.ledger.spent_usd),
            watcher=stack.enter_context(RunProgress(plan)),
            surroundings=Surroundings(clock_s=time.monotonic, sleep=asyncio.sleep, chance=random.SystemRandom().random),
        )
        await made.complete()
        return tuple(made.missing)


def _provider_names(plan: Plan) -> Sequence[str]:
    """The providers that are called, each once."""
    entries = (*plan.answering, *(() if plan.judge is None else (plan.judge,)))
    return list(dict.fromkeys(entry.endpoint.provider for entry in entries))
