"""The budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.labelling.budget import Budget

amounts = st.floats(0.0, 2.0)
steps = st.lists(st.tuples(amounts, st.floats(0.0, 1.0), st.booleans()), max_size=60)
"""The most that a call can cost, the share of it that it does cost, and whether the oldest call ends before it starts."""


@given(amounts, amounts, steps)
def test_what_is_spent_never_exceeds_the_limit(
    limit_usd: float, spent_usd: float, calls: list[tuple[float, float, bool]]
) -> None:
    """Whatever is reserved and settled in whatever order: as long as no call costs more than was reserved for it, the spent
    and the reserved together stay within the limit, up to the rounding of sums."""
    budget = Budget(limit_usd, spent_usd=min(spent_usd, limit_usd))
    under_way: list[tuple[float, float]] = []
    for most_usd, share, ends in calls:
        if ends and under_way:
            reserved_usd, cost_usd = under_way.pop(0)
            budget.settle(reserved_usd=reserved_usd, cost_usd=cost_usd)
        if budget.try_reserve(most_usd):
            under_way.append((most_usd, most_usd * share))
        assert budget.spent_usd + budget.reserved_usd <= limit_usd + 1e-9
        assert budget.spent_usd + sum(cost for _, cost in under_way) <= limit_usd + 1e-9


@given(amounts, steps, amounts)
def test_who_waits_is_served_or_told_that_it_never_will_be(
    limit_usd: float, calls: list[tuple[float, float, bool]], wanted_usd: float
) -> None:
    """Once no call is under way a reservation is granted exactly when it can ever be: nobody waits for ever."""
    budget = Budget(limit_usd)
    granted = [(most, most * share) for most, share, _ in calls if budget.try_reserve(most)]
    for reserved_usd, cost_usd in granted:
        budget.settle(reserved_usd=reserved_usd, cost_usd=cost_usd)
    assert budget.reserved_usd == 0.0
    assert budget.fits_ever(wanted_usd) == budget.try_reserve(wanted_usd)


@given(st.lists(amounts))
def test_without_a_limit_everything_is_granted(costs: list[float]) -> None:
    """No limit refuses nothing."""
    budget = Budget(None)
    assert all(budget.fits_ever(cost) and budget.try_reserve(cost) for cost in costs)
