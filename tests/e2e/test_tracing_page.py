"""docs/tracing.md and docs/metrics.md: their names are the code's, their example runs, their files are there."""

from __future__ import annotations

import re
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from e2e.harness import config_of, endpoints, running, streaming, urls_of
from opentelemetry.sdk.resources import Resource
from pointsman_server.config import parse_config
from pointsman_server.providers.scripted import ScriptedUpstream
from pointsman_server.telemetry import export, names, series, setup, spans
from pointsman_server.telemetry.metrics import HedgeResult, Metrics
from pointsman_server.telemetry.series import CounterSeries, HistogramSeries, Registry
from test_docs import DOCS, page

TRACING, METRICS = page("tracing.md"), page("metrics.md")
PREFIXES = r"(?:pointsman|gen_ai|rpc|http|error|server|service|otel)"
NOT_TOLD = {names.SCHEMA_URL, names.SCOPE_NAME, names.SEMANTIC_CONVENTIONS_VERSION}


def block(text: str, name: str) -> str:
    """The code block that follows the comment with that name."""
    match = re.search(rf"<!-- test: {name} -->\n```[a-z]+\n(.*?)```", text, re.DOTALL)
    assert match is not None, name
    return match[1]


def written(text: str) -> set[str]:
    """The names that a page writes in code; those that begin with a dot go on from the last whole one of their line."""
    found: set[str] = set()
    for line in text.splitlines():
        stem = ""
        for code in re.findall(r"`([^`\s]+)`", line):
            if re.fullmatch(rf"{PREFIXES}\.[a-z_.]+", code):
                stem = code.rpartition(".")[0]
                found.add(code)
            elif re.fullmatch(r"\.[a-z_.]+", code) and stem:
                found.add(stem + code)
    return found


def test_every_name_is_on_a_page_and_every_name_on_a_page_is_one() -> None:
    """Each attribute, event and metric of the code is documented, and nothing is documented that there is not."""
    ours = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)} - NOT_TOLD
    dotted = {name for name in ours if "." in name}
    shown = written(TRACING) | written(METRICS)
    assert dotted - shown == set()
    assert shown - dotted - {"pointsman.v1.RouterService"} == set()
    for name in (names.ROUTE_SPAN, names.PROBE_SPAN, names.POST, names.CHAT_OPERATION):
        assert f"`{name}`" in TRACING


def test_every_metric_has_the_kind_that_the_page_says() -> None:
    """A counter is called one, a histogram and a gauge likewise."""
    registry = Registry(Resource({}), unix_ns=lambda: 0)
    Metrics(registry)
    for instrument in registry._instruments:
        (line,) = [line for line in METRICS.splitlines() if line.startswith("|") and f"`{instrument.name}`" in line.split("|")[1]]  # fmt: skip
        kind = "counter" if isinstance(instrument, CounterSeries) else "gauge"
        kind = "histogram" if isinstance(instrument, HistogramSeries) else kind
        assert line.split("|")[2].strip().startswith(kind), instrument.name


def test_the_numbers_are_those_of_the_code() -> None:
    """Bounds and times on the pages are the constants."""
    assert f"a queue of at most {export.SPAN_QUEUE_COUNT_MAX:,}" in TRACING
    assert f"One message to the collector takes at most {setup.EXPORT_TIMEOUT_S:g} s" in TRACING
    assert f"more and more rarely, down to every {export.EXPORT_PAUSE_S_MAX:g} s" in TRACING
    assert f"the last ones take at most {setup.SHUTDOWN_S_MAX:g} s together" in TRACING
    assert spans.CANDIDATE_EVENT_COUNT_MAX == 10
    assert "for each of the first ten" in TRACING
    assert f"semantic conventions {names.SEMANTIC_CONVENTIONS_VERSION}" in TRACING
    assert f"every {export.METRIC_EXPORT_INTERVAL_S:g} s" in METRICS
    assert f"Beyond {series.SERIES_COUNT_MAX:,} series" in METRICS
    assert f"`pointsman.hedge.result`: {', '.join(HedgeResult)}" in METRICS


def test_the_configuration_is_valid() -> None:
    """The example's table is read as it stands."""
    toml = endpoints({"first": ["a"]}, {"first": "http://127.0.0.1:9/v1"})
    text = f"{toml}\n{block(METRICS, 'configuration')}"
    config = parse_config(text, source="docs/metrics.md", directory=Path(), environment={})
    assert config.telemetry.prometheus_listen == "127.0.0.1:9464"
    assert config.telemetry.otlp_endpoint == "http://127.0.0.1:4317"


async def test_a_program_that_traces_needs_nothing_else() -> None:
    """The example prints the spans of the program and of the client, one below the other."""
    async with (
        ScriptedUpstream(streaming("Light is scattered.")) as upstream,
        running(config_of(endpoints({"first": ["a"]}, urls_of(first=upstream)))) as server,
    ):
        program = block(TRACING, "caller").replace("127.0.0.1:50061", server.address)
        process = await create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE, stderr=STDOUT)
        output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    assert "Light is scattered." in output
    assert re.findall(r'^    "name": "([^"]+)"', output, re.MULTILINE) == [
        "pointsman.v1.RouterService/Complete",
        "answer a question",
    ]


def test_the_compose_file_mounts_what_is_there() -> None:
    """Files that containers are given stand beside it, and the images are those that the page names."""
    folder = DOCS.parent / "deploy"
    text = (folder / "compose.yaml").read_text(encoding="utf-8")
    mounted = re.findall(r'"\./([^:"]+):', text)
    assert len(mounted) == 2
    assert [name for name in mounted if not (folder / name).is_file()] == []
    (image,) = re.findall(r"image: (jaegertracing/jaeger:\S+)", text)
    assert image in TRACING
