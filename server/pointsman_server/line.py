"""Where requests wait that no endpoint may serve at this very moment: a line for each set of endpoints that they wait for.

Were each to look again by itself, all would wake for the one place that becomes free, one would get it, and that would
be a matter of luck: who came last would be served while who came first runs out of patience. In a line only the first
looks; when his call has begun, and so has taken its place, the next one does.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

WAITER_COUNT_MAX = 200
"""Requests that wait at one time, in all lines: each holds its prompt, and where fewer than 70 places a second become free,
the last of more would wait in vain. Who comes beyond them is told at once when to come back, and so is who comes to a line
in which others wait for all the places that his time will bring."""
LOOK_INTERVAL_S_MIN = 0.002
"""Between two looks of one request: about as finely as timers go, so that a wait of next to nothing is no busy loop."""

Names = frozenset[str]


class Lines:
    """The lines of one server. Not thread-safe: one event loop. Memory: a few objects for each of those who wait."""

    def __init__(self) -> None:
        self._lines: dict[Names, deque[Place]] = {}
        self._waiter_count = 0

    def __repr__(self) -> str:
        return f"Lines({[len(line) for line in self._lines.values()]})"

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A request's place, in no line at first, and out of the line at the latest when the request is over."""
        place = Place(self)
        try:
            yield place
        finally:
            place.leave()

    def waiting_for(self, endpoint_name: str) -> Names | None:
        """Of the lines in which this endpoint is waited for, the one that began first; None where there is none."""
        return next((names for names in self._lines if endpoint_name in names), None)

    def enter(self, place: Place, names: Names, *, room: float) -> bool:
        """To the end of a line; False when too many wait already, or as many in it as there will be `room` for."""
        if self._waiter_count >= WAITER_COUNT_MAX or len(self._lines.get(names, ())) >= room:
            return False
        self._waiter_count += 1
        self._lines.setdefault(names, deque()).append(place)
        return True

    def first(self, names: Names) -> Place:
        """Whose turn it is in a line that there is."""
        return self._lines[names][0]

    def leave(self, place: Place, names: Names) -> None:
        """Out of the line; if it was the first, the next one's turn has come."""
        line = self._lines[names]
        was_first = line[0] is place
        line.remove(place)
        self._waiter_count -= 1
        if not line:
            del self._lines[names]
        elif was_first:
            line[0].wake()


class Place:
    """The place of one request."""

    __slots__ = ("_lines", "_names", "_woken")

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._names: Names | None = None
        self._woken = asyncio.Event()

    def goes_behind(self, endpoint_name: str) -> bool:
        """Whether others wait for this endpoint, who came before. If so this request enters their line, unless that is
        full, and the first of them may look now, since there is room."""
        if (
            self._names is not None
            or (names := self._lines.waiting_for(endpoint_name)) is None
            or not self.enter(names, room=math.inf)
        ):
            return False
        self._lines.first(names).wake()
        return True

    def enter(self, names: Names, *, room: float) -> bool:
        """Waits for one of these endpoints from now on, in the line in which it is already if there is one.

        False when too many wait, or as many in this line as calls can begin within the time that this request has, which
        is `room`: what can't come to its turn should not stand in line for it.
        """
        if self._names is None:
            if not self._lines.enter(self, names, room=room):
                return False
            self._names = names
        return True

    async def wait(self, wait_s: float, *, at_most_s: float) -> None:
        """Until it is time to look again: for the first in the line after `wait_s` or when there is word of room, for the
        others when their turn has come; and for each at the latest after `at_most_s`."""
        assert self._names is not None, "who waits is in a line"
        is_first = self._lines.first(self._names) is self
        longest_s = min(wait_s, at_most_s) if is_first else at_most_s
        with suppress(TimeoutError):
            async with asyncio.timeout(max(LOOK_INTERVAL_S_MIN, longest_s)):
                await self._woken.wait()
        self._woken.clear()

    def wake(self) -> None:
        """It is this one's turn, or there is room."""
        self._woken.set()

    def leave(self) -> None:
        """The call has begun, or there will be none; saying so twice says no more."""
        if self._names is not None:
            self._lines.leave(self, self._names)
            self._names = None
