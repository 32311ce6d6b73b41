"""Which endpoints have read the beginning of a conversation before, and may still have it in their prompt cache.

A provider that has read the beginning of a prompt keeps it for some minutes, and reads it again at a fraction of the
price and in a fraction of the time. So the endpoint that answered the last turn of a conversation, or another
conversation with the same instructions, is expected to be cheaper and sooner this time. The decision weighs that like
everything else: a conversation stays where it is for as long as that pays, and no longer.

Pure: time is passed in. Of texts only hashes are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pointsman_server.chat import Conversation, Role
from pointsman_server.decision.facts import input_token_counts
from pointsman_server.decision.types import Endpoint, RequestFacts

BEGINNING_TOKEN_COUNT_MIN = 1024
"""What is shorter is not cached: the least that OpenAI and Anthropic document for most of their models. Also what keeps
short prompts free of any cost here."""
LIFETIME_S = 300.0
"""After the last use: five minutes at Anthropic, five to ten at OpenAI, by their documentation."""
BEGINNING_COUNT_MAX = 20_000
"""Beginnings that are remembered, the longest unused forgotten first; about 0.4 kB each."""
READER_COUNT_MAX = 8
"""Endpoints that are remembered for a beginning, the longest unused forgotten first."""
HIT_SHARE_PRIOR = 0.5
"""Of what an endpoint with a price for cached input has read before: the share that it is expected to have kept, as long
as its answers do not tell. Caches are kept by machine, and providers have many."""
PRIOR_TOKEN_COUNT = 20_000.0
"""So many tokens that could have been cached weigh as much as what is assumed at first: about five calls."""
MEMORY_TOKEN_COUNT = 500_000.0
"""The share of hits is that of the last so many tokens: what a provider does today counts, not what it did last month."""


class Beginning(NamedTuple):
    """The first messages of a conversation."""

    key: int
    """The same for the same messages, tools and response format. Of this process alone."""
    token_count: int
    """Estimated."""


@dataclass(frozen=True, slots=True)
class Beginnings:
    """The beginnings of one conversation that could be in a cache."""

    sought: tuple[Beginning, ...] = ()
    """From the whole conversation to ever shorter ones."""
    kept: tuple[Beginning, ...] = ()
    """Those of `sought` that other conversations will begin with: this one when it goes on, and those with the same
    instructions."""

    @property
    def to_remember(self) -> Beginnings:
        """What is enough to tell later that an endpoint has read the conversation."""
        return Beginnings(kept=self.kept) if self.kept else NO_BEGINNINGS


NO_BEGINNINGS = Beginnings()


def beginnings_of(conversation: Conversation, facts: RequestFacts, *, conversation_id: str = "") -> Beginnings:
    """The beginnings of a conversation with these facts, by its messages and, where the caller names it, by its id."""
    if facts.input_token_count < BEGINNING_TOKEN_COUNT_MIN:
        return NO_BEGINNINGS
    counts = input_token_counts(conversation)
    sought: list[Beginning] = []
    instructions: Beginning | None = None
    key = hash((conversation.tools, conversation.response_format))
    in_instructions = True
    for message, count in zip(conversation.messages, counts[1:], strict=True):
        key = hash((key, message))
        in_instructions = in_instructions and message.role is Role.SYSTEM
        if count >= BEGINNING_TOKEN_COUNT_MIN:
            sought.append(Beginning(key, count))
            if in_instructions:
                instructions = sought[-1]
    kept = [sought[-1]]
    if instructions is not None and instructions is not sought[-1]:
        kept.append(instructions)
    if conversation_id:
        named = Beginning(hash(("conversation", conversation_id)), counts[-1])
        sought.append(named)
        kept.append(named)
    return Beginnings(tuple(reversed(sought)), tuple(kept))


class _Read(NamedTuple):
    """What an endpoint has read of a beginning."""

    at_s: float
    token_count: int


@dataclass(slots=True)
class _Hits:
    """How much an endpoint had in its cache of what it could have had, tokens."""

    possible_count: float = 0.0
    cached_count: float = 0.0

    def add(self, possible_count: float, cached_count: float) -> None:
        """One more call."""
        self.possible_count += possible_count
        self.cached_count += cached_count
        if self.possible_count > MEMORY_TOKEN_COUNT:
            kept = MEMORY_TOKEN_COUNT / self.possible_count
            self.possible_count *= kept
            self.cached_count *= kept


class PromptCaches:
    """What is known of the prompt caches of all endpoints. Not safe to share between threads."""

    def __init__(self) -> None:
        self._readers: OrderedDict[int, OrderedDict[str, _Read]] = OrderedDict()
        self._hits: dict[str, _Hits] = {}
        """By endpoint."""

    def __len__(self) -> int:
        return len(self._readers)

    def expected(self, beginnings: Beginnings, endpoints: Iterable[Endpoint], *, now_s: float) -> Mapping[str, float]:
        """Tokens of the conversation that each endpoint is expected to have in its cache; those without are left out.

        Args:
            beginnings: Of the conversation.
            endpoints: Those that there are.
            now_s: Monotonic.
        """
        possible = self._possible(beginnings, now_s)
        if not possible:
            return possible
        return {
            endpoint.name: possible[endpoint.name] * share
            for endpoint in endpoints
            if endpoint.name in possible and (share := self._hit_share(endpoint)) > 0.0
        }

    def read(self, endpoint_name: str, beginnings: Beginnings, *, cached_token_count: int | None, now_s: float) -> None:
        """An endpoint has read a conversation.

        Args:
            endpoint_name: Which.
            beginnings: Of the conversation.
            cached_token_count: What of it was in its cache, by its own count; None where it tells nothing of that.
            now_s: Monotonic.
        """
        possible_count = self._possible(beginnings, now_s).get(endpoint_name, 0)
        if possible_count and cached_token_count is not None:
            hits = self._hits.setdefault(endpoint_name, _Hits())
            hits.add(possible_count, min(cached_token_count, possible_count))
        for key, token_count in beginnings.kept:
            readers = self._readers.setdefault(key, OrderedDict())
            readers[endpoint_name] = _Read(now_s, token_count)
            readers.move_to_end(endpoint_name)
            if len(readers) > READER_COUNT_MAX:
                readers.popitem(last=False)
            self._readers.move_to_end(key)
            if len(self._readers) > BEGINNING_COUNT_MAX:
                self._readers.popitem(last=False)

    def retain(self, endpoint_names: Collection[str]) -> None:
        """Forgets how often endpoints hit that there are no more."""
        self._hits = {name: hits for name, hits in self._hits.items() if name in endpoint_names}

    def _possible(self, beginnings: Beginnings, now_s: float) -> dict[str, int]:
        """Tokens that each endpoint has read of the conversation within the lifetime of a cache."""
        possible: dict[str, int] = {}
        for key, token_count in beginnings.sought:
            for name, read in self._readers.get(key, _NO_READERS).items():
                if now_s - read.at_s <= LIFETIME_S:
                    # By a conversation's id it is no more than either turn has.
                    possible[name] = max(possible.get(name, 0), min(token_count, read.token_count))
        return possible

    def _hit_share(self, endpoint: Endpoint) -> float:
        hits = self._hits.get(endpoint.name, _Hits())
        prior = 0.0 if endpoint.cached_input_price_usd_per_mtok is None else HIT_SHARE_PRIOR
        return (prior * PRIOR_TOKEN_COUNT + hits.cached_count) / (PRIOR_TOKEN_COUNT + hits.possible_count)


_NO_READERS: OrderedDict[str, _Read] = OrderedDict()
