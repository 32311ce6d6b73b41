"""From the journal to labels, and to what training reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelling.samples import answer, answered, entry, exact, plan
from pointsman_server.labelling.errors import LabellingError
from pointsman_server.labelling.judge import Verdict
from pointsman_server.labelling.outcomes import (
    Labelled,
    endpoint_summary,
    labels,
    mean_interval_95,
    outcome_rows,
    position_bias,
    prompt_rows,
)
from pointsman_server.labelling.plan import Plan, verdict_calls
from pointsman_server.labelling.records import Answered, Failed, Ledger
from pointsman_server.labelling.tables import TableFormat, chosen_format, table_paths, write_tables
from pointsman_server.training.dataset import load_dataset


def ledger_of(*records: Answered | Failed) -> Ledger:
    """A ledger with these records."""
    ledger = Ledger()
    for record in records:
        ledger.add(record)
    return ledger


def compared(made: Plan, name: str, text: str, baseline: str, *grades: tuple[int, int]) -> list[Answered]:
    """The verdicts on an endpoint's answer to the first prompt: grades of (first, second), in either order."""
    (found,) = [each for each in made.entries if each.endpoint.name == name]
    calls = verdict_calls(made, made.prompts[0], found, answer=text, baseline_answer=baseline)
    return [
        answered(call, json.dumps({"reason": "", "first": first, "second": second}))
        for call, (first, second) in zip(calls, grades, strict=True)
    ]


class TestLabels:
    """Each endpoint's answers, scored."""

    def test_what_is_missing_has_no_label(self) -> None:
        """A call that failed, or was not made, is left out: an outage is not a bad answer."""
        made = plan([exact("1"), exact("2")], "a@p", "b@q")
        one = answer(made, 1, "a@p", "1")
        outage = Failed(key=answer(made, 2, "a@p", "").key, kind="server_error", message="HTTP 500", cost_usd=0.0)
        wrong = answer(made, 2, "b@q", "no")
        found = labels(made, ledger_of(one, outage, wrong))
        assert [(label.prompt_id, label.entry.endpoint.name, label.quality) for label in found] == [
            ("p1", "a@p", 1.0),
            ("p2", "b@q", 0.0),
        ]

    def test_both_orders_are_averaged(self) -> None:
        """The grades of the answer, shown first and shown second, are a quality together; so are the baseline's."""
        made = plan([{"score": "pairwise"}], "a@p", "z@q", judge=entry("j@r"), baseline="z@q")
        answers = [answer(made, 1, "a@p", "x"), answer(made, 1, "z@q", "base")]
        verdicts = compared(made, "a@p", "x", "base", (9, 5), (6, 7))
        found = labels(made, ledger_of(*answers, *verdicts))
        # The answer has 9 and 7, which are 8 of 10; the baseline 5 and 6.
        assert [label.quality for label in found] == [pytest.approx(7 / 9), pytest.approx(4.5 / 9)]

    def test_one_order_alone_is_no_label(self) -> None:
        """Neither for the answer nor for the baseline."""
        made = plan([{"score": "pairwise"}], "a@p", "z@q", judge=entry("j@r"), baseline="z@q")
        answers = [answer(made, 1, "a@p", "x"), answer(made, 1, "z@q", "base")]
        for kept in (0, 1):
            verdict = compared(made, "a@p", "x", "base", (9, 5), (6, 7))[kept]
            assert labels(made, ledger_of(*answers, verdict)) == ()

    def test_an_unreadable_verdict_is_no_label(self) -> None:
        """It is not a grade of zero."""
        made = plan([{"score": "judge"}], "a@p", judge=entry("j@r"))
        (call,) = verdict_calls(made, made.prompts[0], made.entries[0], answer="x", baseline_answer=None)
        answers = answer(made, 1, "a@p", "x")
        assert labels(made, ledger_of(answers, answered(call, "seven"))) == ()
        (label,) = labels(made, ledger_of(answers, answered(call, '{"reason": "", "grade": 7}')))
        assert label.quality == pytest.approx(6 / 9)


class TestRows:
    """What training reads."""

    def test_several_endpoints_of_one_model_are_averaged(self) -> None:
        """A prompt and model have one row, with the means of what is known."""
        made = plan([exact("1")], "a@p", "a@q", "b@q")
        records = [
            answer(made, 1, "a@p", "1", cost_usd=0.001, latency_s=1.0),
            answer(made, 1, "a@q", "no", cost_usd=None, latency_s=3.0),
            answer(made, 1, "b@q", "1"),
        ]
        first, second = outcome_rows(labels(made, ledger_of(*records)))
        assert (first.model, first.quality, first.cost_usd, first.latency_s) == ("a", 0.5, 0.001, 2.0)
        assert (second.model, second.quality) == ("b", 1.0)

    @pytest.mark.parametrize("split", [None, "train"])
    def test_training_reads_what_is_written(self, tmp_path: Path, split: str | None) -> None:
        """The Parquet tables are a data directory: the same labels come out as went in, unknown where there is none."""
        given_split = {} if split is None else {"split": split}
        lines = [exact("1", category="sums", **given_split), exact("2", **given_split), exact("3", **given_split)]
        made = plan(lines, "a@p", "b@q")
        records = [answer(made, 1, "a@p", "1"), answer(made, 1, "b@q", "2"), answer(made, 2, "b@q", "2")]
        outcomes = outcome_rows(labels(made, ledger_of(*records)))
        write_tables(tmp_path, TableFormat.PARQUET, prompt_rows(made.prompts, outcomes), outcomes)
        dataset = load_dataset(tmp_path)
        assert dataset.prompt_ids.tolist() == ["p1", "p2"]
        assert dataset.endpoints == (("own", "a"), ("own", "b"))
        np.testing.assert_array_equal(dataset.quality, [[1.0, 0.0], [np.nan, 1.0]])
        np.testing.assert_array_equal(dataset.output_tokens, [[10, 10], [np.nan, 10]])
        assert dataset.categories.tolist() == ["sums", ""]
        assert split is None or dataset.splits.tolist() == [split, split]

    def test_jsonl_has_the_same_rows(self, tmp_path: Path) -> None:
        """An object a line, null where unknown."""
        made = plan([exact("1")], "a@p")
        outcomes = outcome_rows(labels(made, ledger_of(answer(made, 1, "a@p", "1", cost_usd=None))))
        write_tables(tmp_path, TableFormat.JSONL, prompt_rows(made.prompts, outcomes), outcomes)
        prompts_path, outcomes_path = table_paths(tmp_path, TableFormat.JSONL)
        assert json.loads(prompts_path.read_text()) == {"prompt_id": "p1", "prompt": "Question 1?", "category": ""}
        assert json.loads(outcomes_path.read_text()) == {
            "prompt_id": "p1",
            "model": "a",
            "quality": 1.0,
            "input_tokens": 100,
            "output_tokens": 10,
            "cost_usd": None,
            "latency_s": 1.0,
            "ttft_s": 0.5,
        }

    def test_a_failed_write_leaves_the_old_tables(self, tmp_path: Path) -> None:
        """A table is replaced as a whole or not at all, and nothing is left beside it."""
        made = plan([exact("1")], "a@p")
        outcomes = outcome_rows(labels(made, ledger_of(answer(made, 1, "a@p", "1"))))
        write_tables(tmp_path, TableFormat.JSONL, prompt_rows(made.prompts, outcomes), outcomes)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        impossible = [replace(outcome, quality=float("nan")) for outcome in outcomes]
        with pytest.raises(ValueError, match="JSON"):
            write_tables(tmp_path, TableFormat.JSONL, prompt_rows(made.prompts, outcomes), impossible)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_tables_in_two_formats_are_refused(self, tmp_path: Path) -> None:
        """A folder holds one truth."""
        assert chosen_format(None, tmp_path) is TableFormat.PARQUET
        (tmp_path / "outcomes.jsonl").touch()
        with pytest.raises(LabellingError, match="give --format jsonl"):
            chosen_format(None, tmp_path)
        assert chosen_format(TableFormat.JSONL, tmp_path) is TableFormat.JSONL


class TestSummary:
    """The table at the end."""

    def test_an_endpoint_is_summed_up(self) -> None:
        """Count, mean with its interval, cost of the answers, median latency; nothing of other endpoints."""
        made = plan([exact("1"), exact("2"), exact("3")], "a@p", "b@q")
        records = [
            answer(made, 1, "a@p", "1", latency_s=1.0),
            answer(made, 2, "a@p", "no", latency_s=2.0),
            answer(made, 3, "a@p", "3", latency_s=9.0),
            answer(made, 1, "b@q", "1"),
        ]
        summary = endpoint_summary(made.entries[0], labels(made, ledger_of(*records)))
        assert summary.label_count == 3
        assert summary.quality_mean == pytest.approx(2 / 3)
        assert summary.cost_usd == pytest.approx(0.003)
        assert summary.latency_s_median == 2.0
        assert summary.quality_low is not None
        assert summary.quality_high is not None
        assert summary.quality_low < 2 / 3 < summary.quality_high

    def test_nothing_is_known_without_a_label(self) -> None:
        """No mean, no interval, no latency."""
        summary = endpoint_summary(entry("a@p"), ())
        assert (summary.label_count, summary.quality_mean, summary.latency_s_median) == (0, None, None)

    @given(st.floats(0.0, 1.0), st.integers(1, 10_000))
    def test_an_interval_holds_its_mean_and_stays_within_bounds(self, mean: float, count: int) -> None:
        """And it narrows with every further label."""
        low, high = mean_interval_95(mean, count)
        assert 0.0 <= low <= mean + 1e-9
        assert mean - 1e-9 <= high <= 1.0
        wider_low, wider_high = mean_interval_95(mean, max(1, count // 2))
        assert wider_high - wider_low >= high - low - 1e-9

    def test_the_interval_is_wilsons(self) -> None:
        """The textbook example of 8 right of 10."""
        assert mean_interval_95(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)

    def test_the_order_tells_of_the_judge(self) -> None:
        """What changes with the order is the judge's bias; what does not is the answers' difference."""
        made = plan([exact("1")], "a@p")

        def label(first: Verdict, second: Verdict) -> Labelled:
            record = answer(made, 1, "a@p", "1")
            return Labelled(prompt_id="p1", entry=made.entries[0], quality=0.5, answer=record, verdicts=(first, second))

        fair = label(Verdict(8, baseline_grade=5), Verdict(8, baseline_grade=5))
        biased = label(Verdict(7, baseline_grade=5), Verdict(5, baseline_grade=7))
        found = position_bias([fair, biased])
        assert found is not None
        assert (found.pair_count, found.flipped_count, found.first_grade_advantage) == (2, 1, 1.0)
        assert position_bias([]) is None
