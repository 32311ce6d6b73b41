"""Which calls a benchmark takes, which of them are still missing, and what those will cost. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pointsman_server.catalog.catalog import CatalogEntry
from pointsman_server.chat import Conversation, SamplingOptions
from pointsman_server.decision.cost import cost_usd
from pointsman_server.decision.facts import BYTES_PER_TOKEN, request_facts
from pointsman_server.labelling.errors import LabellingError
from pointsman_server.labelling.judge import Exhibit, Place, judge_conversation
from pointsman_server.labelling.prompts import LabelledPrompt
from pointsman_server.labelling.records import Answered, CallKey, Ledger, Purpose, digest_of
from pointsman_server.labelling.scoring import Compared, Judged

OUTPUT_TOKEN_COUNT_ASSUMED = 400
"""Length of an answer, for the estimate alone, unless the caller knows better: the mean over chat and chain-of-thought
prompts of public sets is 200 to 600."""
VERDICT_TOKEN_COUNT_ASSUMED = 100
"""Length of a verdict, for the estimate: two sentences and the grades."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be labelled: every prompt by every endpoint."""

    prompts: tuple[LabelledPrompt, ...] = field(repr=False)
    entries: tuple[CatalogEntry, ...]
    judge: CatalogEntry | None = None
    baseline: CatalogEntry | None = None
    """Whose answers others are compared with."""
    sampling: SamplingOptions = SamplingOptions()
    """Of the answers: temperature, and the longest answer."""
    judge_temperature: float | None = None

    @property
    def answering(self) -> tuple[CatalogEntry, ...]:
        """The endpoints that are asked the prompts: those that are labelled, and the baseline."""
        extra = () if self.baseline is None or self.baseline in self.entries else (self.baseline,)
        return (*self.entries, *extra)

    def asks(self, prompt: LabelledPrompt, entry: CatalogEntry) -> bool:
        """Whether this endpoint's answer to this prompt is needed: a baseline that is not labelled itself is asked only
        what others are compared by."""
        return entry in self.entries or prompt.rule == Compared(None)


@dataclass(frozen=True, slots=True)
class Call:
    """One call that may have to be made."""

    key: CallKey
    entry: CatalogEntry
    conversation: Conversation = field(repr=False)


def answer_call(plan: Plan, prompt: LabelledPrompt, entry: CatalogEntry) -> Call:
    """The call that gets an endpoint's answer to a prompt."""
    conversation = Conversation(prompt.messages, sampling=plan.sampling)
    name = entry.endpoint.name
    digest = digest_of(conversation, upstream_model=entry.upstream_model)
    return Call(CallKey(Purpose.ANSWER, prompt.prompt_id, name, name, digest), entry, conversation)


def verdict_calls(
    plan: Plan, prompt: LabelledPrompt, entry: CatalogEntry, *, answer: str, baseline_answer: str | None
) -> tuple[Call, ...]:
    """The calls that get the verdicts on an endpoint's answer: one, or one for either order; none where no judge is
    needed, or where the answer is the baseline itself.

    Args:
        plan: What is to be labelled.
        prompt: What was answered.
        entry: Whose answer it is.
        answer: The answer.
        baseline_answer: That of the baseline endpoint; None where there is none.
    """
    match prompt.rule:
        case Judged(reference):
            exhibits = [Exhibit(prompt.messages, answer, Place.ALONE, reference)]
        case Compared(baseline):
            other = baseline_answer if baseline is None else baseline
            if other is None or (baseline is None and entry == plan.baseline):
                return ()
            exhibits = [Exhibit(prompt.messages, answer, place, other) for place in (Place.FIRST, Place.SECOND)]
        case _:
            return ()
    return tuple(_verdict_call(plan, prompt, entry, exhibit) for exhibit in exhibits)


def _verdict_call(plan: Plan, prompt: LabelledPrompt, entry: CatalogEntry, exhibit: Exhibit) -> Call:
    judge = plan.judge
    assert judge is not None, "a prompt file that needs a judge is refused without one"
    conversation = judge_conversation(
        exhibit, capabilities=judge.endpoint.capabilities, temperature=plan.judge_temperature
    )
    digest = digest_of(conversation, upstream_model=judge.upstream_model)
    purpose = Purpose.of_verdict(exhibit.place)
    return Call(
        CallKey(purpose, prompt.prompt_id, judge.endpoint.name, entry.endpoint.name, digest), judge, conversation
    )


def cost_usd_max(call: Call) -> float | None:
    """The most that a call can cost; None where a price or the longest answer is unknown.

    A token is at least a byte of text, so the bytes are an upper bound of the input. The output is bounded by the limit
    that is sent, or else by the catalog's.
    """
    facts = request_facts(call.conversation)
    limits = (facts.output_token_count_max, call.entry.endpoint.output_token_count_max)
    known = [limit for limit in limits if limit is not None]
    if not known:
        return None
    return cost_usd(
        call.entry.endpoint,
        input_token_count=facts.input_token_count * BYTES_PER_TOKEN,
        output_token_count=min(known),
    )


def check_budget_can_hold(plan: Plan) -> None:
    """Checks that of each endpoint it is known what a call can cost at most, without which no budget can be held.

    Raises:
        LabellingError: it is not known of one; the text says what is missing.
    """
    for entry in (*plan.answering, *(() if plan.judge is None else (plan.judge,))):
        endpoint = entry.endpoint
        if endpoint.input_price_usd_per_mtok is None or endpoint.output_price_usd_per_mtok is None:
            raise LabellingError(
                f"--budget-usd can't be held: the price of {endpoint.name} is unknown;"
                " give its input_price_usd_per_mtok and output_price_usd_per_mtok in the configuration"
            )
        if endpoint.output_token_count_max is None and plan.sampling.output_token_count_max is None:
            raise LabellingError(
                f"--budget-usd can't be held: how long an answer of {endpoint.name} can be is unknown;"
                " give --output-tokens-max, or its output_token_count_max in the configuration"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointEstimate:
    """What is still to be asked of one endpoint, and what that is likely to cost."""

    endpoint_name: str
    is_judge: bool
    call_count: int
    input_token_count: int
    """Estimated from the text, as every decision does."""
    cost_usd: float | None
    """None where a price is unknown."""


def estimates(
    plan: Plan, ledger: Ledger, *, output_token_count: int = OUTPUT_TOKEN_COUNT_ASSUMED
) -> tuple[EndpointEstimate, ...]:
    """What is missing of each endpoint, and the judge's part last; endpoints of which nothing is missing are left out.

    Args:
        plan: What is to be labelled.
        ledger: What has been paid for.
        output_token_count: The assumed length of an answer that is not there yet, within the limit that is sent.
    """
    assumed = min(output_token_count, plan.sampling.output_token_count_max or output_token_count)
    found = [
        _estimate(entry, list(_missing_answers(plan, ledger, entry)), output_token_count=assumed, is_judge=False)
        for entry in plan.answering
    ]
    if plan.judge is not None:
        verdicts = list(_missing_verdicts(plan, ledger, stand_in=" " * (assumed * BYTES_PER_TOKEN)))
        found.append(_estimate(plan.judge, verdicts, output_token_count=VERDICT_TOKEN_COUNT_ASSUMED, is_judge=True))
    return tuple(estimate for estimate in found if estimate.call_count)


def _missing_answers(plan: Plan, ledger: Ledger, entry: CatalogEntry) -> Iterator[Call]:
    for prompt in plan.prompts:
        if plan.asks(prompt, entry):
            call = answer_call(plan, prompt, entry)
            if call.key not in ledger.answered:
                yield call


def _missing_verdicts(plan: Plan, ledger: Ledger, *, stand_in: str) -> Iterator[Call]:
    """Verdicts that are not there yet; answers that are not there yet have the length of `stand_in`."""

    def text(prompt: LabelledPrompt, entry: CatalogEntry) -> str:
        found = answer_of(plan, ledger, prompt, entry)
        return stand_in if found is None else found.text

    for prompt in plan.prompts:
        if not isinstance(prompt.rule, Judged | Compared):
            continue
        baseline_answer = None if plan.baseline is None else text(prompt, plan.baseline)
        for entry in plan.entries:
            calls = verdict_calls(plan, prompt, entry, answer=text(prompt, entry), baseline_answer=baseline_answer)
            yield from (call for call in calls if call.key not in ledger.answered)


def answer_of(plan: Plan, ledger: Ledger, prompt: LabelledPrompt, entry: CatalogEntry) -> Answered | None:
    """The endpoint's answer, if it has been paid for."""
    return ledger.answered.get(answer_call(plan, prompt, entry).key)


def _estimate(
    entry: CatalogEntry, calls: Sequence[Call], *, output_token_count: int, is_judge: bool
) -> EndpointEstimate:
    input_token_count = sum(request_facts(call.conversation).input_token_count for call in calls)
    return EndpointEstimate(
        endpoint_name=entry.endpoint.name,
        is_judge=is_judge,
        call_count=len(calls),
        input_token_count=input_token_count,
        cost_usd=cost_usd(
            entry.endpoint,
            input_token_count=input_token_count,
            output_token_count=len(calls) * output_token_count,
        ),
    )
