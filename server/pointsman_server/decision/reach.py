"""Whether a request must be assessed at all: where every endpoint that it may use limits our rate, its prompt changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pointsman_server.decision.types import Endpoint, Policy, RuntimeSnapshot, SearchSpace


def is_out_of_reach(alternatives: Sequence[Policy], endpoints: Iterable[Endpoint], snapshot: RuntimeSnapshot) -> bool:
    """Whether limits of our rate leave no endpoint to choose, whatever is expected of each.

    What is predicted of the prompt can then be left out: `decide` chooses nothing, and rejects each endpoint for the same
    reasons. Open breakers don't count, since where nothing but them is left `decide` tries an endpoint all the same, the
    best by what is expected; nor do requests with bounds, whose rejections tell what was expected.
    """
    return not any(policy.bounds for policy in alternatives) and all(
        _is_limited(endpoint, snapshot) or not any(_admits(policy.space, endpoint) for policy in alternatives)
        for endpoint in endpoints
    )


def _is_limited(endpoint: Endpoint, snapshot: RuntimeSnapshot) -> bool:
    wait_s = snapshot.of(endpoint.name).retry_after_s
    return wait_s is not None and wait_s > 0.0


def _admits(space: SearchSpace, endpoint: Endpoint) -> bool:
    return (
        (not space.models or endpoint.model in space.models)
        and (not space.providers or endpoint.provider in space.providers)
        and (not space.endpoints or endpoint.name in space.endpoints)
        and endpoint.model not in space.skip_models
        and endpoint.provider not in space.skip_providers
        and endpoint.name not in space.skip_endpoints
    )
