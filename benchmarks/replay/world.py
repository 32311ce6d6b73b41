"""A world in which the truth is known: endpoints whose quality, cost and speed on every request are given.

Requests come from a pool, drawn with replacement, so that what a router truly gives is a mean over the pool. Predictions
are wrong: biased for some models and noisy for all. Decisions are real ones, by `decide`, on seeds of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pointsman_server.decision.cost import cost_usd
from pointsman_server.decision.decide import decide
from pointsman_server.decision.resolve import NamedRouter
from pointsman_server.decision.router_string import RouterAlternative, parse_router_string
from pointsman_server.decision.types import (
    Decision,
    DecisionInput,
    Endpoint,
    EndpointRuntime,
    Exploration,
    Latency,
    Policy,
    QualityPrediction,
    RequestFacts,
    RuntimeSnapshot,
)
from pointsman_server.decision_log.reader import LoggedRequest
from pointsman_server.decision_log.records import (
    CompletionResult,
    LoggedAttempt,
    LoggedCompletion,
    LoggedDecision,
    LoggedReport,
    PromptTraits,
    Setting,
)
from pointsman_server.replay.again import Challenger, ChallengerDecisions
from pointsman_server.replay.evidence import Outcome

CHALLENGER = "router@q:1|rc:60|ttft:1e-5"
"""It minds money more than the one that runs, and never ran."""
WIDE = Exploration(rate=0.0, near_tie_width=1.0)
"""The chance of the router that runs: near-ties as wide as the utility scale, so that all but dominated ones are tried."""
NOW_UNIX_S = 1764133042.0
_PRICES = {"large": (5.0, 15.0), "medium": (1.0, 3.0), "small": (0.1, 0.3)}
_ABILITY = {"large": 1.6, "medium": 0.9, "small": 0.0}
"""Log-odds of a good answer to a request of middling difficulty."""
_BIAS = {"large": 0.5, "medium": -0.4, "small": 0.6}
"""Of the predictions, log-odds: they rank the models wrongly for some requests."""
_TOKENS = {"large": 400.0, "medium": 250.0, "small": 150.0}
_TTFT_S = {"north": 0.4, "south": 0.25}
_FAILURE_RATE = {"north": 0.01, "south": 0.05}


@dataclass(frozen=True, slots=True)
class Truth:
    """Of one request at one endpoint."""

    quality: float
    """Probability of a good answer."""
    token_count: float
    """Mean length of an answer, which is geometric."""
    ttft_s: float
    """Median; its logarithm is normal."""
    failure_rate: float


TTFT_SPREAD = 0.5
"""Standard deviation of the log of a time to first token."""


@dataclass(frozen=True, slots=True)
class Request:
    """One of the pool."""

    given: DecisionInput
    truths: dict[str, Truth]
    """By endpoint."""


@dataclass(frozen=True, slots=True)
class World:
    """The pool, with what both routers would do on each of it."""

    requests: tuple[Request, ...]
    setting: Setting
    challenges: tuple[Decision, ...]
    """What the challenger decides; only its choice depends on the seed, not its probabilities."""

    def truth(self, outcome: Outcome) -> float:
        """What the challenger gives, on the mean over the pool."""
        pairs = zip(self.requests, self.challenges, strict=True)
        return float(np.mean([_value_of(request, decision, outcome) for request, decision in pairs]))


def made_world(*, pool_count: int, seed: int) -> World:
    """A world of so many requests."""
    rng = np.random.default_rng(seed)
    endpoints = tuple(Endpoint(model, provider, *_PRICES[model]) for model in _PRICES for provider in _TTFT_S)
    router = NamedRouter("default", (Policy(),), WIDE)
    setting = Setting(endpoints, {model: model for model in _PRICES}, {"default": router}, {"default": "virtual@1"})
    requests = tuple(_request(endpoints, rng) for _ in range(pool_count))
    challenger = ChallengerDecisions(Challenger(router=parse_router_string(CHALLENGER)))
    logs = (logged(request.given, setting, decide(request.given)) for request in requests)
    return World(requests, setting, tuple(challenger.decide(log) for log in logs))


def _request(endpoints: Sequence[Endpoint], rng: np.random.Generator) -> Request:
    difficulty, length = rng.normal(), float(np.exp(rng.normal(scale=0.5)))
    input_count = int(rng.integers(20, 2000))
    odds = {model: _ABILITY[model] - difficulty * (1.5 if model == "small" else 0.8) for model in _PRICES}
    runtimes, truths = {}, {}
    for endpoint in endpoints:
        ttft_s = _TTFT_S[endpoint.provider] * float(np.exp(rng.normal(scale=0.3)))
        truths[endpoint.name] = Truth(
            _logistic(odds[endpoint.model]), _TOKENS[endpoint.model] * length, ttft_s, _FAILURE_RATE[endpoint.provider]
        )
        guess = ttft_s * float(np.exp(rng.normal(scale=0.2)))
        latency = Latency(guess * 1.1, guess, guess * 1.9, guess * 2.3, guess * 3.2)
        gap = Latency(0.02, 0.018, 0.03, 0.04, 0.08)
        runtimes[endpoint.name] = EndpointRuntime(latency, gap, 0.02, age_s=float(rng.uniform(1.0, 60.0)))
    qualities = {
        model: QualityPrediction(
            _logistic(odds[model] + _BIAS[model] + rng.normal(scale=0.5)), 0.1, _TOKENS[model] * length * 0.8
        )
        for model in _PRICES
    }
    given = DecisionInput(
        decision_id="virtual",
        facts=RequestFacts(input_count),
        alternatives=(Policy(),),
        endpoints=tuple(endpoints),
        qualities=qualities,
        snapshot=RuntimeSnapshot(runtimes),
        seed=0,
        exploration=WIDE,
        router_version="virtual",
        quality_artifact="virtual@1",
    )
    return Request(given, truths)


def _logistic(odds: float) -> float:
    return float(1.0 / (1.0 + np.exp(-odds)))


def logged(given: DecisionInput, setting: Setting, decision: Decision) -> LoggedDecision:
    """The record of a decision."""
    return LoggedDecision(
        time_unix_s=NOW_UNIX_S,
        given=given,
        decision=decision,
        asked=parse_router_string(""),
        overlay=RouterAlternative(head=""),
        served=True,
        setting=setting,
        prompt=PromptTraits(100, (0.0,)),
    )


def drawn(world: World, *, count: int, rng: np.random.Generator) -> Iterator[tuple[LoggedRequest, Decision]]:
    """So many requests as the router that runs serves them, each with what the challenger would have decided."""
    for number, index in enumerate(rng.integers(len(world.requests), size=count)):
        request = world.requests[index]
        seed, decision_id = int(rng.integers(2**63)), f"{rng.integers(2**63):016x}{number:016x}"
        given = request.given._replace(seed=seed, decision_id=decision_id)
        decision = decide(given)
        yield outcome_of(request, logged(given, world.setting, decision), rng), world.challenges[index]


def outcome_of(request: Request, record: LoggedDecision, rng: np.random.Generator) -> LoggedRequest:
    """The request with what came of it, by the truth."""
    chosen = record.decision.chosen
    assert chosen is not None, "every endpoint is eligible"
    endpoint, truth = chosen.endpoint, request.truths[chosen.endpoint.name]
    failed = bool(rng.random() < truth.failure_rate)
    token_count = int(rng.geometric(1.0 / truth.token_count))
    input_count = record.given.facts.input_token_count
    cost = cost_usd(endpoint, input_token_count=input_count, output_token_count=token_count)
    ttft_s = truth.ttft_s * float(np.exp(rng.normal(scale=TTFT_SPREAD)))
    completion = LoggedCompletion(
        decision_id=record.decision_id,
        time_unix_s=NOW_UNIX_S,
        result=CompletionResult.EXHAUSTED if failed else CompletionResult.DONE,
        endpoint_name=None if failed else endpoint.name,
        ttft_s=ttft_s,
        duration_s=ttft_s + 0.02 * token_count,
        cost_usd=cost,
        attempt_count=1,
        attempts=(
            LoggedAttempt(
                number=1,
                endpoint_name=endpoint.name,
                input_token_count=input_count,
                output_token_count=token_count,
                cost_usd=cost,
            ),
        ),
    )
    report = LoggedReport(
        decision_id=record.decision_id,
        time_unix_s=NOW_UNIX_S,
        endpoint_name=endpoint.name,
        quality=float(rng.random() < truth.quality),
    )
    return LoggedRequest(record, completion, (report,))


def _value_of(request: Request, decision: Decision, outcome: Outcome) -> float:
    """The true mean of what a decision gives, over its own chance."""
    total = 0.0
    for candidate in decision.candidates:
        truth = request.truths[candidate.endpoint.name]
        match outcome:
            case Outcome.QUALITY:
                value = truth.quality
            case Outcome.COST:
                cost = cost_usd(
                    candidate.endpoint,
                    input_token_count=request.given.facts.input_token_count,
                    output_token_count=truth.token_count,
                )
                assert cost is not None, "every endpoint has a price"
                value = cost
            case Outcome.FAILED:
                value = truth.failure_rate
            case _:
                raise AssertionError(outcome)
        total += candidate.probability * value
    return total
