"""Whether a request must be assessed at all: where every endpoint that it may use limits our rate, its prompt changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pointsman_server.decision.feasibility import health, outside
from pointsman_server.decision.types import Endpoint, EndpointRuntime, Policy, RejectionReason, RuntimeSnapshot


def is_out_of_reach(alternatives: Sequence[Policy], endpoints: Iterable[Endpoint], snapshot: RuntimeSnapshot) -> bool:
    """Whether limits of our rate leave no endpoint to choose, whatever is expected of each.

    What is predicted of the prompt can then be left out: `decide` chooses nothing, and rejects each endpoint for the same
    reasons. Open breakers don't count, since where nothing but them is left `decide` tries an endpoint all the same, the
    best by what is expected; nor do requests with bounds, whose rejections tell what was expected.
    """
    return not any(policy.bounds for policy in alternatives) and all(
        _is_limited(snapshot.of(endpoint.name)) or all(outside(endpoint, policy.space) for policy in alternatives)
        for endpoint in endpoints
    )


def _is_limited(runtime: EndpointRuntime) -> bool:
    return any(rejection.reason is RejectionReason.RATE_LIMITED for rejection in health(runtime))
