"""Where labels go, so that none covers a mark or another label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LINE_HEIGHT = 1.15
"""Of a label, as a multiple of its font size."""
DISTANCES = (4.0, 12.0, 22.0, 34.0, 48.0, 64.0)
"""From the mark to its label, pixels; the nearest place that is free is taken."""
LEADER_DISTANCE_MIN = 12.0
"""From here on a line connects the two."""
DIRECTIONS = ((1, 0), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1), (0, -1), (0, 1))
"""Right, left, the corners, above, below: in the order in which they read best."""
DIAGONAL = 0.7

# Advance widths of the Inter font as a share of its size, by kind of character: the widest of each kind.
_WIDTHS = (
    (0.29, frozenset("iljI.,:;|'! ")),
    (0.42, frozenset("frt()[]/-")),
    (0.96, frozenset("mwMW@%")),
)
_UPPER_WIDTH = 0.74
_OTHER_WIDTH = 0.62


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, y downward."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def around(cls, x: float, y: float, radius: float) -> Box:
        """The square with that half-width."""
        return cls(x - radius, y - radius, x + radius, y + radius)

    def overlaps(self, other: Box) -> bool:
        """Whether the two share an area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, room: Box) -> bool:
        """Whether all of it is in `room`."""
        return (
            room.left <= self.left and self.right <= room.right and room.top <= self.top and self.bottom <= room.bottom
        )


@dataclass(frozen=True, slots=True)
class Label:
    """A text that belongs to a mark."""

    text: str
    x: float
    y: float
    radius: float
    """Of the mark."""
    size: float
    """Of the font."""
    style: str
    must: bool = False
    """Whether it is shown even where it covers something."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A label with its place."""

    label: Label
    x: float
    y: float
    """Of the text's baseline."""
    anchor: str
    """start, middle or end, as SVG calls them."""
    end_x: float
    end_y: float
    """Where a line from the mark meets the label."""
    has_leader: bool
    box: Box

    def covers(self, boxes: Iterable[Box]) -> int:
        """How many of these the label would cover."""
        return sum(self.box.overlaps(box) for box in boxes)


def text_width(text: str, size: float) -> float:
    """About how wide a text is; rather too wide than too narrow."""
    return size * sum(_width(character) for character in text)


def _width(character: str) -> float:
    for width, characters in _WIDTHS:
        if character in characters:
            return width
    return _UPPER_WIDTH if character.isupper() else _OTHER_WIDTH


def place(labels: Sequence[Label], obstacles: Iterable[Box], room: Box, *, avoided: Sequence[Box] = ()) -> list[Placed]:
    """The labels with their places, in their order; those for which there is none are left out unless they must be shown.

    Args:
        labels: what is to be shown, the most important first.
        obstacles: what no label may cover.
        room: where all of a label must lie.
        avoided: what a label covers only where it finds no other place.
    """
    taken = list(obstacles)
    found: list[Placed] = []
    for label in labels:
        choices = [choice for choice in _choices(label) if choice.box.within(room)]
        free = [choice for choice in choices if not choice.covers(taken)]
        chosen = next((choice for choice in free if not choice.covers(avoided)), None) or next(iter(free), None)
        if chosen is None and label.must and choices:
            chosen = min(choices, key=lambda choice: choice.covers(taken))
        if chosen is not None:
            found.append(chosen)
            taken.append(chosen.box)
    return found


def _choices(label: Label) -> Iterable[Placed]:
    """Every place for a label, the best first."""
    width, height = text_width(label.text, label.size), LINE_HEIGHT * label.size
    for distance in DISTANCES:
        for across, down in DIRECTIONS:
            reach = label.radius + distance
            reach *= DIAGONAL if across and down else 1.0
            edge_x, middle_y = label.x + across * reach, label.y + down * reach
            left = edge_x if across > 0 else edge_x - width if across < 0 else label.x - width / 2.0
            top = middle_y - height / 2.0
            if not across:
                top = middle_y if down > 0 else middle_y - height
            anchor = "start" if across > 0 else "end" if across < 0 else "middle"
            baseline = top + 0.5 * height + 0.36 * label.size
            yield Placed(
                label,
                edge_x,
                baseline,
                anchor,
                edge_x,
                middle_y,
                distance >= LEADER_DISTANCE_MIN,
                Box(left, top, left + width, top + height),
            )
