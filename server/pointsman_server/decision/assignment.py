"""Which router decides where the one that is asked for shares its requests among several, for an A/B test.

Every request has a position from 0 to 1, and every arm an interval of it: the first arm of the split from 0 up, the
second from 1 down, the third above the first, the fourth below the second, and so on; what is left in the middle is the
router's own. So an arm that grows keeps all it had, and takes only from the router itself and from arms that stand
after it on its side: with one or two arms no other arm ever changes. (With three no rule without a memory could promise
that: two arms that may each have half must have the same half, and then they would meet.)

A position depends on nothing but the name of the router and the request's key or seed, so it is the same on every
replica, after every restart and in every version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pointsman_server.decision.resolve import DEFAULT_ROUTER_NAME, NamedRouter
from pointsman_server.decision.router_string import RouterString
from pointsman_server.decision.types import Assignment

POSITION_BIT_COUNT = 53
"""As many as a float holds exactly."""


def assign(asked: RouterString, routers: Mapping[str, NamedRouter], *, key: str, seed: int) -> Assignment:
    """Which router decides for a request that asks for `asked`.

    Args:
        asked: What the request names; its first alternative says by which router. A model stands for the default one.
        routers: The routers of the configuration by name.
        key: What belongs together, such as a user or a conversation; all its requests get the same router. Empty: the
            seed decides instead, by a draw of its own.
        seed: The request's seed.
    """
    router = routers.get(asked.alternatives[0].head, routers[DEFAULT_ROUTER_NAME])
    if not router.split:
        return Assignment(router.name, router.name)
    place = position(router.name, key or f"\n{seed}")
    low, high = 0.0, 1.0
    for index, arm in enumerate(router.split):
        if index % 2 == 0:
            inside, low = low <= place < low + arm.share, low + arm.share
        else:
            inside, high = high - arm.share <= place < high, high - arm.share
        if inside:
            return Assignment(router.name, arm.router_name, probability=arm.share, keyed=bool(key))
    return Assignment(router.name, router.name, probability=high - low, keyed=bool(key))


def position(router_name: str, key: str) -> float:
    """Where that key lies in that router's split, from 0 up to 1: the first bits of SHA-256 of both, on two lines."""
    digest = hashlib.sha256(f"{router_name}\n{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - POSITION_BIT_COUNT)) / (1 << POSITION_BIT_COUNT)
