"""Splits and shadows over real gRPC, as docs/experiments.md tells of them."""

from __future__ import annotations

import re
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from e2e.harness import config_of, endpoints, running, streaming, urls_of
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pointsman import AsyncClient, Decision, InvalidRequestError, constraints
from pointsman_server.app import Application
from pointsman_server.decision.assignment import assign
from pointsman_server.decision.router_string import parse_router_string
from pointsman_server.providers.scripted import ScriptedUpstream
from pointsman_server.quality.artifact import save
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry
from swap.variants import PROVENANCE, builtin, written_variant
from telemetry.test_metrics import Points, of, points

PAGE = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
NOWHERE = {"north": "http://127.0.0.1:9/v1"}
DEAR, CHEAP = "gpt-4o", "llama-3.1-8b-instruct"
CATALOG = (
    endpoints({"north": [DEAR]}, NOWHERE).replace("output_price_usd_per_mtok = 2.0", "output_price_usd_per_mtok = 20.0")
    + f'\n[[endpoints]]\nmodel = "{CHEAP}"\nprovider = "north"\ninput_price_usd_per_mtok = 0.1\noutput_price_usd_per_mtok = 0.1\n'
)
"""A dear model and a cheap one, so that the two routers of the page choose differently."""
PATIENCE_S = 60.0
"""Ends a test that hangs; no test waits for it."""


def block(name: str) -> str:
    """The code block that follows the comment with that name."""
    match = re.search(rf"<!-- test: {name} -->\n```[a-z]+\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None, name
    return match[1]


@dataclass(frozen=True, slots=True)
class Observed:
    """A running server whose telemetry is read."""

    application: Application
    client: AsyncClient
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def metric(self, name: str) -> Points:
        """The points of a metric."""
        return points(self.reader).get(name, {})

    def events(self, name: str) -> list[Mapping[str, object]]:
        """The attributes of each event of that name."""
        found = [event for span in self.exporter.get_finished_spans() for event in span.events]
        return [dict(event.attributes or {}) for event in found if event.name == name]


@asynccontextmanager
async def observed(text: str) -> AsyncIterator[Observed]:
    """Serves a configuration until the block ends."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    telemetry = configure_telemetry(TelemetrySettings(), span_exporter=exporter, metric_reader=reader)
    async with (
        Application(config_of(text), telemetry=telemetry) as application,
        AsyncClient(f"127.0.0.1:{application.port}", timeout_s=30.0) as client,
    ):
        yield Observed(application, client, exporter, reader)


async def decisions_of(client: AsyncClient, count: int) -> dict[str, Decision]:
    """A decision for each of so many users."""
    return {f"user-{n}": await client.route("hi", assignment_key=f"user-{n}") for n in range(count)}


async def test_a_split_shares_users_out_and_says_by_whom_each_was_decided() -> None:
    """Each user gets the router that the pure rule gives, every time; the decision names router, asked router and
    probability; and each arm decides by its own policy."""
    async with observed(CATALOG + block("split")) as server:
        first, again = await decisions_of(server.client, 100), await decisions_of(server.client, 100)
        routers = server.application.router.world.named_routers
        listed = {router.name: router for router in await server.client.list_routers()}
    arms: Counter[str] = Counter()
    for user, decision in first.items():
        expected = assign(parse_router_string(""), routers, key=user, seed=0)
        assert (decision.router, decision.assignment.probability) == (expected.router_name, expected.probability)
        assert (decision.assignment.asked_router, decision.assignment.keyed) == ("default", True)
        assert again[user].router == decision.router
        assert decision.router_text == listed[decision.router].text
        assert decision.router_version == listed[decision.router].version
        assert decision.model == {"default": DEAR, "thrifty": CHEAP}[decision.router]
        arms[decision.router] += 1
    assert 10 <= arms["thrifty"] <= 30
    assert [(arm.router, arm.share) for arm in listed["default"].split] == [("thrifty", 0.2)]
    assert {decision.assignment.probability for decision in first.values()} == {0.2, 0.8}


async def test_without_a_key_the_seed_decides() -> None:
    """The same seed gives the same arm; without either, requests of one caller are shared out."""
    async with observed(CATALOG + block("split")) as server:
        by_seed = [(await server.client.route("hi", seed=seed)).router for seed in (*range(40), *range(40))]
        drawn = [await server.client.route("hi") for _ in range(60)]
    assert by_seed[:40] == by_seed[40:]
    assert set(by_seed) == {"default", "thrifty"}
    assert {decision.router for decision in drawn} == {"default", "thrifty"}
    assert not any(decision.assignment.keyed for decision in drawn)


async def test_all_that_asks_for_the_router_is_shared_out_and_nothing_else() -> None:
    """No name, a router string and a model are assigned to the arm like its name; the arm asked for by name is not."""
    text = CATALOG + block("split").replace("share = 0.2", "share = 1.0")
    async with observed(text) as server:
        for asked in ("", "default", "router@q:1", "default@c<100", DEAR):
            decision = await server.client.route("hi", router=asked)
            assert (decision.router, decision.assignment.asked_router) == ("thrifty", "default"), asked
            assert decision.assignment.probability == 1.0
        named = await server.client.route("hi", router="thrifty")
        assert (named.router, named.HasField("assignment")) == ("thrifty", False)


async def test_an_arm_demands_what_it_demands() -> None:
    """Where caller and arm have nothing in common, the request fails as if it had named the arm."""
    text = CATALOG + block("split").replace("rc:500", f"rc:500|models:{CHEAP}").replace("share = 0.2", "share = 1.0")
    async with observed(text) as server:
        with pytest.raises(InvalidRequestError) as caught:
            await server.client.route("hi", constraints=constraints(models=[DEAR]))
    assert "the router allows only" in caught.value.violations[0].description


async def test_the_page_is_followed_from_test_to_promotion() -> None:
    """The example of the page asks and reports; its metrics tell decisions, quality and cost of each arm; raising the
    share keeps everyone who was in the arm; and once promoted, the policy is the router's own."""
    answer = streaming("It is ", "391.")
    async with ScriptedUpstream(*[answer] * 50) as upstream:
        catalog = CATALOG.replace(NOWHERE["north"], urls_of(north=upstream)["north"])
        async with observed(catalog + block("split")) as server:
            printed = await _output_of(block("ask and report"), server.application.port)
            arms = Counter(line.split()[0] for line in printed.splitlines())
            for name, count in arms.items():
                arm = {"pointsman_router_name": name, "pointsman_router_asked": "default"}
                endpoint = {"default": f"{DEAR}@north", "thrifty": f"{CHEAP}@north"}[name]
                assert of(server.metric(names.DECISIONS), **arm) == count
                assert of(server.metric(names.OUTCOMES), **arm, pointsman_endpoint=endpoint) == count
                assert of(server.metric(names.REPORTED_QUALITY), **arm) == count
                assert of(server.metric(names.ROUTER_COST), **arm) > 0.0
            assert set(arms) == {"default", "thrifty"}
            before = await decisions_of(server.client, 50)
            grown = catalog + block("split").replace("share = 0.2", "share = 0.5")
            await server.application.reload(config_of(grown))
            after = await decisions_of(server.client, 50)
            assert all(after[user].router == "thrifty" for user, it in before.items() if it.router == "thrifty")
            assert Counter(it.router for it in after.values())["thrifty"] > arms["thrifty"]
            await server.application.reload(config_of(catalog + block("promoted")))
            promoted = await decisions_of(server.client, 10)
    assert {(it.router, it.model, it.HasField("assignment")) for it in promoted.values()} == {("default", CHEAP, False)}


async def test_a_shadow_is_recorded_and_changes_nothing() -> None:
    """With a shadow and without it the same seeds are decided alike; what it would have chosen is counted, compared and
    traced, and returned only to who asks."""
    without = block("shadow").replace('shadow = ["thrifty"]\n', "")
    async with observed(CATALOG + without) as server:
        expected = [await server.client.route("hi", seed=seed) for seed in range(20)]
    async with observed(CATALOG + block("shadow")) as server:
        found = [await server.client.route("hi", seed=seed) for seed in range(20)]
        shown = await server.client.route("hi", seed=0, include_shadows=True)
        pair = {"pointsman_router_name": "default", "pointsman_shadow_router": "thrifty"}
        agreement = server.metric(names.SHADOW_DECISIONS)
        costs, qualities = server.metric(names.SHADOW_COST), server.metric(names.SHADOW_QUALITY)
        events = server.events(names.SHADOW_EVENT)
    for decision in (*expected, *found):
        for field in ("id", "decide_time"):
            decision.ClearField(field)
    assert found == expected
    assert not any(decision.shadows for decision in found)
    (shadow,) = shown.shadows
    assert (shown.model, shadow.router, shadow.endpoint) == (DEAR, "thrifty", f"{CHEAP}@north")
    assert shadow.quality_artifact == shown.quality_artifact
    assert of(agreement, **pair, pointsman_shadow_agreement="other") == 21
    for recorded, of_candidate in ((costs, "cost_usd"), (qualities, "quality")):
        for side, model in ((names.SIDE_ACTING, DEAR), (names.SIDE_SHADOW, CHEAP)):
            (candidate,) = [each for each in shown.candidates if each.model == model]
            value = candidate.quality.mean if of_candidate == "quality" else candidate.cost_usd
            assert of(recorded, **pair, pointsman_shadow_side=side) == pytest.approx(21 * value)
    assert len(events) == 21
    assert events[-1] == {
        names.SHADOW_ROUTER: "thrifty",
        names.SHADOW_ROUTER_VERSION: shadow.router_version,
        names.SHADOW_QUALITY_ARTIFACT: shadow.quality_artifact,
        names.SHADOW_AGREEMENT: "other",
        names.SHADOW_ENDPOINT: f"{CHEAP}@north",
        names.SHADOW_PREDICTED_QUALITY: shadow.quality.mean,
        names.SHADOW_EXPECTED_COST_USD: shadow.cost_usd,
    }


async def test_a_shadow_that_cannot_decide_fails_nothing() -> None:
    """Where the caller's models are not the shadow's, or its bounds leave nothing, the request is served, and the shadow
    counts as one that had nothing to choose."""
    text = CATALOG + block("shadow").replace("rc:500", f"rc:500|models:{CHEAP}|q>=0.999")
    async with observed(text) as server:
        contradicting = constraints(models=[DEAR])
        decision = await server.client.route("hi", constraints=contradicting, include_shadows=True)
        impossible = await server.client.route("hi", include_shadows=True)
        agreement = server.metric(names.SHADOW_DECISIONS)
    for served in (decision, impossible):
        assert served.model == DEAR
        assert [(shadow.router, shadow.endpoint) for shadow in served.shadows] == [("thrifty", "")]
    assert of(agreement, pointsman_shadow_agreement="only_acting") == 2


async def test_a_shadow_predicts_by_its_own_artifact(tmp_path: Path) -> None:
    """A router with another artifact is tried out beside the one in force, and its predictions are its own."""
    written_variant(tmp_path / "new", "2", shift=-1.0)
    text = CATALOG + block("shadow") + f'artifact = "{tmp_path / "new"}"\n'
    async with observed(text) as server:
        decision = await server.client.route("hi", include_shadows=True)
        itself = await server.client.route("hi", router="thrifty")
    (shadow,) = decision.shadows
    assert shadow.quality_artifact.endswith("@2")
    assert shadow.quality_artifact != decision.quality_artifact
    (chosen,) = [candidate for candidate in itself.candidates if candidate.endpoint == shadow.endpoint]
    assert shadow.quality == chosen.quality


async def test_a_shadow_promises_by_its_own_artifact(tmp_path: Path) -> None:
    """Whether a candidate may fall short is judged by what the shadow's artifact was calibrated on, not the acting one's:
    without a table of risks only the best candidate is left."""
    save(tmp_path / "bare", replace(builtin(), version="bare", risk_table=None), PROVENANCE, card="card")
    careful = 'policy = "router@lowest-rc|rq.p51>=0.5"\n'
    text = (
        f'{CATALOG}\n[routers.default]\nshadow = ["told", "untold"]\n[routers.told]\n{careful}'
        f'[routers.untold]\n{careful}artifact = "{tmp_path / "bare"}"\n'
    )
    async with observed(text) as server:
        decision = await server.client.route("hi", include_shadows=True)
    assert {shadow.router: shadow.endpoint for shadow in decision.shadows} == {
        "told": f"{CHEAP}@north",
        "untold": f"{DEAR}@north",
    }


async def test_the_stream_of_an_answer_shows_shadows_to_who_asks() -> None:
    """`Complete` tells in its first event what `Route` tells, and only if asked."""
    async with ScriptedUpstream(streaming("a"), streaming("b")) as upstream:
        catalog = CATALOG.replace(NOWHERE["north"], urls_of(north=upstream)["north"])
        async with running(config_of(catalog + block("shadow"))) as server:
            asked = await server.client.complete_text("hi", include_shadows=True, omit_candidates=True)
            unasked = await server.client.complete_text("hi")
    assert [shadow.router for shadow in asked.decision.shadows] == ["thrifty"]
    assert list(unasked.decision.shadows) == []


async def test_a_key_is_never_recorded(caplog: pytest.LogCaptureFixture) -> None:
    """Neither spans nor metrics nor the log hold the key; one that is too long is refused without being quoted."""
    caplog.set_level("DEBUG")
    key = "canary-key-5521"
    async with observed(CATALOG + block("split")) as server:
        await server.client.route("hi", assignment_key=key)
        with pytest.raises(InvalidRequestError) as caught:
            await server.client.route("hi", assignment_key=key * 20)
        collected = server.reader.get_metrics_data()
        told = "".join(span.to_json() for span in server.exporter.get_finished_spans()) + caplog.text
    assert [violation.field for violation in caught.value.violations] == ["routing.assignment_key"]
    assert collected is not None
    assert key not in told + collected.to_json() + str(caught.value.status)


async def test_the_span_of_an_assigned_decision_says_so() -> None:
    """It has the router that decided, the one that was asked for, and the probability; others have none of it."""
    async with observed(CATALOG + block("split")) as server:
        decision = await server.client.route("hi", assignment_key="user-1")
        await server.client.route("hi", router="thrifty")
        routes = [dict(span.attributes or {}) for span in server.exporter.get_finished_spans() if span.name == "route"]
    assigned, named = routes
    assert assigned[names.ROUTER_NAME] == decision.router
    assert assigned[names.ROUTER_ASKED] == "default"
    assert assigned[names.ASSIGNMENT_PROBABILITY] == decision.assignment.probability
    assert assigned[names.ASSIGNMENT_KEYED] is True
    assert assigned[names.QUALITY_ARTIFACT] == decision.quality_artifact
    assert {names.ROUTER_ASKED, names.ASSIGNMENT_PROBABILITY, names.ASSIGNMENT_KEYED} & set(named) == set()


def test_the_page_names_metrics_and_attributes_as_they_are() -> None:
    """Each name that the page gives in backquotes as pointsman.something is one that telemetry uses."""
    known = {value for key, value in vars(names).items() if key.isupper() and isinstance(value, str)}
    named = set(re.findall(r"`(pointsman\.[a-z_.]+)`", PAGE))
    assert len(named) > 8
    assert named <= known


async def _output_of(code: str, port: int) -> str:
    """What the page's program prints when its server is ours; it must end with 0."""
    program = code.replace("127.0.0.1:50061", f"127.0.0.1:{port}")
    process = await create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()
