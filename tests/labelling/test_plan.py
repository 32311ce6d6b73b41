"""Which calls are missing, and what they cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelling.samples import answer, answered, entry, exact, plan
from pointsman_server.chat import SamplingOptions
from pointsman_server.labelling.errors import LabellingError
from pointsman_server.labelling.plan import (
    VERDICT_TOKEN_COUNT_ASSUMED,
    Plan,
    answer_call,
    check_budget_can_hold,
    cost_usd_max,
    estimates,
    verdict_calls,
)
from pointsman_server.labelling.records import Answered, Ledger


def ledger_of(*records: Answered) -> Ledger:
    """A ledger with these records."""
    ledger = Ledger()
    for record in records:
        ledger.add(record)
    return ledger


def calls_by_endpoint(made: Plan, ledger: Ledger) -> dict[str, int]:
    """How many calls of each endpoint are missing."""
    return {estimate.endpoint_name: estimate.call_count for estimate in estimates(made, ledger)}


class TestEstimates:
    """What is missing."""

    def test_every_prompt_is_asked_of_every_endpoint_once(self) -> None:
        """With nothing paid for all is missing, and what is paid for is not asked again."""
        made = plan([exact("1"), exact("2")], "a@p", "b@q")
        assert calls_by_endpoint(made, Ledger()) == {"a@p": 2, "b@q": 2}
        assert calls_by_endpoint(made, ledger_of(answer(made, 1, "a@p", "x"))) == {"a@p": 1, "b@q": 2}

    def test_the_judge_is_counted_before_there_is_anything_to_judge(self) -> None:
        """One verdict for a grade, two for a comparison, none on the baseline itself."""
        lines = [exact("1"), {"score": "judge"}, {"score": "pairwise"}, {"score": "pairwise", "baseline": "y"}]
        made = plan(lines, "a@p", "b@q", judge=entry("j@r"), baseline="a@p")
        # Two grades, one pair in two orders, and two pairs with the given text.
        assert calls_by_endpoint(made, Ledger()) == {"a@p": 4, "b@q": 4, "j@r": 2 + 2 + 4}

    def test_a_baseline_that_is_not_labelled_is_asked_what_others_are_compared_by(self) -> None:
        """And nothing else."""
        lines = [exact("1"), {"score": "pairwise"}, {"score": "pairwise", "baseline": "y"}]
        made = plan(lines, "a@p", judge=entry("j@r"), baseline="z@q")
        assert calls_by_endpoint(made, Ledger()) == {"a@p": 3, "z@q": 1, "j@r": 4}

    def test_verdicts_that_are_there_are_not_missing(self) -> None:
        """As long as they are on the answer that is there; another answer needs another verdict."""
        made = plan([{"score": "judge"}], "a@p", judge=entry("j@r"))
        (verdict,) = verdict_calls(made, made.prompts[0], made.entries[0], answer="x", baseline_answer=None)
        judged = answered(verdict, '{"reason": "", "grade": 7}')
        assert calls_by_endpoint(made, ledger_of(answer(made, 1, "a@p", "x"), judged)) == {}
        assert calls_by_endpoint(made, ledger_of(answer(made, 1, "a@p", "y"), judged)) == {"j@r": 1}

    def test_an_empty_answer_is_an_answer(self) -> None:
        """Silence that has been judged is not missing."""
        made = plan([{"score": "judge"}], "a@p", judge=entry("j@r"))
        (verdict,) = verdict_calls(made, made.prompts[0], made.entries[0], answer="", baseline_answer=None)
        judged = answered(verdict, '{"reason": "", "grade": 1}')
        assert calls_by_endpoint(made, ledger_of(answer(made, 1, "a@p", ""), judged)) == {}

    def test_the_cost_is_that_of_the_catalogs_prices(self) -> None:
        """Input as every decision counts it, output as assumed, within the limit that is sent; unknown without a price."""
        # "Question 1?" has 11 bytes, which are 3 tokens, and a turn adds 4.
        for limit, output_token_count in ((None, 50), (20, 20)):
            made = plan([exact("1")], "a@p", sampling=SamplingOptions(output_token_count_max=limit))
            (estimate,) = estimates(made, Ledger(), output_token_count=50)
            assert estimate.input_token_count == 7
            assert estimate.cost_usd == pytest.approx((7 + output_token_count) / 1e6)
        unpriced = Plan(prompts=made.prompts, entries=(entry("a@p", price=None),))
        assert [estimate.cost_usd for estimate in estimates(unpriced, Ledger())] == [None]

    def test_a_judge_reads_more_and_writes_less(self) -> None:
        """Its input holds the rubric and an answer of the assumed length."""
        made = plan([{"score": "judge"}], "a@p", judge=entry("j@r"))
        _, judge = estimates(made, Ledger(), output_token_count=1000)
        assert judge.is_judge
        assert judge.input_token_count > 1000
        assert judge.cost_usd == pytest.approx((judge.input_token_count + VERDICT_TOKEN_COUNT_ASSUMED) / 1e6)


class TestBounds:
    """The most that a call can cost."""

    @given(st.text(st.characters(codec="utf-8"), min_size=1), st.none() | st.integers(1, 2000))
    def test_the_most_is_more_than_any_tokenizer_makes_of_it(self, prompt: str, limit: int | None) -> None:
        """A token has at least a byte, and an answer at most the limit that is sent or else the catalog's."""
        made = plan([exact("1", prompt=prompt)], "a@p", sampling=SamplingOptions(output_token_count_max=limit))
        most_usd = cost_usd_max(answer_call(made, made.prompts[0], made.entries[0]))
        assert most_usd is not None
        assert most_usd >= (len(prompt.encode()) + min(limit or 1000, 1000)) / 1e6

    def test_it_is_unknown_without_a_price_or_a_longest_answer(self) -> None:
        """Neither is taken for zero."""
        (prompt,) = plan([exact("1")], "a@p").prompts
        for unknown in (entry("a@p", price=None), entry("a@p", output_token_count_max=None)):
            made = Plan(prompts=(prompt,), entries=(unknown,))
            assert cost_usd_max(answer_call(made, prompt, unknown)) is None

    def test_a_budget_that_cant_be_held_is_refused(self) -> None:
        """The text says what of which endpoint is missing; a limit that is sent stands in for the catalog's."""
        (prompt,) = plan([exact("1")], "a@p").prompts
        with pytest.raises(LabellingError, match="the price of j@r is unknown"):
            check_budget_can_hold(Plan(prompts=(prompt,), entries=(entry("a@p"),), judge=entry("j@r", price=None)))
        endless = entry("a@p", output_token_count_max=None)
        with pytest.raises(LabellingError, match="how long an answer of a@p can be is unknown"):
            check_budget_can_hold(Plan(prompts=(prompt,), entries=(endless,)))
        check_budget_can_hold(
            Plan(prompts=(prompt,), entries=(endless,), sampling=SamplingOptions(output_token_count_max=100))
        )
