"""Prompt caches: who has read the beginning of a conversation, and how much of it is expected to be there still."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.chat import Conversation, Message, ResponseFormat, ResponseFormatKind, Role, TextPart, Tool
from pointsman_server.decision.facts import request_facts
from pointsman_server.decision.types import Endpoint
from pointsman_server.runtime.prompt_cache import (
    BEGINNING_COUNT_MAX,
    BEGINNING_TOKEN_COUNT_MIN,
    HIT_SHARE_PRIOR,
    LIFETIME_S,
    NO_BEGINNINGS,
    READER_COUNT_MAX,
    Beginning,
    Beginnings,
    PromptCaches,
    beginnings_of,
)

PRICED = Endpoint("m", "p", 1.0, 2.0, 0.1)
UNPRICED = Endpoint("m", "q", 1.0, 2.0)
ENDPOINTS = (PRICED, UNPRICED)
LONG = "word " * BEGINNING_TOKEN_COUNT_MIN
"""1,280 tokens by the estimate."""


def turn(role: Role, text: str) -> Message:
    """A message of one text."""
    return Message(role, (TextPart(text),))


def conversation(*messages: Message, tools: tuple[Tool, ...] = ()) -> Conversation:
    """A conversation of these messages."""
    return Conversation(messages, tools=tools)


def of(asked: Conversation, conversation_id: str = "") -> Beginnings:
    """The beginnings of a conversation, with the facts that it shows."""
    return beginnings_of(asked, request_facts(asked), conversation_id=conversation_id)


FIRST = conversation(turn(Role.SYSTEM, "Be brief."), turn(Role.USER, LONG))
SECOND = conversation(*FIRST.messages, turn(Role.ASSISTANT, "Yes."), turn(Role.USER, "Why?"))


def test_the_next_turn_is_expected_to_find_the_last_one_in_the_cache() -> None:
    """Who answered a turn is expected to have all of it, times the share of hits, when the conversation goes on; who did
    not, nothing."""
    caches = PromptCaches()
    caches.read(PRICED.name, of(FIRST), cached_token_count=0, now_s=100.0)
    expected = caches.expected(of(SECOND), ENDPOINTS, now_s=110.0)
    assert expected == {PRICED.name: pytest.approx(HIT_SHARE_PRIOR * request_facts(FIRST).input_token_count)}


def test_what_differs_anywhere_before_is_another_beginning() -> None:
    """A changed word, role, tool or response format leaves nothing that could be in a cache."""
    caches = PromptCaches()
    caches.read(PRICED.name, of(FIRST), cached_token_count=None, now_s=0.0)
    others = (
        conversation(turn(Role.SYSTEM, "Be long."), *SECOND.messages[1:]),
        conversation(turn(Role.USER, "Be brief."), *SECOND.messages[1:]),
        conversation(*SECOND.messages, tools=(Tool("search"),)),
        Conversation(SECOND.messages, response_format=ResponseFormat(ResponseFormatKind.JSON_OBJECT)),
    )
    assert [caches.expected(of(other), ENDPOINTS, now_s=1.0) for other in others] == [{}] * len(others)


def test_other_conversations_share_the_instructions() -> None:
    """Of two conversations with the same long instructions, the second is expected to find just these."""
    caches = PromptCaches()
    instructions = turn(Role.SYSTEM, LONG)
    caches.read(
        PRICED.name, of(conversation(instructions, turn(Role.USER, "One?"))), cached_token_count=None, now_s=0.0
    )
    expected = caches.expected(of(conversation(instructions, turn(Role.USER, "Two?"))), ENDPOINTS, now_s=1.0)
    alone = request_facts(conversation(instructions)).input_token_count
    assert expected == {PRICED.name: pytest.approx(HIT_SHARE_PRIOR * alone)}


def test_short_conversations_cost_nothing() -> None:
    """What no provider would cache is not even looked at."""
    short = conversation(turn(Role.USER, "Hello"))
    assert of(short) is NO_BEGINNINGS
    caches = PromptCaches()
    caches.read(PRICED.name, of(short), cached_token_count=None, now_s=0.0)
    assert len(caches) == 0


def test_a_cache_is_forgotten_after_its_lifetime() -> None:
    """A second too late nothing is expected; another turn in between keeps it alive."""
    caches = PromptCaches()
    caches.read(PRICED.name, of(FIRST), cached_token_count=None, now_s=0.0)
    assert caches.expected(of(SECOND), ENDPOINTS, now_s=LIFETIME_S)
    assert not caches.expected(of(SECOND), ENDPOINTS, now_s=LIFETIME_S + 1.0)
    caches.read(PRICED.name, of(FIRST), cached_token_count=None, now_s=LIFETIME_S - 1.0)
    assert caches.expected(of(SECOND), ENDPOINTS, now_s=LIFETIME_S + 1.0)


def test_the_share_of_hits_is_learned_from_what_answers_report() -> None:
    """An endpoint that always hits is expected to, one that never does is not, and one without a price for cached input
    is only once its answers have told of hits."""
    caches = PromptCaches()
    whole = request_facts(FIRST).input_token_count
    for name, cached in ((PRICED.name, 0), (UNPRICED.name, None)):
        caches.read(name, of(FIRST), cached_token_count=cached, now_s=0.0)
    assert caches.expected(of(SECOND), ENDPOINTS, now_s=0.0).keys() == {PRICED.name}
    for second in range(200):
        caches.read(PRICED.name, of(FIRST), cached_token_count=0, now_s=float(second))
        caches.read(UNPRICED.name, of(FIRST), cached_token_count=whole, now_s=float(second))
    expected = caches.expected(of(SECOND), ENDPOINTS, now_s=200.0)
    assert expected[PRICED.name] < 0.1 * whole
    assert expected[UNPRICED.name] > 0.9 * whole


def test_an_id_tells_what_belongs_together_where_the_text_does_not() -> None:
    """With a conversation's id a rewritten beginning is still expected to be in the cache, no more of it than before;
    with another id, or none, it is not."""
    caches = PromptCaches()
    caches.read(PRICED.name, of(FIRST, "c-1"), cached_token_count=None, now_s=0.0)
    rewritten = conversation(turn(Role.SYSTEM, "It is noon. Be brief."), *SECOND.messages[1:])
    expected = caches.expected(of(rewritten, "c-1"), ENDPOINTS, now_s=1.0)
    assert expected == {PRICED.name: pytest.approx(HIT_SHARE_PRIOR * request_facts(FIRST).input_token_count)}
    assert not caches.expected(of(rewritten, "c-2"), ENDPOINTS, now_s=1.0)
    assert not caches.expected(of(rewritten), ENDPOINTS, now_s=1.0)


def test_no_more_is_remembered_than_the_bounds_allow() -> None:
    """Beginnings and readers are bounded; the longest unused are forgotten first."""
    caches = PromptCaches()
    for key in range(BEGINNING_COUNT_MAX + 10):
        one = (Beginning(key, 2000),)
        caches.read(PRICED.name, Beginnings(one, one), cached_token_count=None, now_s=0.0)
    assert len(caches) == BEGINNING_COUNT_MAX
    assert not caches.expected(Beginnings((Beginning(9, 2000),)), ENDPOINTS, now_s=0.0)
    assert caches.expected(Beginnings((Beginning(10, 2000),)), ENDPOINTS, now_s=0.0)
    crowd = [Endpoint("m", f"p{number}", 1.0, 2.0, 0.1) for number in range(READER_COUNT_MAX + 1)]
    for endpoint in crowd:
        caches.read(endpoint.name, of(FIRST), cached_token_count=None, now_s=0.0)
    assert caches.expected(of(SECOND), crowd, now_s=0.0).keys() == {endpoint.name for endpoint in crowd[1:]}


def test_endpoints_that_are_gone_are_forgotten() -> None:
    """What was learned of an endpoint's hits goes with it, so that a namesake begins anew."""
    caches = PromptCaches()
    for second in range(100):
        caches.read(PRICED.name, of(FIRST), cached_token_count=0, now_s=float(second))
    caches.retain(frozenset())
    whole = request_facts(FIRST).input_token_count
    assert caches.expected(of(SECOND), ENDPOINTS, now_s=100.0)[PRICED.name] == pytest.approx(HIT_SHARE_PRIOR * whole)


@given(
    st.lists(st.sampled_from(["a", "b", LONG]), min_size=1, max_size=6),
    st.integers(0, 6),
    st.lists(st.sampled_from(["a", LONG, "c"]), max_size=4),
)
def test_never_more_than_the_conversation_itself_nor_than_was_read(
    said: list[str], shared_count: int, more: list[str]
) -> None:
    """Whatever was read before, what is expected in the cache is at most the shared beginning."""
    texts = [*said[:shared_count], *more] or ["a"]
    before = conversation(*(turn(Role.USER, text) for text in said))
    now = conversation(*(turn(Role.USER, text) for text in texts))
    caches = PromptCaches()
    caches.read(PRICED.name, of(before), cached_token_count=None, now_s=0.0)
    expected = caches.expected(of(now), ENDPOINTS, now_s=0.0).get(PRICED.name, 0.0)
    common = 0
    for one, other in zip(before.messages, now.messages, strict=False):
        if one != other:
            break
        common += 1
    limit = request_facts(conversation(*now.messages[:common])).input_token_count if common else 0
    assert 0.0 <= expected <= limit
