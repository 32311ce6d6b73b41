"""What is made once and found again."""

from __future__ import annotations

from pointsman_server.telemetry.memo import Memo


def test_what_belongs_to_a_key_is_made_once() -> None:
    """The second who asks gets what the first one got."""
    made: list[int] = []

    def make(key: int) -> list[int]:
        made.append(key)
        return [key]

    memo = Memo(make, count_max=2)
    assert memo[1] is memo[1]
    assert (memo[2], made) == ([2], [1, 2])


def test_a_memo_is_bounded() -> None:
    """One key more than there may be, and all that was kept is made anew."""
    memo: Memo[int, str] = Memo(str, count_max=2)
    assert [memo[key] for key in (1, 2, 3, 1)] == ["1", "2", "3", "1"]
    assert memo == {3: "3", 1: "1"}
