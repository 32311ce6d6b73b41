"""The journal's lines, and what they add up to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelling.samples import answer, answered, entry, exact, plan
from pointsman_server.chat import SamplingOptions
from pointsman_server.labelling.errors import JournalError
from pointsman_server.labelling.plan import answer_call, verdict_calls
from pointsman_server.labelling.records import (
    HEADER,
    Answered,
    CallKey,
    Failed,
    Ledger,
    Purpose,
    from_line,
    to_line,
)

texts = st.text(st.characters(codec="utf-8"))
amounts = st.none() | st.floats(0.0, 1e6)
counts = st.none() | st.integers(0, 10**9)
keys = st.builds(CallKey, st.sampled_from(Purpose), texts, texts, texts, texts)
records = st.one_of(
    st.builds(
        Answered,
        key=keys,
        text=texts,
        finish_reason=texts,
        input_token_count=counts,
        output_token_count=counts,
        cost_usd=amounts,
        is_cost_estimated=st.booleans(),
        ttft_s=amounts,
        latency_s=st.floats(0.0, 1e6),
    ),
    st.builds(Failed, key=keys, kind=texts, message=texts, cost_usd=amounts),
)


@given(records)
def test_a_record_comes_back_as_it_was(record: Answered | Failed) -> None:
    """Written and read, nothing is lost, and a record is one line whatever is in its texts."""
    line = to_line(record)
    assert "\n" not in line
    assert from_line(line) == record


@given(records, st.data())
def test_half_a_line_is_no_record(record: Answered | Failed, data: st.DataObject) -> None:
    """Wherever a line is cut off, it is not taken for another record."""
    line = to_line(record)
    assert from_line(line[: data.draw(st.integers(0, len(line) - 1))]) is None


@given(texts | st.recursive(st.none() | texts | st.integers(), lambda x: st.dictionaries(texts, x)).map(json.dumps))
def test_what_is_no_record_is_none(line: str) -> None:
    """Any other line is passed over, not a failure."""
    assert from_line(line) is None


def test_the_last_answer_of_a_key_holds() -> None:
    """A call that was made twice counts twice as spent, and its later answer counts."""
    made = plan([exact("1")], "a@p")
    lines = [HEADER, to_line(answer(made, 1, "a@p", "old")), to_line(answer(made, 1, "a@p", "new"))]
    ledger = Ledger.read(lines)
    assert [record.text for record in ledger.answered.values()] == ["new"]
    assert ledger.spent_usd == pytest.approx(0.002)


def test_unreadable_lines_are_counted_and_named() -> None:
    """Lines that are no record are passed over, with their numbers."""
    made = plan([exact("1")], "a@p")
    ledger = Ledger.read([HEADER, "{", to_line(answer(made, 1, "a@p", "x")), '{"purpose": "ans'])
    assert len(ledger.answered) == 1
    assert ledger.skipped_line_numbers == (2, 4)


def test_money_that_bought_nothing_is_spent_all_the_same() -> None:
    """Broken answers and unreadable verdicts count as spent, and as spent in vain; no call counts as answered by them."""
    made = plan([{"score": "judge"}], "a@p", judge=entry("j@p"))
    call = answer_call(made, made.prompts[0], made.entries[0])
    (verdict,) = verdict_calls(made, made.prompts[0], made.entries[0], answer="x", baseline_answer=None)
    ledger = Ledger()
    ledger.add(Failed(key=call.key, kind="disconnected", message="it broke", cost_usd=0.5))
    ledger.add(answered(verdict, "a solid 7", cost_usd=0.25))
    assert (ledger.spent_usd, ledger.failed_usd, ledger.judge_usd) == (0.75, 0.75, 0.25)
    assert ledger.unreadable_verdict_count == 1
    assert ledger.answered == {}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("prompt_id,prompt", "not that of a journal"),
        ('{"prompt_id": "a"}', "not that of a journal"),
        (json.dumps({"journal": "pointsman benchmark", "version": 2}), "has version 2"),
    ],
)
def test_another_file_is_not_gone_on_with(line: str, words: str) -> None:
    """What is no journal, or one of another version, is refused before anything is added to it."""
    with pytest.raises(JournalError, match=words):
        Ledger.read([line])


class TestKeys:
    """What makes a call the same, and what makes it another."""

    def test_scoring_changes_no_key(self) -> None:
        """Another expected answer, another way of scoring, another category: the answers are the same ones."""
        lines = [exact("1"), {"score": "number", "expected": 2, "category": "arithmetic"}, {"score": "judge"}]
        plans = [plan([line], "a@p") for line in lines]
        keys_ = {answer_call(each, each.prompts[0], each.entries[0]).key for each in plans}
        assert len(keys_) == 1

    def test_whatever_is_asked_otherwise_is_another_call(self) -> None:
        """The prompt's text, its id, the endpoint, the limit and the temperature make a call another."""
        plans = [
            plan([exact("1")], "a@p"),
            plan([exact("1", prompt="Another?")], "a@p"),
            plan([exact("1", prompt_id="other")], "a@p"),
            plan([exact("1")], "a@q"),
            plan([exact("1")], "a@p", sampling=SamplingOptions(temperature=0.0)),
            plan([exact("1")], "a@p", sampling=SamplingOptions(output_token_count_max=7)),
        ]
        keys_ = {answer_call(each, each.prompts[0], each.entries[0]).key for each in plans}
        assert len(keys_) == len(plans)

    def test_a_verdict_is_on_one_answer_in_one_order(self) -> None:
        """Answer, baseline and order make a verdict another, also where the two answers are the same text."""
        made = plan([{"score": "pairwise"}], "a@p", judge=entry("j@p"), baseline="b@p")
        keys_ = [
            call.key
            for text, baseline in (("x", "y"), ("x", "x"), ("z", "y"))
            for call in verdict_calls(made, made.prompts[0], made.entries[0], answer=text, baseline_answer=baseline)
        ]
        assert len(set(keys_)) == len(keys_) == 6
