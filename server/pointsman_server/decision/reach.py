"""Whether a request must be assessed at all: where every endpoint that it may use limits our rate, its prompt changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from pointsman_server.decision.feasibility import is_limited, outside
from pointsman_server.decision.types import Endpoint, Policy, RuntimeSnapshot


def is_out_of_reach(alternatives: Sequence[Policy], endpoints: Sequence[Endpoint], snapshot: RuntimeSnapshot) -> bool:
    """Whether limits of our rate leave no endpoint to choose, whatever is expected of each.

    What is predicted of the prompt can then be left out: `decide` chooses nothing, and rejects each endpoint for the same
    reasons. Open breakers don't count, since where nothing but them is left `decide` tries an endpoint all the same, the
    best by what is expected; nor do requests with bounds, whose rejections tell what was expected.
    """
    limited = {name for name, runtime in snapshot.by_endpoint.items() if is_limited(runtime)}
    if not limited or any(policy.bounds for policy in alternatives):
        return False
    free = [endpoint for endpoint in endpoints if endpoint.name not in limited]
    return not any(None in outside(free, policy.space) for policy in alternatives)
