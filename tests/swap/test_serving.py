"""Quality artifacts are swapped under a server at work."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.harness import Running, config_of, endpoints, running
from e2e.test_process import served
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pointsman import AsyncClient, Decision
from pointsman_server.app import Application
from pointsman_server.errors import ArtifactError
from pointsman_server.quality.model import QualityModel
from pointsman_server.telemetry import names
from pointsman_server.telemetry.setup import TelemetrySettings, configure_telemetry
from swap.variants import DAMAGES, MODELS, builtin, swapped_link, written_variant
from telemetry.test_metrics import of, points

NOWHERE = {"north": "http://127.0.0.1:9/v1"}
CATALOG = endpoints({"north": MODELS}, NOWHERE)
CALLER_COUNT = 4
SWAP_COUNT = 10


def config_text(artifact: Path) -> str:
    """Two endpoints, predicted by the artifact in that directory."""
    return f'[quality]\nartifact = "{artifact}"\n{CATALOG}'


@dataclass(frozen=True, slots=True)
class Named:
    """What a decision says of the model that predicted, and what that predicted."""

    artifact: str
    router_version: str
    qualities: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, decision: Decision) -> Named:
        """What this decision says."""
        qualities = {candidate.model: candidate.quality.mean for candidate in decision.candidates}
        return cls(decision.quality_artifact, decision.router_version, tuple(sorted(qualities.items())))


def expected_of(model: QualityModel, prompt: str) -> tuple[tuple[str, float], ...]:
    """What the model predicts, as a decision shows it."""
    return tuple(sorted((name, found.mean) for name, found in model.predict(prompt, MODELS).items()))


async def test_ten_swaps_fail_no_request_and_each_decision_is_of_one_version(tmp_path: Path) -> None:
    """Callers who ask without a pause across ten swaps get an answer each time, also while an artifact is being loaded;
    every decision names one version, and holds that version's predictions and no other's."""
    place = tmp_path / "place"
    variants = [written_variant(tmp_path / str(n), str(n), shift=n / 20) for n in range(SWAP_COUNT + 1)]
    place.symlink_to(tmp_path / "0")
    config = config_of(config_text(place))
    decided: list[Named] = []
    ended = asyncio.Event()

    async def ask(client: AsyncClient) -> None:
        while not ended.is_set():
            decided.append(Named.of(await client.route("hi")))

    async with running(config) as server, asyncio.TaskGroup() as callers:
        for _ in range(CALLER_COUNT):
            callers.create_task(ask(server.client))
        for number in range(1, SWAP_COUNT + 1):
            swapped_link(place, tmp_path / str(number))
            before = len(decided)
            await server.application.reload(config)
            assert len(decided) > before, "the server answers while it loads"
            decided.append(Named.of(await server.client.route("hi")))
            assert decided[-1].artifact.endswith(f"@{number}"), "the swap is complete when it returns"
        ended.set()
    expected = {f"{model.name}@{model.version}": expected_of(model, "hi") for model in variants}
    assert len(set(expected.values())) == SWAP_COUNT + 1
    assert {(named.artifact, named.qualities) for named in decided} == set(expected.items())
    assert len({(named.artifact, named.router_version) for named in decided}) == SWAP_COUNT + 1
    assert len({named.router_version for named in decided}) == SWAP_COUNT + 1


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_spoilt_artifact_changes_nothing_and_is_seen(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The old model goes on deciding; the reason stands in the log, is counted, and is listed with the router, without
    the paths of the server."""
    spoil, reason = DAMAGES[damage]
    place = tmp_path / "place"
    model = written_variant(place, "1")
    config, reader = config_of(config_text(place)), InMemoryMetricReader()
    telemetry = configure_telemetry(TelemetrySettings(), metric_reader=reader)
    async with (
        Application(config, telemetry=telemetry) as application,
        AsyncClient(f"127.0.0.1:{application.port}") as client,
    ):
        before = Named.of(await client.route("hi"))
        spoil(place)
        await application.reload(config)
        assert Named.of(await client.route("hi")) == before
        (router,) = await client.list_routers()
        reads = points(reader)[names.ARTIFACT_READS]
    assert before.qualities == expected_of(model, "hi")
    assert reason in caplog.text
    assert f"{place} refused" in caplog.text
    assert router.quality_artifact.version == "1"
    assert router.quality_artifact.refused_update.startswith(reason)
    assert str(tmp_path) not in router.quality_artifact.refused_update
    for result in (names.ARTIFACT_LOADED, names.ARTIFACT_REFUSED):
        assert of(reads, pointsman_artifact_path=str(place), pointsman_artifact_result=result) == 1


async def test_routers_have_artifacts_of_their_own_and_each_is_swapped_by_itself(tmp_path: Path) -> None:
    """Two routers predict by two artifacts; the swap of one leaves the other's model and version as they are."""
    for name in ("one", "two"):
        written_variant(tmp_path / name, name)
    table = f'[routers.second]\nartifact = "{tmp_path / "two"}"\n'
    config = config_of(config_text(tmp_path / "one") + table)
    async with running(config) as server:
        before = await _by_router(server)
        written_variant(tmp_path / "two", "three", shift=0.5)
        await server.application.reload(config)
        after = await _by_router(server)
    assert [before[name].artifact.rpartition("@")[2] for name in ("default", "second")] == ["one", "two"]
    assert after["default"] == before["default"]
    assert after["second"].artifact.endswith("@three")
    assert after["second"].router_version != before["second"].router_version
    assert after["second"].qualities != before["second"].qualities


async def test_a_router_can_keep_the_shipped_artifact(tmp_path: Path) -> None:
    """Where `[quality]` names another one, a router with `artifact = "builtin"` still predicts by the shipped one."""
    written_variant(tmp_path / "own", "own")
    table = '[routers.second]\nartifact = "builtin"\n'
    async with running(config_of(config_text(tmp_path / "own") + table)) as server:
        found = await _by_router(server)
    assert found["default"].artifact == f"{builtin().name}@own"
    assert found["second"].artifact == f"{builtin().name}@{builtin().version}"


async def test_a_configuration_that_names_an_unusable_artifact_changes_nothing(tmp_path: Path) -> None:
    """There is no old model to keep for a new directory, so the reload as a whole is refused."""
    written_variant(tmp_path / "sound", "1")
    (tmp_path / "empty").mkdir()
    async with running(config_of(config_text(tmp_path / "sound"))) as server:
        before = await server.client.list_routers()
        with pytest.raises(ArtifactError, match=r"empty: manifest\.json can't be read"):
            await server.application.reload(config_of(config_text(tmp_path / "empty")))
        assert await server.client.list_routers() == before


async def _by_router(server: Running) -> dict[str, Named]:
    return {name: Named.of(await server.client.route("hi", router=name)) for name in ("default", "second")}


def _by_link(place: Path, new: Path) -> None:
    swapped_link(place, new)


def _by_rename(place: Path, new: Path) -> None:
    place.rename(place.with_name("aside"))
    new.rename(place)


def _file_by_file(place: Path, new: Path) -> None:
    shutil.copytree(new, place.resolve(), dirs_exist_ok=True)


@pytest.mark.parametrize("replace", [_by_link, _by_rename, _file_by_file])
async def test_a_served_artifact_is_watched(tmp_path: Path, replace: Callable[[Path, Path], None]) -> None:
    """`pointsman serve` takes up another artifact by itself, however it is put in place, refuses a spoilt one with the
    reason, and takes up the next sound one."""
    for version in ("1", "2", "3"):
        written_variant(tmp_path / f"v{version}", version)
    place = tmp_path / "place"
    place.symlink_to(tmp_path / "v1")
    config = tmp_path / "pointsman.toml"
    config.write_text(config_text(place), encoding="utf-8")
    async with served("--config", str(config)) as server, AsyncClient(server.address) as client:
        assert (await client.route("hi")).quality_artifact.endswith("@1")
        replace(place, tmp_path / "v2")
        await server.line_with("@2 is in force")
        await server.line_with("reloaded")
        assert (await client.route("hi")).quality_artifact.endswith("@2")
        DAMAGES["half-written"][0](place)
        await server.line_with("refused, ")
        assert (await client.route("hi")).quality_artifact.endswith("@2")
        _file_by_file(place, tmp_path / "v3")
        await server.line_with("@3 is in force")
