"""What the log holds, as its writer and its readers see it.

A decision, its completion and what callers report of it later are three records, so that each is on disk as soon as it
is known; the decision's id joins them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pointsman_server.decision.resolve import NamedRouter
from pointsman_server.decision.router_string import RouterAlternative, RouterString
from pointsman_server.decision.types import Decision, DecisionInput, Endpoint
from pointsman_server.errors import PointsmanError, UpstreamErrorKind


class DecisionLogError(PointsmanError):
    """A log can't be read, or does not hold what is asked for."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What was configured when decisions were made; the same object until a reload."""

    endpoints: tuple[Endpoint, ...]
    """The catalog."""
    quality_names: Mapping[str, str]
    """For each model of the catalog, the name by which quality models know it."""
    routers: Mapping[str, NamedRouter]
    """By name, as the decision knows them."""
    artifacts: Mapping[str, str]
    """Of each router, the quality artifact that it predicts by, `name@version`."""


@dataclass(frozen=True, slots=True)
class PromptTraits:
    """What is kept of a prompt. Its text is only where the operator has opted in."""

    character_count: int
    surface: tuple[float, ...]
    """Counts and shares of kinds of characters, in the order of `quality.features.SURFACE_NAMES`."""
    text: str | None = field(default=None, repr=False)
    """The beginning of it, as the quality model reads it; None: not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDecision:
    """A decision with all that it depended on: deciding on `given` again gives `decision`."""

    time_unix_s: float
    given: DecisionInput
    decision: Decision
    asked: RouterString
    """What the request named."""
    overlay: RouterAlternative
    """The caller's typed constraints and preferences; its head plays no part."""
    served: bool
    """Pointsman was to make the call itself."""
    setting: Setting
    prompt: PromptTraits
    caller_seeded: bool = False
    """The seed is the caller's own, so that chance had no part in the choice and its propensity says nothing."""

    @property
    def decision_id(self) -> str:
        """Of the decision."""
        return self.decision.decision_id


class CompletionResult(StrEnum):
    """How a completion ended."""

    DONE = "done"
    """The answer is complete."""
    EXHAUSTED = "exhausted"
    """Every attempt failed before anything was sent."""
    BROKEN = "broken"
    """The answer broke off after a part of it was sent."""
    DEADLINE = "deadline"
    """The caller's deadline passed."""
    LEFT = "left"
    """The caller left."""
    FAILED = "failed"
    """By a fault of the router."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedAttempt:
    """One upstream call that failed or used tokens."""

    number: int
    endpoint_name: str
    failure: UpstreamErrorKind | None = None
    input_token_count: int | None = None
    output_token_count: int | None = None
    cached_input_token_count: int | None = None
    """Of the input, what the provider had in its prompt cache; None where it did not say."""
    cost_usd: float | None = None
    """None when a price is unknown, or nothing was used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedCompletion:
    """What became of a decision that Pointsman carried out itself."""

    decision_id: str
    time_unix_s: float
    """Of its end."""
    result: CompletionResult
    endpoint_name: str | None = None
    """Who answered; None when nobody did."""
    ttft_s: float | None = None
    """From the arrival of the request; None without a token."""
    duration_s: float
    cost_usd: float | None = None
    """Of all attempts; None when a price is unknown."""
    attempt_count: int
    attempts: tuple[LoggedAttempt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedReport:
    """What a caller reported of a decision."""

    decision_id: str
    time_unix_s: float
    endpoint_name: str
    """Whose answer it is about."""
    ttft_s: float | None = None
    duration_s: float | None = None
    input_token_count: int | None = None
    output_token_count: int | None = None
    failure: UpstreamErrorKind | None = None
    quality: float | None = None
    """0..1; None when it was not judged."""
    quality_source: str = ""


Record = LoggedDecision | LoggedCompletion | LoggedReport
