"""Decides again what was decided: by the same input, or by another router in the place of the one that was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pointsman_server.decision.decide import decide
from pointsman_server.decision.resolve import KnownNames, NamedRouter, resolve, with_stand_in
from pointsman_server.decision.router_string import RouterAlternative, RouterString
from pointsman_server.decision.types import Candidate, Decision, DecisionInput, Endpoint
from pointsman_server.decision_log.codec import decision_bytes
from pointsman_server.decision_log.records import LoggedDecision, Setting
from pointsman_server.errors import InvalidRequestError
from pointsman_server.quality.model import QualityModel

DIFFERENCE_COUNT_MAX = 8
"""Of one decision; whoever sees as many knows that all is different."""
_TOLD = (*(name for name in Candidate._fields if name not in {"columns", "row"}), "terms")
"""What a candidate tells; where its terms are kept is no part of that."""
NO_WISHES = RouterAlternative(head="")


def differences(logged: LoggedDecision) -> tuple[str, ...]:
    """What is different when the logged input is decided again; empty where the bytes are the same."""
    given, was = logged.given, logged.decision
    now = decide(given)
    if decision_bytes(given, now) == decision_bytes(given, was):
        return ()
    found = [
        f"{name} was {before}, is {after}"
        for name, before, after in (
            ("endpoint", _chosen_name(was), _chosen_name(now)),
            ("reason", was.reason, now.reason),
        )
        if before != after
    ]
    found += _candidate_differences(was.candidates, now.candidates)
    return tuple(found[:DIFFERENCE_COUNT_MAX]) or ("the order of the candidates, or their relaxations",)


def _chosen_name(decision: Decision) -> str:
    return "nobody" if decision.chosen is None else decision.chosen.endpoint.name


def _candidate_differences(was: Iterable[Candidate], now: Iterable[Candidate]) -> list[str]:
    """The fields of each candidate that differ."""
    after = {candidate.endpoint.name: candidate for candidate in now}
    found = []
    for before in was:
        other = after.get(before.endpoint.name)
        if other is None:
            found.append(f"{before.endpoint.name} is no candidate any more")
            continue
        for name in _TOLD:
            one, two = getattr(before, name), getattr(other, name)
            if one != two:
                found.append(f"{name} of {before.endpoint.name} was {_short(one)}, is {_short(two)}")
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenger:
    """Another router, in the place of whatever router a request asked for.

    Without a configuration of its own it decides among the endpoints of the log, by the qualities that were predicted.
    """

    router: RouterString
    """What it is, in terms of `routers`."""
    routers: Mapping[str, NamedRouter] | None = None
    """The named routers of its configuration; None: those of the log."""
    endpoints: tuple[Endpoint, ...] | None = None
    """Its catalog; None: that of the log."""
    quality_names: Mapping[str, str] | None = None
    """As quality models know the models of its catalog; None: as in the log."""
    quality: QualityModel | None = None
    """Its own quality model; None: the predictions of the log."""
    quality_artifact: str = ""
    """What that was loaded from, `name@version`; what the log has of the same one is not predicted anew."""


class ChallengerDecisions:
    """The decisions of a challenger. `stale_prediction_count` counts those that had to rest on the log's predictions for
    want of the prompt."""

    def __init__(self, challenger: Challenger) -> None:
        self.stale_prediction_count = 0
        self._challenger = challenger
        self._resolved: dict[int, tuple[Setting, NamedRouter, Mapping[str, NamedRouter], KnownNames]] = {}

    def decide(self, logged: LoggedDecision) -> Decision:
        """What it would have decided on the same request, in the same runtime state, by the same seed.

        Raises:
            InvalidRequestError: the challenger names what is not there.
        """
        router, routers, known = self._of(logged.setting)
        endpoints = self._challenger.endpoints or logged.setting.endpoints
        given = self._with_qualities(logged)._replace(endpoints=endpoints, exploration=router.exploration)
        return decide(standing_in(given, router, logged=logged, routers=routers, known=known))

    def _of(self, setting: Setting) -> tuple[NamedRouter, Mapping[str, NamedRouter], KnownNames]:
        """The challenger in terms of a setting, which is the same object for many decisions."""
        found = self._resolved.get(id(setting))
        if found is None:
            routers = self._challenger.routers or setting.routers
            known = KnownNames.of(self._challenger.endpoints or setting.endpoints)
            resolved = resolve(self._challenger.router, NO_WISHES, routers=routers, known=known)
            router = NamedRouter(resolved.router.name, resolved.alternatives, resolved.router.exploration)
            found = self._resolved[id(setting)] = (setting, router, routers, known)
        return found[1:]

    def _with_qualities(self, logged: LoggedDecision) -> DecisionInput:
        model, names = self._challenger.quality, self._challenger.quality_names or logged.setting.quality_names
        predicted_alike = self._challenger.quality_artifact == logged.given.quality_artifact
        if model is None or (predicted_alike and names.keys() <= logged.setting.quality_names.keys()):
            return logged.given
        if logged.prompt.text is None:
            self.stale_prediction_count += 1
            return logged.given
        found = model.predict(logged.prompt.text, tuple(names.values()))
        qualities = {name: found[known_as] for name, known_as in names.items() if known_as in found}
        return logged.given._replace(qualities=qualities, risk_table=model.risk_table)


def standing_in(
    given: DecisionInput,
    router: NamedRouter,
    *,
    logged: LoggedDecision,
    routers: Mapping[str, NamedRouter],
    known: KnownNames,
) -> DecisionInput:
    """`given`, with what the request is decided by where `router` stands in for the router that it asked for.

    Where the caller's wishes and that router have nothing in common no endpoint is left, as for a shadow.
    """
    asked_name = logged.given.assignment.asked_name
    places = with_stand_in({**routers, router.name: router}, asked_name=asked_name, name=router.name)
    try:
        resolved = resolve(logged.asked, logged.overlay, routers=places, known=known)
    except InvalidRequestError:
        return given._replace(endpoints=())
    return given._replace(alternatives=resolved.alternatives)


def logging_probabilities(logged: LoggedDecision) -> tuple[dict[str, float], bool]:
    """With what probability each endpoint was chosen, given all but the seed; and whether that is so for certain.

    A request of a split router might have been decided by each of its arms, so its probabilities are those of the arms
    together. An arm with a quality model of its own would have predicted otherwise than the log tells: then those of the
    arm that did decide are taken by themselves, which is right too, and tells less.
    """
    given, decision = logged.given, logged.decision
    acting = _probabilities(decision)
    asked_name = given.assignment.split_name
    split_router = logged.setting.routers.get(asked_name)
    if split_router is None or not split_router.split:
        return acting, not asked_name
    arms = {arm.router_name: arm.share for arm in split_router.split}
    arms[asked_name] = arms.get(asked_name, 0.0) + max(0.0, 1.0 - sum(arms.values()))
    artifacts = logged.setting.artifacts
    if any(artifacts.get(name) != given.quality_artifact or name not in logged.setting.routers for name in arms):
        return acting, False
    known = KnownNames.of(given.endpoints)
    together: dict[str, float] = {}
    for name, share in arms.items():
        probabilities = acting
        if name != given.router_name:
            router = logged.setting.routers[name]
            own = given._replace(exploration=router.exploration)
            own = standing_in(own, router, logged=logged, routers=logged.setting.routers, known=known)
            probabilities = _probabilities(decide(own))
        for endpoint_name, probability in probabilities.items():
            together[endpoint_name] = together.get(endpoint_name, 0.0) + share * probability
    return together, True


def _probabilities(decision: Decision) -> dict[str, float]:
    """Of each endpoint that may be chosen."""
    return {
        candidate.endpoint.name: candidate.probability for candidate in decision.candidates if candidate.probability
    }
