"""The recent decisions that outcomes may refer to."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from pointsman_server.runtime.prompt_cache import Beginnings


@dataclass(frozen=True, slots=True)
class RememberedDecision:
    """What an outcome needs to know of its decision."""

    chosen_endpoint_name: str
    router_name: str
    """The router that decided."""
    split_name: str
    """The router whose split had it decide; empty when none did."""
    input_token_count: int
    served: bool
    """Pointsman made the call itself, so what the caller saw of its latency is known already."""
    beginnings: Beginnings
    """Of the conversation, which whoever answers it has read."""
    predicted_quality: float | None = None
    """Of the chosen endpoint, 0..1; None when nothing was predicted."""


class DecisionMemory:
    """Decisions by id, the oldest forgotten first. At most `count_max` of them, about 0.4 kB each."""

    def __init__(self, count_max: int) -> None:
        assert count_max > 0, "a memory holds at least one decision"
        self._count_max = count_max
        self._decisions: OrderedDict[str, RememberedDecision] = OrderedDict()

    def __len__(self) -> int:
        return len(self._decisions)

    def remember(self, decision_id: str, decision: RememberedDecision) -> None:
        """Adds a decision; the oldest gives way if there is no room."""
        self._decisions[decision_id] = decision
        if len(self._decisions) > self._count_max:
            self._decisions.popitem(last=False)

    def find(self, decision_id: str) -> RememberedDecision | None:
        """The decision with that id, or None if it was never made here or is forgotten."""
        return self._decisions.get(decision_id)
