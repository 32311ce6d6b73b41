"""`pointsman frontier`: from files to a plot, and docs/frontier.md as it is read."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from cli.conftest import Pointsman
from client.samples import ENDPOINTS, ROUTERS
from client.scripted_server import ScriptedServer
from pointsman.durations import duration
from pointsman.v1.router_service_pb2 import ListEndpointsResponse, ListRoutersResponse
from pointsman.v1.routing_pb2 import Endpoint as EndpointMessage
from pointsman.v1.routing_pb2 import EndpointRuntime, EndpointStatus, LatencyEstimate, Router
from pointsman_server.cli import main
from pointsman_server.cli.frontier_catalog import listed_of
from pointsman_server.decision.types import Objective
from training.frontier_samples import write_questions

DOCUMENT = Path(__file__).parents[2] / "docs" / "frontier.md"
PRICES = (
    "model,usd_per_1m_input,usd_per_1m_output\ngpt-4o,2.5,10\ngpt-4o-mini,0.15,0.6\nllama-3.1-8b-instruct,0.05,0.08\n"
)
CONFIGURATION = """
[providers.home]
adapter = "openai_compatible"
base_url = "http://127.0.0.1:9/v1"

[[endpoints]]
model = "gpt-4o"
provider = "home"
input_price_usd_per_mtok = 2.5
output_price_usd_per_mtok = 10.0

[[endpoints]]
model = "gpt-4o-mini"
provider = "home"
input_price_usd_per_mtok = 0.15
output_price_usd_per_mtok = 0.6

[[endpoints]]
model = "gemma-2-9b-it"
provider = "home"
input_price_usd_per_mtok = 0.1
output_price_usd_per_mtok = 0.1

[routers.thrifty]
policy = "router@lowest-rc|rq>=0.9"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with labelled prompts, prices and a configuration."""
    monkeypatch.chdir(tmp_path)
    write_questions(tmp_path / "questions")
    (tmp_path / "prices.csv").write_text(PRICES)
    (tmp_path / "pointsman.toml").write_text(CONFIGURATION)
    return tmp_path


def numbers(path: Path) -> Mapping[str, object]:
    """What --json wrote."""
    found: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", ["plot.html", "plot.svg", "plot.png"])
def test_the_name_of_the_file_says_what_is_drawn(folder: Path, pointsman: Pointsman, name: str) -> None:
    """A page, an SVG or a PNG is written, and every router stands in the table that is printed."""
    drawn = pointsman(
        *("frontier", "--data", "questions", "--prices", "prices.csv", "--prompts", "60", "--out", name),
        *("--json", "plot.json"),
    )
    assert drawn.exit_code == 0, drawn.err
    content = (folder / name).read_bytes()
    assert content.startswith({"plot.html": b"<!DOCTYPE html>", "plot.svg": b"<svg", "plot.png": b"\x89PNG"}[name])
    if name == "plot.svg":
        ET.fromstring(content)
    routers = numbers(folder / "plot.json")["routers"]
    assert isinstance(routers, list)
    assert len(routers) > 5
    for router in routers:
        assert router["router"] in drawn.out


def test_a_configuration_brings_its_endpoints_and_routers(folder: Path, pointsman: Pointsman) -> None:
    """The endpoints are those of the file as far as they were measured; its named routers are drawn and pointed out, and
    every string says where to look, so that it means the same on that server."""
    drawn = pointsman(
        *("frontier", "--data", "questions", "--config", "pointsman.toml", "--prompts", "60", "--out", "plot.svg"),
        *("--json", "plot.json", "--router", "gpt-4o@home"),
    )
    assert drawn.exit_code == 0, drawn.err
    assert "left out, the data has too few answers of the model: gemma-2-9b-it@home" in drawn.err
    found = numbers(folder / "plot.json")
    endpoints, routers = found["endpoints"], found["routers"]
    assert isinstance(endpoints, list)
    assert isinstance(routers, list)
    assert [each["endpoint"] for each in endpoints] == ["gpt-4o-mini@home", "gpt-4o@home"]
    given = {each["router"]: each["letter"] for each in routers if each["family"] == "given"}
    assert sorted(given) == ["gpt-4o@models:gpt-4o,gpt-4o-mini|providers:home", "thrifty@models:gpt-4o,gpt-4o-mini"]
    assert all(given.values())
    assert all("models:gpt-4o,gpt-4o-mini" in each["router"] for each in routers)


def test_a_server_brings_its_latencies(folder: Path, pointsman: Pointsman, server: ScriptedServer) -> None:
    """Endpoints, prices, latencies and named routers are those of a running server."""
    runtime = EndpointRuntime(
        ttft=LatencyEstimate(mean=duration(0.4), p50=duration(0.3), p95=duration(0.9), p99=duration(1.5))
    )
    statuses = [
        EndpointStatus(endpoint=EndpointMessage(name=f"{model}@home", model=model, provider="home"), runtime=runtime)
        for model in ("gpt-4o", "gpt-4o-mini")
    ]
    statuses[1].runtime.ttft.mean.CopyFrom(duration(0.2))
    server.on("ListEndpoints", ListEndpointsResponse(endpoints=statuses))
    routers = [Router(name="default", text="router@q:1"), Router(name="quick", text="router@lowest-ttft")]
    server.on("ListRouters", ListRoutersResponse(routers=routers))
    drawn = pointsman(
        *("frontier", "--data", "questions", "--server", server.target, "--x", "ttft", "--prompts", "60"),
        *("--out", "plot.svg", "--json", "plot.json"),
    )
    assert drawn.exit_code == 0, drawn.err
    endpoints = numbers(folder / "plot.json")["endpoints"]
    assert isinstance(endpoints, list)
    assert {each["endpoint"]: each["x"]["value"] for each in endpoints} == pytest.approx(
        {"gpt-4o@home": 400.0, "gpt-4o-mini@home": 200.0}
    )
    assert "quick" in drawn.out


def test_what_a_server_tells_is_read_whole() -> None:
    """Prices, limits and the latencies' quantiles arrive; what is not told stays unknown; routers mean what they say."""
    catalog = listed_of(ENDPOINTS, ROUTERS)
    by_name = {entry.endpoint.name: entry for entry in catalog.listed}
    unseen, seen = by_name["large@south"], by_name["small@north"]
    assert (unseen.endpoint.input_price_usd_per_mtok, unseen.endpoint.output_price_usd_per_mtok) == (2.5, 10.0)
    assert unseen.endpoint.context_token_count_max == 128_000
    assert (unseen.runtime.ttft_s, seen.endpoint.input_price_usd_per_mtok) == (None, None)
    assert seen.runtime.ttft_s is not None
    assert seen.runtime.ttft_s.p50 == pytest.approx(0.21)
    assert seen.runtime.ttft_s.p50 < seen.runtime.ttft_s.p90 < seen.runtime.ttft_s.p95 == pytest.approx(0.48)
    assert sorted(catalog.routers) == sorted(router.name for router in ROUTERS)
    assert not any(isinstance(r.alternatives[0].preference, Objective) for r in catalog.routers.values())


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("--out", "plot.pdf"), 2, "plot.pdf: its name must end in .html, .svg, .png"),
        (("--out", "nowhere/plot.svg", "--prices", "prices.csv"), 2, "can't write nowhere/plot.svg: No such file"),
        (("--out", "plot.svg", "--x", "itl"), 1, "its inter-token latency is not known (--latency, --server, or"),
        (
            ("--out", "plot.svg", "--prices", "prices.csv", "--source", "x"),
            1,
            "the data has no source 'x': name one with",
        ),
        (
            ("--out", "plot.svg", "--prices", "prices.csv", "--split", "train"),
            1,
            "answered only 0 prompts of the train",
        ),
        (("--out", "plot.svg", "--prices", "prices.csv", "--artifact", "."), 1, "manifest.json can't be read"),
        (
            ("--out", "plot.svg", "--prices", "prices.csv", "--router", "router@q:x"),
            2,
            "--router: 'x' is no finite number",
        ),
        (
            ("--out", "plot.svg", "--prices", "prices.csv", "--router", "gpt-5"),
            2,
            "no router and no model is named 'gpt-5'",
        ),
        (("--out", "plot.svg", "--prices", "missing.csv"), 1, "missing.csv"),
        (("--out", "plot.svg", "--prices", "prices.csv", "--config", "pointsman.toml"), 2, "not allowed with argument"),
        (("--out", "plot.svg", "--prompts", "0"), 2, "0 is not a whole number above 0"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_is_wrong_is_said(pointsman: Pointsman, arguments: tuple[str, ...], exit_code: int, message: str) -> None:
    """Each mistake ends with its exit code and a sentence that says what is wrong or what would be right."""
    failed = pointsman("frontier", "--data", "questions", "--prompts", "40", *arguments)
    assert (failed.exit_code, message in failed.err) == (exit_code, True), failed.err


@pytest.mark.usefixtures("folder")
def test_the_examples_of_the_page_give_what_they_show(capsys: pytest.CaptureFixture[str]) -> None:
    """Run in their order, the commands of docs/frontier.md print each line that stands below them, the table aside."""
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ |```).*\n)*)", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 5
    for command, shown in commands:
        words = shlex.split(command)
        if words[0] == "cat":
            Path(words[1]).write_text(shown, encoding="utf-8")
            continue
        assert words.pop(0) == "pointsman"
        main(words)
        printed = capsys.readouterr()
        lines = [line.rstrip() for line in (printed.out + printed.err).splitlines()]
        assert [line for line in shown.splitlines() if line not in lines] == [], command


def test_the_page_lists_the_fields_of_the_numbers(folder: Path, pointsman: Pointsman) -> None:
    """Every field of --json is in the table of docs/frontier.md, and no other."""
    pointsman(
        *("frontier", "--data", "questions", "--prices", "prices.csv", "--prompts", "40", "--out", "plot.svg"),
        *("--json", "plot.json"),
    )
    found = numbers(folder / "plot.json")
    table = DOCUMENT.read_text(encoding="utf-8").partition("| field | content |\n|---|---|\n")[2].splitlines()
    listed = {name for row in table for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert listed == set(found)
    routers = found["routers"]
    assert isinstance(routers, list)
    (row,) = [row for row in table if row.startswith("| `routers`")]
    assert set(re.findall(r"`(\w+)`", row.split("|")[2])) == {*routers[0], "beyond_interval"}
