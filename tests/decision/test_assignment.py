"""Who decides for whom: shares hold, members stay, and nothing but name, key and seed matters."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pointsman_server.decision.assignment import assign, position
from pointsman_server.decision.choice import uniform
from pointsman_server.decision.resolve import NamedRouter
from pointsman_server.decision.router_string import parse_router_string
from pointsman_server.decision.types import Arm, Assignment

DEFAULT = parse_router_string("")
KEYS = tuple(f"user-{number}" for number in range(2000))
SWEEP_COUNT = 30
"""Examples of a property that is checked for every key: each takes 10 ms."""
TOLERANCE = 4.0 * math.sqrt(0.25 / len(KEYS))
"""Four standard deviations of a share among the keys, which are always the same ones."""

keys = st.text(min_size=1, max_size=40)
seeds = st.integers(-(2**63), 2**63 - 1)


@st.composite
def splits(draw: st.DrawFn, *, arm_count_max: int = 5) -> tuple[Arm, ...]:
    """Arms of any shares, and something left for the router itself."""
    parts = draw(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=arm_count_max + 1))
    total = math.fsum(parts)
    return tuple(Arm(f"arm-{index}", part / total) for index, part in enumerate(parts[1:]))


def routers_of(split: tuple[Arm, ...], name: str = "default") -> dict[str, NamedRouter]:
    """A router with that split, its arms, and the default one."""
    others = {arm.router_name: NamedRouter(arm.router_name) for arm in split}
    return {"default": NamedRouter("default")} | others | {name: NamedRouter(name, split=split)}


def deciders(split: tuple[Arm, ...], *, name: str = "default") -> dict[str, str]:
    """The router that decides, for each of the keys."""
    asked, routers = parse_router_string(name), routers_of(split, name)
    return {key: assign(asked, routers, key=key, seed=1).router_name for key in KEYS}


def grown(split: tuple[Arm, ...], index: int, share: float) -> tuple[Arm, ...]:
    """The same split, but one arm with as much more."""
    arm = split[index]
    return (*split[:index], Arm(arm.router_name, arm.share + share), *split[index + 1 :])


@settings(max_examples=SWEEP_COUNT)
@given(splits())
def test_shares_hold(split: tuple[Arm, ...]) -> None:
    """Of many keys each arm gets its share, and the router itself what the arms leave."""
    found = list(deciders(split).values())
    shares = {arm.router_name: arm.share for arm in split}
    shares["default"] = 1.0 - math.fsum(shares.values())
    for name, share in shares.items():
        assert found.count(name) / len(found) == pytest.approx(share, abs=TOLERANCE)


@given(splits(), keys, seeds)
def test_the_stated_probability_is_the_share(split: tuple[Arm, ...], key: str, seed: int) -> None:
    """An arm decides with its share, the router itself with the rest, and the probabilities of all add up to 1."""
    routers = routers_of(split)
    for assigned in (assign(DEFAULT, routers, key=key, seed=seed), assign(DEFAULT, routers, key="", seed=seed)):
        own = 1.0 - math.fsum(arm.share for arm in split)
        shares = {"default": own} | {arm.router_name: arm.share for arm in split}
        assert assigned.probability == pytest.approx(shares[assigned.router_name])
        assert 0.0 < assigned.probability <= 1.0
        assert assigned.split_name == "default"


@settings(max_examples=SWEEP_COUNT)
@given(splits(arm_count_max=2), st.data())
def test_of_up_to_two_arms_each_keeps_its_members_whatever_the_other_does(
    split: tuple[Arm, ...], data: st.DataObject
) -> None:
    """One arm grows by anything that the router itself still has: no other arm wins or loses a single key."""
    index = data.draw(st.integers(0, len(split) - 1))
    room = 1.0 - math.fsum(arm.share for arm in split)
    after = deciders(grown(split, index, room * data.draw(st.floats(0.0, 1.0))))
    for key, before in deciders(split).items():
        assert after[key] in {before, split[index].router_name}
        assert before == "default" or after[key] == before


@settings(max_examples=SWEEP_COUNT)
@given(splits(), st.data())
def test_an_arm_that_grows_keeps_all_it_had_and_takes_from_none_before_it(
    split: tuple[Arm, ...], data: st.DataObject
) -> None:
    """Of any number of arms, only those can change that stand after the grown one on its side."""
    index = data.draw(st.integers(0, len(split) - 1))
    room = 1.0 - math.fsum(arm.share for arm in split)
    after = deciders(grown(split, index, room * data.draw(st.floats(0.0, 1.0))))
    may_move = {arm.router_name for arm in split[index + 2 :: 2]} | {"default"}
    for key, before in deciders(split).items():
        assert before in may_move or after[key] == before


@settings(max_examples=SWEEP_COUNT)
@given(splits(arm_count_max=4), st.floats(0.01, 0.99))
def test_a_further_arm_takes_from_the_router_alone(split: tuple[Arm, ...], part: float) -> None:
    """A new arm at the end of the split leaves the members of every other arm with it."""
    room = 1.0 - math.fsum(arm.share for arm in split)
    after = deciders((*split, Arm("new", room * part)))
    for key, before in deciders(split).items():
        assert after[key] == before or (before, after[key]) == ("default", "new")


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8), seeds)
def test_a_split_of_everything_leaves_a_router_with_a_chance(parts: list[float], seed: int) -> None:
    """Shares that add up to 1 but for rounding never assign a request with a probability of 0 or less."""
    total = math.fsum(parts)
    split = tuple(Arm(f"arm-{index}", part / total) for index, part in enumerate(parts))
    assert assign(DEFAULT, routers_of(split), key="", seed=seed).probability > 0.0


@given(splits(), keys, seeds, seeds)
def test_a_key_decides_whatever_the_seed(split: tuple[Arm, ...], key: str, seed: int, other_seed: int) -> None:
    """With a key the seed plays no part, and the assignment says that it was the key."""
    routers = routers_of(split)
    assigned = assign(DEFAULT, routers, key=key, seed=seed)
    assert assigned == assign(DEFAULT, routers, key=key, seed=other_seed)
    assert assigned.keyed
    assert not assign(DEFAULT, routers, key="", seed=seed).keyed


def test_without_keys_seeds_are_shared_out() -> None:
    """Seeds, also those that are counted up, give each arm its share."""
    routers = routers_of((Arm("a", 0.25),))
    found = [assign(DEFAULT, routers, key="", seed=seed).router_name for seed in range(len(KEYS))]
    assert found.count("a") / len(found) == pytest.approx(0.25, abs=TOLERANCE)


def test_the_draw_of_an_arm_tells_nothing_of_the_draw_among_near_ties() -> None:
    """Among the seeds of each arm the decision's own draw is as evenly spread as among all."""
    routers = routers_of((Arm("a", 0.5),))
    seeds_of: dict[str, list[float]] = {"a": [], "default": []}
    for seed in range(len(KEYS)):
        seeds_of[assign(DEFAULT, routers, key="", seed=seed).router_name].append(uniform(seed))
    for drawn in seeds_of.values():
        assert sum(drawn) / len(drawn) == pytest.approx(0.5, abs=2.0 * TOLERANCE)


def test_two_splits_share_out_the_same_keys_independently() -> None:
    """Whoever is in an arm of one test is in an arm of another by chance alone: the router's name salts the hash."""
    split = (Arm("a", 0.5),)
    first, second = deciders(split), deciders(split, name="cheap")
    both = sum(first[key] == second[key] == "a" for key in KEYS)
    assert both / len(KEYS) == pytest.approx(0.25, abs=TOLERANCE)


def test_a_position_is_the_same_everywhere_and_for_ever() -> None:
    """It is what anyone gets who hashes the router's name and the key on two lines: these values may never change."""
    digest = hashlib.sha256(b"default\nuser-42").hexdigest()
    assert position("default", "user-42") == (int(digest[:16], 16) >> 11) / 2**53
    assert [round(position("default", f"user-{number}"), 6) for number in (1, 2, 42)] == [0.572747, 0.046161, 0.616739]
    assert round(position("cheap", "\u4f60\u597d"), 6) == 0.494967


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("", "default"),
        ("router@q:1", "default"),
        ("default@ttft<500", "default"),
        ("gpt-4o", "default"),
        ("cheap", "cheap"),
        ("cheap@q:1->default", "cheap"),
    ],
)
def test_what_a_request_asks_for_is_its_first_router(asked: str, expected: str) -> None:
    """No name, `router` and a model stand for the default router; a router without a split always decides itself."""
    routers = {"default": NamedRouter("default"), "cheap": NamedRouter("cheap")}
    assert assign(parse_router_string(asked), routers, key="", seed=1) == Assignment(expected, expected)
    assert assign(parse_router_string(asked), routers, key="", seed=1).split_name == ""
