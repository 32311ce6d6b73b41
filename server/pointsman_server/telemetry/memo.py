"""What is made once for a key and found again: telemetry says the same few hundred things all day."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_KeyT = TypeVar("_KeyT")
_ValueT = TypeVar("_ValueT")


class Memo(dict[_KeyT, _ValueT]):
    """What belongs to a key, made when it is first asked for. At most `count_max` are kept; then all are made anew."""

    def __init__(self, make: Callable[[_KeyT], _ValueT], *, count_max: int) -> None:
        """Nothing is kept yet. `make` makes what belongs to a key, and gives the like each time."""
        super().__init__()
        self._make = make
        self._count_max = count_max

    def __missing__(self, key: _KeyT) -> _ValueT:
        if len(self) >= self._count_max:
            self.clear()
        made = self[key] = self._make(key)
        return made
