"""Sums over the time that has just passed."""

from __future__ import annotations

import math


class SlidingSum:
    """What was added within the last `bucket_count` buckets of `bucket_s` seconds, the one that has just begun included.

    Exact but for the edge of its window, which moves by whole buckets. Memory: two numbers a bucket. Reading changes
    nothing.
    """

    __slots__ = ("_amounts", "_bucket_s", "_epochs", "_newest")

    def __init__(self, *, bucket_s: float, bucket_count: int) -> None:
        assert bucket_s > 0.0, bucket_s
        assert bucket_count > 0, bucket_count
        self._bucket_s = bucket_s
        self._newest = -bucket_count
        self._epochs = [self._newest] * bucket_count
        self._amounts = [0.0] * bucket_count

    def __repr__(self) -> str:
        return f"SlidingSum({self._amounts}, newest={self._newest})"

    def add(self, amount: float, *, now_s: float) -> int:
        """Adds an amount; returns the number of its bucket, by which `take_back` finds it."""
        # Whose clock was read earlier than the last one's belongs to the newest bucket.
        self._newest = max(self._newest, self._epoch(now_s))
        index = self._newest % len(self._epochs)
        if self._epochs[index] != self._newest:
            self._epochs[index] = self._newest
            self._amounts[index] = 0.0
        self._amounts[index] += amount
        return self._newest

    def take_back(self, amount: float, *, epoch: int) -> None:
        """Takes back what was added to that bucket. One that has left the window has taken it along."""
        index = epoch % len(self._epochs)
        if self._epochs[index] == epoch:
            self._amounts[index] -= amount

    def at(self, now_s: float) -> float:
        """The sum within the window that ends at `now_s`."""
        oldest = max(self._newest, self._epoch(now_s)) - len(self._epochs) + 1
        return sum(
            [amount for epoch, amount in zip(self._epochs, self._amounts, strict=True) if epoch >= oldest], start=0.0
        )

    def _epoch(self, now_s: float) -> int:
        return math.floor(now_s / self._bucket_s)
