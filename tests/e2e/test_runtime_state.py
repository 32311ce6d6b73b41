"""What is known of latencies outlives the server that learned it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from e2e.harness import config_of, endpoints, running
from pointsman_server.app import Application
from pointsman_server.runtime_state import read_state
from pointsman_server.watch import fingerprint
from runtime.lane import Lane, Truth, charged, fair_share

CATALOG = endpoints({"north": ["alpha"]}, {"north": "http://127.0.0.1:9/v1"})
NAME = "alpha@north"


def seen(application: Application, *, name: str = NAME) -> None:
    """A call of that endpoint, as the router would report it."""
    tracker, now_s = application.router.tracker, application._chance.clock_s()
    attempt = tracker.start(name, input_token_count=10, now_s=now_s - 3.0)
    attempt.first_token(now_s - 2.5)
    attempt.succeed(output_token_count=101, now_s=now_s)


def known_ttft_s(application: Application) -> float | None:
    """The median time to first token that it knows."""
    ttft_s = application.router.tracker.snapshot(application._chance.clock_s()).of(NAME).ttft_s
    return None if ttft_s is None else ttft_s.p50


async def test_a_restarted_server_goes_on_where_it_was(tmp_path: Path) -> None:
    """What one server learned, another knows; what has left the catalog in between it forgets."""
    path = tmp_path / "runtime.json"
    config = config_of(CATALOG, server=f'runtime_state_file = "{path}"')
    async with running(config) as first:
        assert known_ttft_s(first.application) is None
        seen(first.application)
        seen(first.application, name="gone@north")
        assert not path.exists(), "nothing is saved before its time"
    saved = read_state(path)
    assert saved is not None
    assert [endpoint.name for endpoint in saved.endpoints] == [NAME, "gone@north"]
    async with running(config) as second:
        assert known_ttft_s(second.application) == pytest.approx(0.5, rel=0.05)
        assert set(second.application.router.tracker.snapshot(0.0).by_endpoint) == {NAME}


@pytest.mark.parametrize("told", ["", "replica_count = 3"])
async def test_a_server_knows_how_many_replicas_there_are(told: str) -> None:
    """It charges a call for what it takes from the calls of all of them."""
    lane = Lane(1, lambda _: Truth(load_slope=0.1), rate_at=fair_share(0.1))
    async with running(config_of(CATALOG, server=told)) as server:
        lane.tracker = server.application.router.tracker
        lane.ran(300.0)
        found = charged(lane, 5)
    alone = Lane(1, lambda _: Truth(load_slope=0.1), rate_at=fair_share(0.1))
    alone.ran(300.0)
    assert found == pytest.approx((3.0 if told else 1.0) * charged(alone, 5))


async def test_a_file_that_is_not_ours_is_refused_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server starts, knows nothing, says why, and at its end the file is its own."""
    path = tmp_path / "runtime.json"
    path.write_text('{"schema": "another/7"}')
    config = config_of(CATALOG, server=f'runtime_state_file = "{path}"')
    with caplog.at_level(logging.WARNING, logger="pointsman"):
        async with running(config) as server:
            assert known_ttft_s(server.application) is None
            seen(server.application)
    assert f"runtime state {path} refused, latencies are learned afresh: schema must be" in caplog.text
    assert read_state(path) is not None


async def test_a_folder_that_went_away_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the state can't be saved, the server says so and stops in peace."""
    folder = tmp_path / "state"
    folder.mkdir()
    config = config_of(CATALOG, server=f'runtime_state_file = "{folder / "runtime.json"}"')
    with caplog.at_level(logging.WARNING, logger="pointsman"):
        async with running(config):
            folder.rmdir()
    assert "not saved: it can't be written (FileNotFoundError)" in caplog.text


async def test_without_the_key_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server keeps no file that was not asked for."""
    monkeypatch.chdir(tmp_path)
    async with running(config_of(CATALOG)) as server:
        seen(server.application)
    assert fingerprint(tmp_path) == ()
