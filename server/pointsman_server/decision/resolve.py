"""From what a caller names to what is decided by: router strings, named routers and the caller's own wishes merged.

A router's constraints always hold; the caller can add to them, never take away. A preference of the caller's replaces
the router's. Naming a model instead of a router leaves the default router's constraints behind, and keeps its
preference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches

from pointsman_server.decision.router_string import DEFAULT_HEAD, RouterAlternative, RouterString
from pointsman_server.decision.types import Arm, Endpoint, Exploration, Policy, SearchSpace
from pointsman_server.errors import FieldViolation, InvalidRequestError

UNKNOWN_NAME_COUNT_MAX = 100
"""A request with more unknown names gets the first hundred: enough to mend it by, and a bounded answer."""
HINT_COUNT_MAX = 3
"""Names for which similar ones are looked up, which takes up to a millisecond a thousand names of the catalog."""
SPACE_FIELDS = tuple(item.name for item in fields(SearchSpace))
DEFAULT_ROUTER_NAME = "default"
"""The router that serves requests which name none."""


@dataclass(frozen=True, slots=True)
class NamedRouter:
    """A router of the configuration."""

    name: str
    alternatives: tuple[Policy, ...] = (Policy(),)
    exploration: Exploration = Exploration()
    description: str = ""
    split: tuple[Arm, ...] = ()
    """The routers that decide for a share of its requests; see `assignment`."""
    shadow_names: tuple[str, ...] = ()
    """The routers that decide beside it without acting."""


@dataclass(frozen=True, slots=True)
class ResolvedRouting:
    """What a decision is made by."""

    router: NamedRouter
    """The named router whose name, version and exploration the decision carries."""
    alternatives: tuple[Policy, ...]


@dataclass(frozen=True, slots=True)
class KnownNames:
    """The names that a request may use, for telling a typing error from a constraint."""

    models: frozenset[str]
    providers: frozenset[str]
    endpoints: frozenset[str]

    @classmethod
    def of(cls, endpoints: Iterable[Endpoint]) -> KnownNames:
        """The names of these endpoints."""
        listed = tuple(endpoints)
        return cls(
            frozenset(endpoint.model for endpoint in listed),
            frozenset(endpoint.provider for endpoint in listed),
            frozenset(endpoint.name for endpoint in listed),
        )


def resolve(
    asked: RouterString, overlay: RouterAlternative, *, routers: Mapping[str, NamedRouter], known: KnownNames
) -> ResolvedRouting:
    """What to decide by when a caller asks for `asked` and lays `overlay` (its typed constraints and preferences) on
    top; the overlay's head plays no part.

    Raises:
        InvalidRequestError: a name is unknown, or nothing is left of a search space.
    """
    violations = [
        *(v for alternative in asked.alternatives for v in _unknown_names(alternative, known, "routing.router")),
        *_unknown_names(overlay, known, "routing.constraints"),
    ]
    first: NamedRouter | None = None
    policies: list[Policy] = []
    for alternative in asked.alternatives:
        router, bases = _named(alternative.head, routers, known)
        if router is None:
            violations.append(_unknown_head(alternative.head, routers, known))
            continue
        first = first or router
        for base in bases:
            merged = _merged(base, alternative, "routing.router", violations)
            policies.append(_merged(merged, overlay, "routing.constraints", violations))
    if violations:
        raise InvalidRequestError(tuple(dict.fromkeys(violations)))
    assert first is not None, "a router string has at least one alternative"
    return ResolvedRouting(first, tuple(policies))


def with_stand_in(routers: Mapping[str, NamedRouter], *, asked_name: str, name: str) -> Mapping[str, NamedRouter]:
    """The same routers, but that `name` stands in for `asked_name` wherever a request or a router string means that."""
    return routers if name == asked_name else {**routers, asked_name: routers[name]}


def _named(
    head: str, routers: Mapping[str, NamedRouter], known: KnownNames
) -> tuple[NamedRouter | None, tuple[Policy, ...]]:
    """The router that `head` stands for, and the policies it starts from; None when it stands for nothing."""
    default = routers[DEFAULT_ROUTER_NAME]
    router = default if head == DEFAULT_HEAD else routers.get(head)
    if router is not None:
        return router, router.alternatives
    if head in known.models:
        return default, (Policy(SearchSpace(models=frozenset({head})), preference=default.alternatives[0].preference),)
    return None, ()


def _unknown_head(head: str, routers: Mapping[str, NamedRouter], known: KnownNames) -> FieldViolation:
    near = _near(head, frozenset(routers) | known.models)
    return FieldViolation("routing.router", f"no router and no model is named {head!r}{near}")


def _unknown_names(alternative: RouterAlternative, known: KnownNames, path: str) -> list[FieldViolation]:
    """Names in the lists of what is allowed that the catalog does not have. To skip what is not there is no fault."""
    space = alternative.space
    if not space.models and not space.providers and not space.endpoints:
        return []  # The usual case.
    unknown = [
        (key, name, names)
        for key, listed, names in (
            ("models", space.models, known.models),
            ("providers", space.providers, known.providers),
            ("endpoints", space.endpoints, known.endpoints),
        )
        for name in sorted(listed - names)
    ]
    return [
        FieldViolation(
            f"{path}.{key}" if path.endswith("constraints") else path,
            f"the catalog has no {key.removesuffix('s')} {name!r}{_near(name, names) if index < HINT_COUNT_MAX else ''}",
        )
        for index, (key, name, names) in enumerate(unknown[:UNKNOWN_NAME_COUNT_MAX])
    ]


def _near(name: str, known: frozenset[str]) -> str:
    matches = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def _merged(base: Policy, asked: RouterAlternative, path: str, violations: list[FieldViolation]) -> Policy:
    """`base` with what is asked on top."""
    if not base.bounds and asked == RouterAlternative(asked.head):
        return base  # The usual case, worth a shortcut: nothing to add, and no bound that may stand twice.
    allowed: dict[str, frozenset[str]] = {}
    for name in SPACE_FIELDS:
        ours: frozenset[str] = getattr(base.space, name)
        theirs: frozenset[str] = getattr(asked.space, name)
        if name.startswith("skip_") or not ours or not theirs:
            allowed[name] = ours | theirs
        elif ours & theirs:
            allowed[name] = ours & theirs
        else:
            listed = ", ".join(sorted(ours))
            violations.append(FieldViolation(path, f"{name} leave nothing: the router allows only {listed}"))
    return Policy(
        space=SearchSpace(**allowed),
        bounds=tuple(dict.fromkeys((*base.bounds, *asked.bounds))),
        capabilities=base.capabilities | asked.capabilities,
        labels=_merged_labels(base.labels, asked.labels, path, violations),
        preference=asked.preference or base.preference,
    )


def _merged_labels(
    ours: frozenset[tuple[str, str]], theirs: frozenset[tuple[str, str]], path: str, violations: list[FieldViolation]
) -> frozenset[tuple[str, str]]:
    """Labels that satisfy both. Values of one key are alternatives, so a key that both name keeps what they share:
    joining them would let a caller widen what the router demands."""
    merged = set()
    for key in sorted({key for key, _ in ours | theirs}):
        our_values = {pair for pair in ours if pair[0] == key}
        their_values = {pair for pair in theirs if pair[0] == key}
        shared = our_values & their_values if our_values and their_values else our_values | their_values
        if not shared:
            listed = ", ".join(value for _, value in sorted(our_values))
            violations.append(FieldViolation(path, f"labels leave nothing: the router demands {key} = {listed}"))
        merged |= shared
    return frozenset(merged)


def effective_router_string(alternatives: Iterable[Policy]) -> RouterString:
    """The router string that says in full what was decided by, whatever the named routers are called elsewhere."""
    return RouterString(
        tuple(
            RouterAlternative(
                DEFAULT_HEAD, policy.space, policy.bounds, policy.capabilities, policy.labels, policy.preference
            )
            for policy in alternatives
        )
    )
