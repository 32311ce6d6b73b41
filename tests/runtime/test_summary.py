"""What survives a restart: all that is known for longer than a minute, as old as it is; nothing that is not ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pointsman_server.decision.types import EndpointRuntime
from pointsman_server.errors import UpstreamErrorKind
from pointsman_server.runtime.summary import SCHEMA, RuntimeStateError, RuntimeSummary, parse_summary, summary_text
from pointsman_server.runtime.tracker import RuntimeTracker
from pointsman_server.runtime_state import FILE_BYTES_MAX, read_state, write_state
from runtime.lane import NAME, Lane, Truth
from runtime.test_tracker import EVENTS, Event, Script

OFFSET_S = 1_700_000_000.0
"""Makes the first server's time seconds since 1970; the second one counts from another moment."""
OTHER_OFFSET_S = 1_699_990_000.0


def learned() -> Lane:
    """An endpoint of which much is known: load and length matter, and there was a rate limit."""
    truth = Truth(load_slope=0.05, s_per_input_token=0.0003)
    lane = Lane(3, lambda _: truth, rate_at=lambda _: 2.0)
    lane.ran(400.0)
    refused = lane.tracker.start(NAME, input_token_count=10, now_s=lane.now_s)
    refused.fail(UpstreamErrorKind.RATE_LIMITED, retry_after_s=1.0, now_s=lane.now_s)
    lane.finish()
    return lane


def restored(tracker: RuntimeTracker, now_s: float) -> RuntimeTracker:
    """Another tracker that goes on, through text, at the same moment by its own clock."""
    summary = parse_summary(summary_text(tracker.summary(unix_offset_s=OFFSET_S)))
    other = RuntimeTracker(unix_offset_s=OTHER_OFFSET_S)
    other.restore(summary, now_s=now_s + OFFSET_S - OTHER_OFFSET_S, unix_offset_s=OTHER_OFFSET_S)
    return other


def reading(tracker: RuntimeTracker, now_s: float) -> EndpointRuntime:
    """The state of the endpoint by the first server's clock."""
    return tracker.snapshot(now_s).of(NAME)


def test_what_was_learned_is_known_after_a_restart() -> None:
    """Median, what it grows with, age and the learned limit are the same before and after, by another clock."""
    lane = learned()
    now_s = lane.now_s + 30.0
    before = reading(lane.tracker, now_s)
    after = reading(restored(lane.tracker, now_s), now_s + OFFSET_S - OTHER_OFFSET_S)
    assert before.ttft_s is not None
    assert after.ttft_s is not None
    assert before.inter_token_latency_s is not None
    assert after.inter_token_latency_s is not None
    assert after.ttft_s.p50 == pytest.approx(before.ttft_s.p50, rel=0.1)
    assert after.inter_token_latency_s.p50 == pytest.approx(before.inter_token_latency_s.p50, rel=0.1)
    assert after.ttft_s_per_input_token == pytest.approx(before.ttft_s_per_input_token, rel=0.2)
    assert before.ttft_s_per_input_token > 0.0
    assert after.reference_input_token_count == pytest.approx(before.reference_input_token_count)
    assert after.age_s == pytest.approx(before.age_s, abs=0.5)


def test_learned_limits_are_kept() -> None:
    """The restarted server does not run into the limit that the first one had found."""
    lane = learned()
    limits = restored(lane.tracker, lane.now_s)._endpoints[NAME].limits
    known = lane.tracker._endpoints[NAME].limits
    assert limits.rate_per_s(lane.now_s + OFFSET_S - OTHER_OFFSET_S) == pytest.approx(known.rate_per_s(lane.now_s))


@pytest.mark.parametrize("away_s", [60.0, 3600.0, 1e7])
def test_a_stale_file_only_widens_the_doubt(away_s: float) -> None:
    """However long the server was away, the median is the one it knew; the quantiles lie the further apart, up to a
    bound."""
    lane = learned()
    fresh = reading(restored(lane.tracker, lane.now_s), lane.now_s + OFFSET_S - OTHER_OFFSET_S)
    stale = reading(restored(lane.tracker, lane.now_s + away_s), lane.now_s + away_s + OFFSET_S - OTHER_OFFSET_S)
    assert fresh.ttft_s is not None
    assert stale.ttft_s is not None
    assert stale.ttft_s.p50 == pytest.approx(fresh.ttft_s.p50)
    assert fresh.ttft_s.p95 < stale.ttft_s.p95 < 10.0 * fresh.ttft_s.p95


def test_a_clock_that_was_wrong_does_no_harm() -> None:
    """What was saved in the future counts as just seen."""
    lane = learned()
    after = reading(restored(lane.tracker, lane.now_s - 1e6), lane.now_s - 1e6 + OFFSET_S - OTHER_OFFSET_S)
    assert after.age_s is not None
    assert 0.0 <= after.age_s < 1.0


@given(st.lists(EVENTS, max_size=60))
@settings(max_examples=60)
def test_any_state_survives(events: list[Event]) -> None:
    """Whatever happened, the summary is valid text, and the summary of what is restored is the same again."""
    script = Script()
    for event in events:
        script.play(event)
    summary = parse_summary(summary_text(script.tracker.summary(unix_offset_s=OFFSET_S)))
    tracker = RuntimeTracker(unix_offset_s=OFFSET_S)
    tracker.restore(summary, now_s=script.now_s, unix_offset_s=OFFSET_S)
    assert parse_summary(summary_text(tracker.summary(unix_offset_s=OFFSET_S))) == summary
    for runtime in tracker.snapshot(script.now_s + 10.0).by_endpoint.values():
        assert runtime.ttft_s is None or 0.0 < runtime.ttft_s.p50 <= runtime.ttft_s.p99


def damaged(change: str) -> str:
    """A valid text with one thing wrong."""
    root = json.loads(summary_text(learned().tracker.summary(unix_offset_s=OFFSET_S)))
    endpoint = root["endpoints"][0]
    match change:
        case "schema":
            root["schema"] = "pointsman.runtime/1"
        case "no endpoints":
            del root["endpoints"]
        case "negative variance":
            endpoint["ttft"]["level"]["intercept_variance"] = -1.0
        case "text for a number":
            endpoint["ttft"]["level"]["spread"] = "0.3"
        case "true for a count":
            endpoint["ttft"]["level"]["observation_count"] = True
        case "23 hours":
            endpoint["inter_token"]["hour_means"].pop()
        case "twice":
            root["endpoints"].append(endpoint)
        case "no object":
            root["endpoints"][0] = 7
    return json.dumps(root)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("schema", "schema must be 'pointsman.runtime/3'"),
        ("no endpoints", "endpoints must be a list of at most 4096"),
        ("negative variance", "endpoints[0].ttft.level.intercept_variance must be a number from 0 to"),
        ("text for a number", "endpoints[0].ttft.level.spread must be a number"),
        ("true for a count", "endpoints[0].ttft.level.observation_count must be a count"),
        ("23 hours", "endpoints[0].inter_token.hour_means must be 24 numbers"),
        ("twice", "endpoints has one name twice"),
        ("no object", "endpoints[0] must be an object"),
    ],
)
def test_a_foreign_or_damaged_text_is_refused(change: str, told: str) -> None:
    """The first thing that is wrong is named, with what would be right."""
    with pytest.raises(RuntimeStateError) as refused:
        parse_summary(damaged(change))
    assert told in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"schema":1}', "[" * 100_000, '{"endpoints":NaN}'])
def test_what_is_no_summary_is_refused(text: str) -> None:
    """Any other text is refused with a typed error, and no other."""
    with pytest.raises(RuntimeStateError):
        parse_summary(text)


def test_the_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """What is written is what is read; a file that was there is replaced, and nothing is left beside it."""
    path, summary = tmp_path / "runtime.json", learned().tracker.summary(unix_offset_s=OFFSET_S)
    assert read_state(path) is None
    write_state(path, RuntimeSummary(endpoints=()))
    write_state(path, summary)
    again = read_state(path)
    assert again is not None
    assert [endpoint.name for endpoint in again.endpoints] == [NAME]
    assert [path] == list(tmp_path.iterdir())
    assert SCHEMA in path.read_text()
    assert len(path.read_bytes()) < FILE_BYTES_MAX / 4096


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    """A folder in its place, bytes that are no text, a file beyond the bound: each is a typed error."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(RuntimeStateError, match="can't be read"):
        read_state(folder)
    with pytest.raises(RuntimeStateError, match="can't be written"):
        write_state(tmp_path / "nowhere" / "state.json", RuntimeSummary(endpoints=()))
    path = tmp_path / "state.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RuntimeStateError, match="not UTF-8"):
        read_state(path)
    with path.open("wb") as file:
        file.truncate(FILE_BYTES_MAX + 1)
    with pytest.raises(RuntimeStateError, match="larger than"):
        read_state(path)


def test_restoring_replaces_what_was_seen_since() -> None:
    """An endpoint that is in the file is as the file says; one that is not stays."""
    lane = learned()
    other = RuntimeTracker()
    other.start("new@north", input_token_count=1, now_s=0.0).first_token(1.0)
    other.start(NAME, input_token_count=1, now_s=0.0).first_token(50.0)
    summary = lane.tracker.summary(unix_offset_s=0.0)
    renamed = replace(summary, endpoints=(replace(summary.endpoints[0], name=NAME),))
    other.restore(renamed, now_s=lane.now_s, unix_offset_s=0.0)
    assert set(other.snapshot(lane.now_s).by_endpoint) == {"new@north", NAME}
    ttft_s = other.snapshot(lane.now_s).of(NAME).ttft_s
    assert ttft_s is not None
    assert ttft_s.p50 < 5.0
