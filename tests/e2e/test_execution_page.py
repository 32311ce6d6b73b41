"""docs/execution.md: its numbers are the code's, its example prints what it shows, its names exist."""

from __future__ import annotations

import re
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT

from e2e.harness import config_of, endpoints, running, streaming, urls_of
from pointsman_server import line
from pointsman_server.execution import budgets, lineup, patience, probing
from pointsman_server.execution.probing import ProbeSettings
from pointsman_server.providers.scripted import Hang, ReadRequest, ScriptedUpstream
from pointsman_server.telemetry import names
from pointsman_server.telemetry.metrics import HedgeResult
from test_docs import page, rows

PAGE = page("execution.md")


def block(name: str) -> str:
    """The code block that follows the comment with that name."""
    match = re.search(rf"<!-- test: {name} -->\n```[a-z]+\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None, name
    return match[1]


def test_the_numbers_are_those_of_the_code() -> None:
    """Each number of the table is the constant that the code goes by, in the order of the page."""
    window_s = budgets.RETRY_BUCKET_S * budgets.RETRY_BUCKET_COUNT
    assert [(row[0], row[1]) for row in rows(PAGE, "number")] == [
        ("failovers without success", f"{budgets.RETRY_SHARE * 100:g} %"),
        ("failovers of a quiet server", f"{budgets.RETRY_COUNT_MIN}"),
        ("hedges", f"{1 / budgets.HEDGE_REQUEST_COUNT * 100:g} %"),
        ("hedges saved up", f"{budgets.HEDGE_COUNT_MAX}"),
        ("hedge delay where nothing is known", f"{patience.HEDGE_DELAY_S_UNKNOWN:g} s"),
        ("TTFT timeout", f"{patience.TTFT_TIMEOUT_P99_FACTOR:g}"),
        ("least TTFT timeout", f"{patience.TTFT_TIMEOUT_S_MIN:g} s"),
        ("share of the deadline", f"{patience.DEADLINE_SHARE * 100:g} %"),
        ("stall", f"{patience.STALL_GAP_FACTOR:g}"),
        ("least stall", f"{patience.STALL_S_MIN:g} s"),
        ("least stall, committed", f"{patience.STALL_S_MIN_COMMITTED:g} s"),
        ("least stall, thinking", f"{patience.STALL_S_MIN_THINKING:g} s"),
        ("pauses", f"{patience.STALL_PAUSE_FACTOR:g}"),
        ("wait for an endpoint", f"{lineup.WAIT_S_MAX:g} s"),
        ("requests that wait", f"{line.WAITER_COUNT_MAX}"),
    ]
    assert f"requests of the last {window_s:g} s" in PAGE
    assert f"1 s more for every {1 / patience.TTFT_TIMEOUT_S_PER_INPUT_TOKEN:,.0f} input tokens" in PAGE
    assert f"{probing.TRAFFIC_SHARE * 100:g} % of the tokens of the traffic" in PAGE
    assert f"1 to {1 + probing.JITTER:g} times" in PAGE


async def test_the_example_prints_what_the_page_shows() -> None:
    """Against a provider that hangs and one that answers, the program ends with the output below it."""
    async with (
        ScriptedUpstream((ReadRequest(), Hang())) as slow,
        ScriptedUpstream(streaming("Light is scattered.")) as quick,
    ):
        toml = endpoints({"slow": ["a"], "quick": ["a"]}, urls_of(slow=slow, quick=quick))
        async with running(config_of(toml)) as server:
            program = block("hedge").replace("127.0.0.1:50061", server.address)
            process = await create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE, stderr=STDOUT)
            printed, _ = await process.communicate()
    assert (process.returncode, printed.decode()) == (0, block("hedged"))


def test_the_table_of_probes_is_read_as_it_stands() -> None:
    """The configuration that the page shows has the defaults, spelt out."""
    config = config_of(endpoints({"idle": ["a"]}, {"idle": "http://127.0.0.1:9/v1"}) + "\n" + block("probes"))
    assert config.probes == {"idle": ProbeSettings()}


def test_each_metric_that_the_page_names_exists() -> None:
    """Names of metrics and attributes, and the values of a hedge's result, are those that are recorded."""
    named = set(re.findall(r"`(pointsman\.[a-z_.]+)`", PAGE))
    assert named <= {value for value in vars(names).values() if isinstance(value, str)}
    (row,) = [row for row in rows(PAGE, "metric") if row[0] == f"`{names.HEDGES}`"]
    assert re.findall(r"`([a-z]+)`", row[2]) == [result.value for result in HedgeResult]
