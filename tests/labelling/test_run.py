"""A run, over real HTTP on loopback: what is asked, how often, and what becomes of failures. Time is virtual."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from e2e.harness import delta_event
from labelling.oracle import Answer, Oracle, Question, Reply
from labelling.samples import entry, exact, plan
from pointsman_server.chat import SamplingOptions
from pointsman_server.labelling.budget import Budget
from pointsman_server.labelling.journal import Journal, opened_journal
from pointsman_server.labelling.outcomes import labels, outcome_rows
from pointsman_server.labelling.plan import Plan
from pointsman_server.labelling.records import Ledger
from pointsman_server.labelling.run import (
    FAILURE_STREAK_MAX,
    RATE_LIMITED_WAIT_S_MAX,
    VERDICT_ATTEMPT_COUNT_MAX,
    Limits,
    Missing,
    Reason,
    Run,
    Surroundings,
)
from pointsman_server.providers.base import ProviderSettings
from pointsman_server.providers.http_client import default_tls
from pointsman_server.providers.registry import create_provider
from pointsman_server.providers.scripted import ReadRequest, Reset, ScriptedUpstream, Send, stream_head
from pointsman_server.providers.simulated import SimulatedProviders
from pointsman_server.providers.weather import Duration, EndpointWeather, ProviderWeather, RateLimit

COST_USD = 110e-6
"""Of every answer of the oracle: 100 tokens in and 10 out, at a dollar per million."""
CONCURRENCY = 3


@dataclass(slots=True)
class Time:
    """A clock that moves when somebody sleeps, and tells of pauses."""

    now_s: float = 0.0
    slept_s: list[float] = field(default_factory=list)
    paused: list[tuple[str, float]] = field(default_factory=list)
    finished_count: int = 0

    def clock_s(self) -> float:
        """Now."""
        return self.now_s

    async def sleep(self, wait_s: float) -> None:
        """Moves the clock, after a turn of the loop."""
        await asyncio.sleep(0)
        self.slept_s.append(wait_s)
        self.now_s += wait_s

    def finished(self) -> None:
        """One step of the bar."""
        self.finished_count += 1

    def paused_for(self, endpoint_name: str) -> list[float]:
        """How long an endpoint asked to be left alone, each time."""
        return [wait_s for name, wait_s in self.paused if name == endpoint_name]


class _Watcher:
    def __init__(self, time: Time) -> None:
        self._time = time

    def finished(self) -> None:
        self._time.finished()

    def paused(self, endpoint_name: str, wait_s: float) -> None:
        self._time.paused.append((endpoint_name, wait_s))


@dataclass(frozen=True, slots=True)
class Done:
    """What a run left behind."""

    ledger: Ledger
    missing: tuple[Missing, ...]
    time: Time

    def reasons(self) -> list[tuple[str, str, Reason]]:
        """What is missing, and why."""
        return sorted((missing.prompt_id, missing.endpoint_name, missing.reason) for missing in self.missing)


async def run(
    made: Plan,
    directory: Path,
    urls: Mapping[str, str],
    *,
    attempt_count_max: int = 3,
    budget_usd: float | None = None,
    time: Time | None = None,
    journal: Journal | None = None,
    timeout_s: float = 60.0,
    sleep: Callable[[float], Awaitable[None]] | None = None,
) -> Done:
    """One run over a plan, with providers at these URLs."""
    time = time or Time()
    async with AsyncExitStack() as stack:
        journal = journal or stack.enter_context(opened_journal(directory))
        tls, providers = default_tls(), {}
        for name, url in urls.items():
            settings = ProviderSettings(name=name, base_url=url)
            providers[name] = create_provider("openai_compatible", settings, unix_s=lambda: 0.0, tls=tls)
            stack.push_async_callback(providers[name].aclose)
        it = Run(
            made,
            journal,
            providers,
            limits=Limits(concurrency=CONCURRENCY, attempt_count_max=attempt_count_max, timeout_s=timeout_s),
            budget=Budget(budget_usd, spent_usd=journal.ledger.spent_usd),
            watcher=_Watcher(time),
            surroundings=Surroundings(clock_s=time.clock_s, sleep=sleep or time.sleep, chance=lambda: 1.0),
        )
        await it.complete()
        check_nothing_is_forgotten(made, journal.ledger, it.missing)
        return Done(journal.ledger, tuple(it.missing), time)


def check_nothing_is_forgotten(made: Plan, ledger: Ledger, missing: Sequence[Missing]) -> None:
    """Every prompt and endpoint has a label, or is listed as missing. A baseline has its label from the comparisons with it,
    so it can lack one where others do."""
    labelled = {(label.prompt_id, label.entry.endpoint.name) for label in labels(made, ledger)}
    listed = {(each.prompt_id, each.endpoint_name) for each in missing}
    names = {each.endpoint.name for each in made.entries}
    wanted = {(prompt.prompt_id, name) for prompt in made.prompts for name in names}
    unexplained = wanted - labelled - listed
    assert {prompt_id for prompt_id, _ in unexplained} <= {prompt_id for prompt_id, _ in listed}
    assert all(made.baseline and name == made.baseline.endpoint.name for _, name in unexplained)


async def run_with(
    answer: Answer, made: Plan, directory: Path, *, budget_usd: float | None = None, attempt_count_max: int = 3
) -> tuple[Done, Oracle]:
    """One run in which one oracle stands for every provider."""
    async with Oracle(answer) as oracle:
        names = {each.endpoint.provider for each in (*made.answering, *([made.judge] if made.judge else []))}
        urls = dict.fromkeys(names, oracle.base_url)
        done = await run(made, directory, urls, budget_usd=budget_usd, attempt_count_max=attempt_count_max)
        return done, oracle


def right(_: Question) -> Reply:
    """An answer."""
    return Reply("1")


def by_model(**answers: Answer) -> Answer:
    """Each model answers in its own way, and those that are not named are right."""
    return lambda question: answers.get(question.model, right)(question)


def by_prompt(**answers: Reply) -> Answer:
    """The reply to each prompt; to those that are not named, the one that is named other."""
    return lambda question: answers.get(question.prompt, answers["other"])


def replying(*replies: Reply) -> Answer:
    """Answers each prompt with these replies in their order, the last of them again and again."""
    counts: Counter[tuple[str, str]] = Counter()

    def answer(question: Question) -> Reply:
        key = (question.model, question.prompt)
        counts[key] += 1
        return replies[min(counts[key], len(replies)) - 1]

    return answer


def qualities(made: Plan, ledger: Ledger) -> dict[tuple[str, str], float]:
    """The labels by prompt and endpoint."""
    return {(label.prompt_id, label.entry.endpoint.name): label.quality for label in labels(made, ledger)}


class TestCalls:
    """What is asked."""

    async def test_every_prompt_is_asked_of_every_endpoint_once_and_never_again(self, tmp_path: Path) -> None:
        """A run asks each, another run none, and one with a further prompt and endpoint what is new."""
        lines = [exact("1") for _ in range(7)]
        made = plan(lines, "a@p", "b@p", "c@q")
        done, oracle = await run_with(right, made, tmp_path)
        assert set(oracle.counts.values()) == {1}
        assert len(oracle.counts) == 21
        assert (done.missing, done.time.finished_count) == ((), 21)
        assert done.ledger.spent_usd == pytest.approx(21 * COST_USD)
        _, oracle = await run_with(right, made, tmp_path)
        assert oracle.questions == []
        _, oracle = await run_with(right, plan([*lines, exact("1")], "a@p", "d@q"), tmp_path)
        assert Counter(model for model, _ in oracle.counts) == {"a": 1, "d": 8}

    async def test_changed_scoring_is_paid_with_nothing(self, tmp_path: Path) -> None:
        """Other expectations score the answers that are there."""
        made = plan([exact("1")], "a@p")
        done, _ = await run_with(right, made, tmp_path)
        assert qualities(made, done.ledger) == {("p1", "a@p"): 1.0}
        changed = plan([{"score": "number", "expected": 2}], "a@p")
        done, oracle = await run_with(right, changed, tmp_path)
        assert oracle.questions == []
        assert qualities(changed, done.ledger) == {("p1", "a@p"): 0.0}

    async def test_a_question_is_what_the_prompt_file_says(self, tmp_path: Path) -> None:
        """All turns, the provider's own name of the model, and the sampling that was asked for."""
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"}]
        sampling = SamplingOptions(temperature=0.0, output_token_count_max=7)
        made = plan([{"messages": messages, "score": "exact", "expected": "1"}], "a@p", sampling=sampling)
        _, oracle = await run_with(right, made, tmp_path)
        (question,) = oracle.questions
        assert (question.model, question.texts) == ("a", ("Be brief.", "One?"))
        assert (question.body["temperature"], question.body["max_tokens"]) == (0.0, 7)

    async def test_a_provider_has_no_more_calls_under_way_than_it_may(self, tmp_path: Path) -> None:
        """Answers and verdicts together, of all its endpoints."""
        made = plan([{"score": "judge"}] * 20, "a@p", "b@p", judge=entry("j@p"))
        _, oracle = await run_with(_graded(7), made, tmp_path)
        assert 1 <= oracle.in_flight_count_max <= CONCURRENCY
        assert len(oracle.questions) == 80

    async def test_an_answer_is_what_a_file_can_hold(self, tmp_path: Path) -> None:
        """Half of a surrogate pair, which JSON can smuggle in, is replaced before anything is made of the answer."""
        made = plan([{"score": "regex", "expected": "^x.$"}], "a@p")
        done, _ = await run_with(replying(Reply("x\ud800")), made, tmp_path)
        assert [record.text for record in done.ledger.answered.values()] == ["x\ufffd"]
        assert qualities(made, done.ledger) == {("p1", "a@p"): 1.0}

    async def test_what_a_provider_does_not_count_is_unknown(self, tmp_path: Path) -> None:
        """The tokens are null, while the budget goes by an estimate."""
        made = plan([exact("1")], "a@p")
        done, _ = await run_with(lambda _: Reply("12345", usage=None), made, tmp_path)
        (record,) = done.ledger.answered.values()
        assert (record.input_token_count, record.output_token_count) == (None, None)
        # 7 tokens for "Question 1?" as a turn, and 5 bytes make 2.
        assert record.cost_usd == pytest.approx(9e-6)
        assert record.is_cost_estimated
        assert [row.cost_usd for row in outcome_rows(labels(made, done.ledger))] == [None]

    async def test_an_answer_that_is_not_streamed_has_no_first_token(self, tmp_path: Path) -> None:
        """Its latency is known, its time to the first token is not."""
        made = plan([exact("1")], "a@p")
        whole = Plan(prompts=made.prompts, entries=(replace(made.entries[0], stream=False),))
        done, oracle = await run_with(right, whole, tmp_path)
        assert [question.body["stream"] for question in oracle.questions] == [False]
        (row,) = outcome_rows(labels(whole, done.ledger))
        assert row.ttft_s is None
        assert row.latency_s is not None


class TestFailures:
    """What goes wrong."""

    async def test_what_fails_for_a_moment_is_tried_again(self, tmp_path: Path) -> None:
        """Server errors are retried after a growing pause, and the answer counts as any other."""
        made = plan([exact("1")], "a@p")
        done, oracle = await run_with(replying(Reply(status=500), Reply(status=503), Reply("1")), made, tmp_path)
        assert len(oracle.questions) == 3
        assert done.time.slept_s == [1.0, 2.0]
        assert qualities(made, done.ledger) == {("p1", "a@p"): 1.0}

    async def test_an_outage_is_no_quality(self, tmp_path: Path) -> None:
        """A call that fails to the end has no label, is listed with the reason, and is asked again by the next run."""
        made = plan([exact("1"), exact("1")], "a@p", "b@q")
        done, oracle = await run_with(by_model(b=replying(Reply(status=500))), made, tmp_path)
        assert qualities(made, done.ledger) == {("p1", "a@p"): 1.0, ("p2", "a@p"): 1.0}
        assert done.reasons() == [("p1", "b@q", Reason.CALL_FAILED), ("p2", "b@q", Reason.CALL_FAILED)]
        assert {missing.detail for missing in done.missing} == {"b@q: the provider answered HTTP 500 (refused)"}
        assert [count for (model, _), count in oracle.counts.items() if model == "b"] == [3, 3]
        done, oracle = await run_with(right, made, tmp_path)
        assert {model for model, _ in oracle.counts} == {"b"}
        assert len(qualities(made, done.ledger)) == 4

    async def test_a_rate_limit_is_waited_for_as_long_as_it_says(self, tmp_path: Path) -> None:
        """Retry-After holds for every call of the endpoint, counts as no attempt, and stops no other endpoint."""
        made = plan([exact("1")] * 2, "a@p", "b@q")
        limited = replying(*[Reply(status=429, headers=(("retry-after", "17"),))] * 5, Reply("1"))
        done, oracle = await run_with(by_model(a=limited), made, tmp_path, attempt_count_max=1)
        assert len(qualities(made, done.ledger)) == 4
        assert [count for (model, _), count in oracle.counts.items() if model == "b"] == [1, 1]
        assert {name for name, _ in done.time.paused} == {"a@p"}
        assert min(done.time.paused_for("a@p")) >= 17.0
        assert done.time.now_s >= 5 * 17.0

    async def test_a_quota_is_not_waited_for_for_ever(self, tmp_path: Path) -> None:
        """A call that is refused for a quarter of an hour gives up, whatever the provider promises."""
        made = plan([exact("1")], "a@p")
        done, oracle = await run_with(replying(Reply(status=429, headers=(("retry-after", "300"),))), made, tmp_path)
        assert done.reasons() == [("p1", "a@p", Reason.CALL_FAILED)]
        assert len(oracle.questions) == RATE_LIMITED_WAIT_S_MAX // 300 + 1

    async def test_what_is_refused_is_not_asked_again(self, tmp_path: Path) -> None:
        """A request that the provider calls wrong fails at once, and no other with it."""
        made = plan([exact("1", prompt="bad"), exact("1", prompt="good")], "a@p")
        done, oracle = await run_with(by_prompt(bad=Reply(status=400), other=Reply("1")), made, tmp_path)
        assert oracle.counts == {("a", "bad"): 1, ("a", "good"): 1}
        assert done.reasons() == [("p1", "a@p", Reason.CALL_FAILED)]

    async def test_a_wrong_key_ends_an_endpoint_at_once(self, tmp_path: Path) -> None:
        """Only what was under way by then is asked; the rest is listed as not asked."""
        made = plan([exact("1")] * 20, "a@p")
        done, oracle = await run_with(replying(Reply(status=401)), made, tmp_path)
        assert len(oracle.questions) <= CONCURRENCY
        assert Counter(missing.reason for missing in done.missing) == {
            Reason.CALL_FAILED: len(oracle.questions),
            Reason.GIVEN_UP: 20 - len(oracle.questions),
        }
        assert done.time.finished_count == 20

    async def test_an_endpoint_that_does_nothing_but_fail_is_given_up(self, tmp_path: Path) -> None:
        """After ten calls in a row; one answer among them starts the count anew."""
        made = plan([exact("1")] * 40, "a@p")
        _, oracle = await run_with(replying(Reply(status=404)), made, tmp_path)
        assert FAILURE_STREAK_MAX <= len(oracle.questions) < FAILURE_STREAK_MAX + CONCURRENCY
        lines = [exact("1", prompt="good" if number == 8 else "bad") for number in range(17)]
        mixed = by_prompt(good=Reply("1"), other=Reply(status=404))
        _, oracle = await run_with(mixed, plan(lines, "a@p"), tmp_path / "mixed")
        assert len(oracle.questions) == 17

    async def test_an_endpoint_that_is_paused_holds_up_no_other(self, tmp_path: Path) -> None:
        """Not even at the same provider, and with more prompts than it has slots."""
        made = plan([exact("1")] * 4 * CONCURRENCY, "a@p", "b@p")
        time = Time()
        # While one endpoint is paused nobody sleeps to the end of the pause before the other has answered everything.
        limited = by_model(a=replying(Reply(status=429, headers=(("retry-after", "17"),)), Reply("1")))
        async with Oracle(limited) as oracle:

            async def sleep(wait_s: float) -> None:
                await oracle.asked_of("b", len(made.prompts))
                await Time.sleep(time, wait_s)

            await run(made, tmp_path, {"p": oracle.base_url}, time=time, sleep=sleep)
            assert oracle.counts == {("a", p.text): 2 for p in made.prompts} | {("b", p.text): 1 for p in made.prompts}

    async def test_an_attempt_has_a_deadline(self, tmp_path: Path) -> None:
        """A provider that never answers fails the call once its time is up, as often as it is tried."""
        made = plan([exact("1")], "a@p")
        async with Oracle(lambda _: None) as oracle:
            done = await run(made, tmp_path, {"p": oracle.base_url}, attempt_count_max=2, timeout_s=0.05)
            assert len(oracle.questions) == 2
        assert [missing.detail for missing in done.missing] == ["a@p: the provider did not answer before the deadline"]
        # Twice 7 tokens in: the provider may have worked on it, and a budget must not be blind to that.
        assert done.ledger.spent_usd == pytest.approx(14e-6)

    async def test_what_broke_midway_is_paid_for_and_no_answer(self, tmp_path: Path) -> None:
        """The text that came counts as spent in vain; it is neither scored nor taken for the answer later."""
        made = plan([exact("half")], "a@p")
        script = (ReadRequest(), Send(stream_head()), Send(delta_event("half")), Reset())
        async with ScriptedUpstream(script) as upstream:
            done = await run(made, tmp_path, {"p": upstream.base_url}, attempt_count_max=2)
        assert done.reasons() == [("p1", "a@p", Reason.CALL_FAILED)]
        # Twice 7 tokens in and 1 out.
        assert done.ledger.spent_usd == done.ledger.failed_usd == pytest.approx(16e-6)
        assert labels(made, done.ledger) == ()
        _, oracle = await run_with(right, made, tmp_path)
        assert len(oracle.questions) == 1

    async def test_a_limited_provider_answers_everything_in_the_end(self, tmp_path: Path) -> None:
        """The simulated provider's rate limit, with the Retry-After that it sends, delays answers and loses none."""
        made = plan([exact("1")] * 12, "a@p")
        time = Time()
        weather = ProviderWeather(
            name="p",
            endpoints=(
                EndpointWeather(
                    model="a",
                    ttft_s=Duration(median_s=0.1, sigma=0.0),
                    inter_token_latency_s=Duration(median_s=0.01, sigma=0.0),
                    rate_limit=RateLimit(requests_per_s=0.1, burst=1),
                    output_token_count_mean=3.0,
                ),
            ),
        )
        async with SimulatedProviders((weather,), seed=1, clock_s=time.clock_s, sleep=time.sleep) as simulated:
            done = await run(made, tmp_path, {"p": simulated.base_url("p")}, attempt_count_max=1, time=time)
        assert done.missing == ()
        assert len(done.ledger.answered) == 12
        assert done.time.paused


class TestBudget:
    """What may be spent."""

    @pytest.mark.parametrize("call_count", [0, 1, 5, 12])
    async def test_no_call_starts_that_might_exceed_the_budget(self, tmp_path: Path, call_count: int) -> None:
        """With money for so many calls and less than the most that another can cost, exactly so many are made, however many
        run side by side; more money makes the rest, and none of them twice."""
        made = plan([exact("1")] * 8, "a@p", "b@q", sampling=SamplingOptions(output_token_count_max=10))
        answer = replying(Reply("1", usage={"prompt_tokens": 11, "completion_tokens": 9}))
        # A question is counted as 7 tokens, so it has at most 28; with 10 of the answer that is more than the 20 it costs.
        cost_usd, most_usd = 20e-6, 38e-6
        budget_usd = call_count * cost_usd + 0.9 * most_usd
        done, oracle = await run_with(answer, made, tmp_path, budget_usd=budget_usd)
        assert len(oracle.questions) == call_count
        assert done.ledger.spent_usd == pytest.approx(call_count * cost_usd)
        assert Counter(missing.reason for missing in done.missing) == {Reason.OVER_BUDGET: 16 - call_count}
        done, again = await run_with(answer, made, tmp_path, budget_usd=1.0)
        assert done.missing == ()
        assert set((oracle.counts + again.counts).values()) == {1}

    async def test_the_budget_holds_whatever_calls_cost(self, tmp_path: Path) -> None:
        """As long as a provider counts no more than there can be, what is spent stays within the budget, the judge's part
        included, over any number of runs."""
        made = plan([{"score": "judge"}] * 10, "a@p", judge=entry("j@q", output_token_count_max=50))
        usage = {"prompt_tokens": 11, "completion_tokens": 9}
        verdict = Reply('{"reason": "", "grade": 7}', usage=usage)
        answer = by_model(a=replying(Reply("1", usage=usage)), j=replying(verdict))
        spent: list[float] = []
        for budget_usd in (0.0, 0.002, 0.01, 0.01, 1.0):
            done, _ = await run_with(answer, made, tmp_path, budget_usd=budget_usd)
            assert done.ledger.spent_usd <= max(budget_usd, *spent, 0.0)
            spent.append(done.ledger.spent_usd)
        assert spent[0] == 0.0
        assert done.missing == ()
        assert spent[-1] == pytest.approx(20 * 20e-6)

    async def test_a_cheaper_endpoint_goes_on_where_a_dear_one_stops(self, tmp_path: Path) -> None:
        """What does not fit any more is left out, what still fits is asked."""
        made = plan([exact("1")] * 5, "a@p")
        made = Plan(prompts=made.prompts, entries=(entry("dear@p", price=1000.0), *made.entries))
        done, oracle = await run_with(right, made, tmp_path, budget_usd=0.5)
        assert {model for model, _ in oracle.counts} == {"a"}
        assert {missing.endpoint_name for missing in done.missing} == {"dear@p"}


def _graded(grade: int, *, first_bonus: int = 0) -> Answer:
    """An oracle that answers prompts with 1, and judges: this grade for everything, and more for what stands first."""

    def answer(question: Question) -> Reply:
        if question.model != "j":
            return Reply(f"{question.model} says 1")
        shown = json.loads(question.prompt)
        if "answer" in shown:
            return Reply(json.dumps({"reason": "so", "grade": grade}))
        return Reply(json.dumps({"reason": "so", "first": grade + first_bonus, "second": grade}))

    return answer


class TestJudge:
    """Verdicts."""

    async def test_a_pair_is_judged_in_both_orders(self, tmp_path: Path) -> None:
        """Each answer is shown once before and once after the baseline, so that a judge who favours the first place
        favours nobody."""
        made = plan([{"score": "pairwise"}] * 4, "a@p", "b@q", "z@r", judge=entry("j@s"), baseline="z@r")
        done, oracle = await run_with(_graded(4, first_bonus=4), made, tmp_path)
        shown = Counter(
            (document["prompt"], document["first_answer"], document["second_answer"])
            for document in (json.loads(question.prompt) for question in oracle.questions if question.model == "j")
        )
        assert shown == {
            pair: 1
            for number in range(1, 5)
            for model in "ab"
            for pair in (
                (f"Question {number}?", f"{model} says 1", "z says 1"),
                (f"Question {number}?", "z says 1", f"{model} says 1"),
            )
        }
        assert list(qualities(made, done.ledger).values()) == [pytest.approx(5 / 9)] * 12
        assert done.time.finished_count == 12
        _, oracle = await run_with(_graded(4), made, tmp_path)
        assert oracle.questions == []

    async def test_a_new_rubric_or_reference_buys_verdicts_and_no_answers(self, tmp_path: Path) -> None:
        """What is judged otherwise is judged anew, from the answers that are there."""
        made = plan([{"score": "judge"}] * 3, "a@p", judge=entry("j@q"))
        await run_with(_graded(4), made, tmp_path)
        changed = plan([{"score": "judge", "expected": "1"}] * 3, "a@p", judge=entry("j@q"))
        done, oracle = await run_with(_graded(10), changed, tmp_path)
        assert [question.model for question in oracle.questions] == ["j"] * 3
        assert set(qualities(changed, done.ledger).values()) == {1.0}

    async def test_an_unreadable_verdict_is_asked_for_again_within_bounds(self, tmp_path: Path) -> None:
        """It is paid for, counted, listed, and never a quality; the next run asks the judge alone."""
        made = plan([{"score": "judge"}], "a@p", judge=entry("j@q"))
        done, oracle = await run_with(by_model(j=replying(Reply("seven of ten"))), made, tmp_path)
        assert Counter(question.model for question in oracle.questions) == {"a": 1, "j": VERDICT_ATTEMPT_COUNT_MAX}
        assert done.reasons() == [("p1", "a@p", Reason.UNREADABLE_VERDICT)]
        assert done.ledger.unreadable_verdict_count == VERDICT_ATTEMPT_COUNT_MAX
        assert done.ledger.judge_usd == pytest.approx(VERDICT_ATTEMPT_COUNT_MAX * COST_USD)
        assert labels(made, done.ledger) == ()
        done, oracle = await run_with(_graded(10), made, tmp_path)
        assert [question.model for question in oracle.questions] == ["j"]
        assert qualities(made, done.ledger) == {("p1", "a@p"): 1.0}

    async def test_one_order_alone_is_not_paid_for(self, tmp_path: Path) -> None:
        """Where the judge can't be read in one order, the other is not asked for: it would be no label."""
        made = plan([{"score": "pairwise", "baseline": "0"}], "a@p", judge=entry("j@q"))
        done, oracle = await run_with(by_model(j=replying(Reply("hm"))), made, tmp_path)
        asked = [json.loads(question.prompt) for question in oracle.questions if question.model == "j"]
        assert [document["second_answer"] for document in asked] == ["0"] * VERDICT_ATTEMPT_COUNT_MAX
        assert done.reasons() == [("p1", "a@p", Reason.UNREADABLE_VERDICT)]

    async def test_one_clear_verdict_after_a_vague_one_is_enough(self, tmp_path: Path) -> None:
        """A judge that comes to the point at the second try gives a label."""
        made = plan([{"score": "judge"}], "a@p", judge=entry("j@q"))
        judge = replying(Reply("hm"), Reply('{"reason": "", "grade": 10}'))
        done, _ = await run_with(by_model(j=judge), made, tmp_path)
        assert (done.missing, done.ledger.unreadable_verdict_count) == ((), 1)
        assert qualities(made, done.ledger) == {("p1", "a@p"): 1.0}

    async def test_a_baseline_that_is_not_labelled_is_asked_for_comparisons_alone(self, tmp_path: Path) -> None:
        """The others answer everything, whichever endpoints there are beside them."""
        lines = [exact("1"), {"score": "judge"}, {"score": "pairwise"}, {"score": "pairwise", "baseline": "0"}]
        made = plan(lines, "a@p", "b@p", judge=entry("j@q"), baseline="z@r")
        done, oracle = await run_with(_graded(7), made, tmp_path)
        assert Counter(question.model for question in oracle.questions) == {"a": 4, "b": 4, "z": 1, "j": 2 + 4 + 4}
        assert len(qualities(made, done.ledger)) == 8
        assert done.time.finished_count == 9

    async def test_without_its_baseline_an_answer_has_no_label(self, tmp_path: Path) -> None:
        """It is listed, kept, and judged once the baseline is there."""
        made = plan([{"score": "pairwise"}] * 2, "a@p", judge=entry("j@q"), baseline="z@r")
        broken = by_model(z=replying(Reply(status=400)), j=_graded(7))
        done, oracle = await run_with(broken, made, tmp_path)
        assert [question.model for question in oracle.questions].count("j") == 0
        assert Counter(missing.reason for missing in done.missing) == {Reason.CALL_FAILED: 2, Reason.NO_BASELINE: 2}
        assert done.time.finished_count == 4
        done, oracle = await run_with(_graded(7), made, tmp_path)
        assert Counter(question.model for question in oracle.questions) == {"z": 2, "j": 4}
        assert done.missing == ()

    async def test_nothing_is_bought_that_nobody_can_judge(self, tmp_path: Path) -> None:
        """Once the judge is out, prompts that need one are left alone, and others go on."""
        lines: list[dict[str, object]] = [{"score": "judge"} for _ in range(30)]
        lines.append(exact("1"))
        made = plan(lines, "a@p", judge=entry("j@q"))
        done, oracle = await run_with(by_model(j=replying(Reply(status=401))), made, tmp_path)
        asked = [question.prompt for question in oracle.questions if question.model == "a"]
        assert len(asked) < 30
        assert "Question 31?" in asked
        assert qualities(made, done.ledger) == {("p31", "a@p"): 1.0}
        assert len({missing.prompt_id for missing in done.missing}) == 30

    async def test_what_has_been_judged_stays_so_when_the_judge_is_out(self, tmp_path: Path) -> None:
        """Labels that are there are not listed as missing because others can't be had."""
        await run_with(_graded(7), plan([{"score": "judge"}] * 3, "a@p", judge=entry("j@q")), tmp_path)
        more = plan([*[{"score": "judge"}] * 3, {"score": "judge", "prompt": "New?"}], "a@p", judge=entry("j@q"))
        backwards = replace(more, prompts=more.prompts[::-1])
        done, _ = await run_with(by_model(j=replying(Reply(status=401))), backwards, tmp_path)
        assert len(qualities(backwards, done.ledger)) == 3
        assert done.reasons() == [("p4", "a@p", Reason.CALL_FAILED)]


async def test_a_journal_that_cant_be_written_ends_the_run(tmp_path: Path) -> None:
    """Nothing more is bought once answers can't be kept."""
    made = plan([exact("1")] * 20, "a@p")
    (tmp_path / "read-only").touch()
    descriptor = os.open(tmp_path / "read-only", os.O_RDONLY)
    async with Oracle(right) as oracle:
        with pytest.raises(OSError, match="Bad file descriptor"):
            await run(made, tmp_path, {"p": oracle.base_url}, journal=Journal(descriptor, Ledger()))
        assert 1 <= len(oracle.questions) <= CONCURRENCY
    os.close(descriptor)
