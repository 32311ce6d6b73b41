"""How much of each case is made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Counts for one run of each case."""

    cancel_count: int = 200
    """Streams that are cancelled in A1."""
    kill_count: int = 20
    """Clients that are killed in A2."""
    vanish_count: int = 3
    """Streams of each kind whose client vanishes in A3."""
    call_count: int = 20
    """Calls of each kind in A4 to A7, A11 and A12."""
    loris_count: int = 200
    loris_round_count: int = 8
    """How often healthy traffic is measured in A8 without them and then with them. A p99 takes thousands of calls, and what
    else the machine does should meet both alike."""
    reading_s: float = 10.0
    """How long the slow client of A9 reads."""
    burst_count: int = 5000
    """Streams at one time in A10."""
    burst_message_count: int = 10
    """Messages of each, a second apart."""
    limited_s: float = 30.0
    """How long everyone answers 429 in B5."""
    mixed_count: int = 500
    """Calls with failures of all kinds in F4."""
    completed_count: int = 20_000
    cancelled_count: int = 50_000
    """So many that half a megabyte, by which resident memory goes up and down, is little to each."""


QUICK_AMOUNT = Amount(
    cancel_count=20,
    kill_count=3,
    vanish_count=1,
    call_count=3,
    loris_count=20,
    loris_round_count=1,
    reading_s=3.0,
    burst_count=100,
    burst_message_count=3,
    limited_s=2.0,
    mixed_count=50,
    completed_count=300,
    cancelled_count=100,
)
"""To see that it works; its figures mean nothing."""
