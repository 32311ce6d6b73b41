"""How much may be spent, and how much of it is promised to calls under way. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """Holds `spent + reserved <= limit` as long as no call costs more than was reserved for it.

    A call reserves the most that it can cost before it starts, and settles what it did cost at its end.
    """

    limit_usd: float | None
    """None: no limit, every reservation is granted."""
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    """Of calls under way."""
    in_flight_count: int = 0
    """Calls under way."""

    def fits_ever(self, cost_usd: float) -> bool:
        """Whether so much can still be had once every call under way has ended; when not, it never can again."""
        return self.limit_usd is None or self.spent_usd + cost_usd <= self.limit_usd

    def try_reserve(self, cost_usd: float) -> bool:
        """Sets so much aside; False where that would be too much as long as other calls are under way."""
        assert cost_usd >= 0.0, cost_usd
        if self.limit_usd is not None and self.spent_usd + self.reserved_usd + cost_usd > self.limit_usd:
            return False
        self.reserved_usd += cost_usd
        self.in_flight_count += 1
        return True

    def settle(self, *, reserved_usd: float, cost_usd: float) -> None:
        """A call has ended: its reservation is released, its cost is spent."""
        assert cost_usd >= 0.0, cost_usd
        self.in_flight_count -= 1
        assert self.in_flight_count >= 0, "what is settled was reserved"
        # Sums of floats don't come back to 0 by themselves, and what is left would keep the last call waiting for ever.
        self.reserved_usd = max(0.0, self.reserved_usd - reserved_usd) if self.in_flight_count else 0.0
        self.spent_usd += cost_usd
