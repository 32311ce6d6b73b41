"""Seconds as plain numbers, to and from the protobuf messages that carry them."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

_NS_PER_S = 1_000_000_000


def duration(value_s: float) -> Duration:
    """The message for a span in seconds, to the nanosecond.

    Raises:
        ValueError: it is not a number, infinite, or beyond 10,000 years.
    """
    if not abs(value_s) < float("inf"):
        raise ValueError(f"a duration is a finite number of seconds, not {value_s}")
    message = Duration()
    message.FromNanoseconds(round(value_s * _NS_PER_S))
    return message


def seconds(value: Duration) -> float:
    """A span in seconds."""
    return value.seconds + value.nanos / _NS_PER_S
