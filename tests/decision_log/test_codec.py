"""Records come back from their lines as they were."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from decision_log.samples import COMPLETION, REPORT, SAMPLE, logged
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.decision.decide import decide
from pointsman_server.decision.resolve import NamedRouter
from pointsman_server.decision.router_string import RouterAlternative
from pointsman_server.decision.types import Assignment, DecisionInput, Exploration, Policy
from pointsman_server.decision_log.codec import (
    DECISION_PREFIX,
    DamagedLineError,
    LineReader,
    LineWriter,
    decision_bytes,
    header_line,
)
from pointsman_server.decision_log.records import (
    DecisionLogError,
    LoggedDecision,
    PromptTraits,
    Record,
    Setting,
)
from strategies import decision_inputs, policies


def read_back(*records: Record) -> list[Record]:
    """The records of the lines of these records."""
    writer, reader = LineWriter(), LineReader()
    found = [reader.read(line) for record in records for line in writer.lines(record)]
    return [record for record in found if record is not None]


@given(decision_inputs(), st.lists(st.floats(0.0, 5000.0), max_size=3))
def test_a_decision_comes_back_as_it_was(given_: DecisionInput, cached_counts: list[float]) -> None:
    """Input, decision and all beside them are equal after a line, to the last bit, and decide the same again; also where
    endpoints have some of the input in their prompt caches."""
    names = [endpoint.name for endpoint in given_.endpoints]
    given_ = given_._replace(cached_input_token_counts=dict(zip(names, cached_counts, strict=False)))
    record = logged(given_)
    (found,) = read_back(record)
    assert found == record
    assert isinstance(found, LoggedDecision)
    assert decision_bytes(found.given, decide(found.given)) == decision_bytes(given_, record.decision)


@given(decision_inputs(), policies, st.booleans())
def test_what_was_asked_and_configured_comes_back(given_: DecisionInput, policy: Policy, keyed: bool) -> None:  # noqa: FBT001
    """The caller's wishes, the routers, the assignment to an arm and the exploration are as they were."""
    given_ = given_._replace(
        router_name="cheap",
        router_version="f00",
        quality_artifact="builtin@1",
        exploration=Exploration(0.5, 7.0, 0.125),
        assignment=Assignment("default", "cheap", probability=0.25, keyed=keyed),
    )
    overlay = RouterAlternative("", policy.space, policy.bounds, policy.capabilities, policy.labels)
    routers = {"cheap": NamedRouter("cheap", (policy,), Exploration(0.0))}
    setting = Setting(given_.endpoints, {}, routers, {})
    record = logged(given_, overlay=overlay, setting=setting, caller_seeded=keyed)
    assert read_back(record) == [record]


def test_a_prompt_is_there_only_where_it_is_kept() -> None:
    """A text comes back with its line breaks; its representation does not show it."""
    record = logged(SAMPLE, prompt=PromptTraits(6, (0.5,), "a\n\ud83d b"))
    assert read_back(record) == [record]
    assert "a\n" not in repr(record)
    lines = b"".join(LineWriter().lines(logged(SAMPLE)))
    assert b'"text"' not in lines


@pytest.mark.parametrize("record", [COMPLETION, REPORT, replace(COMPLETION, ttft_s=None, cost_usd=None, attempts=())])
def test_what_came_of_it_comes_back(record: Record) -> None:
    """Completions and reports are as they were."""
    assert read_back(record) == [record]


def test_what_decisions_share_stands_once_in_a_file() -> None:
    """The second decision of a setting is one line, and begins as decisions do; another file has all of it again."""
    writer = LineWriter()
    record = logged(SAMPLE)
    first, second = writer.lines(record), writer.lines(record)
    assert [json.loads(line)["kind"] for line in first] == ["setting", "routing", "decision"]
    assert second == first[-1:]
    assert second[0].startswith(DECISION_PREFIX)
    writer.begin_file()
    assert writer.lines(record) == first


def test_a_line_that_is_cut_off_or_refers_to_a_missing_one_is_told() -> None:
    """Every beginning of a line is damaged, and so is a decision whose setting is not there; a whole line is not."""
    lines = LineWriter().lines(logged(SAMPLE))
    reader = LineReader()
    for line in lines:
        for cut in range(0, len(line), 97):
            with pytest.raises(DamagedLineError):
                reader.read(line[:cut])
    with pytest.raises(DamagedLineError):
        reader.read(lines[-1])
    assert [reader.read(line) is not None for line in lines] == [False, False, True]


@pytest.mark.parametrize("line", [b"", b"null", b"7", b'{"kind":"other"}', b'{"kind":"report"}', b"\xff\x00"])
def test_what_is_not_ours_is_damaged(line: bytes) -> None:
    """A line that no writer of ours wrote is no record."""
    with pytest.raises(DamagedLineError, match="no whole line of a decision log"):
        LineReader().read(line)


def test_a_log_of_another_version_is_refused() -> None:
    """It is not damaged but of another version, and both are named."""
    assert LineReader().read(header_line(("a",))) is None
    with pytest.raises(DecisionLogError, match="version 2; version 1 can be read"):
        LineReader().read(b'{"kind":"log","version":2}')
