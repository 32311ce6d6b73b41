"""Changes of files and folders are noticed, however they come about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from pointsman_server.watch import Watch, fingerprint
from swap.variants import swapped_link

PATIENCE_S = 60.0
"""Ends a test that hangs; no test waits for it."""


def folder(path: Path, content: str) -> Path:
    """A folder with one file."""
    path.mkdir()
    (path / "file").write_text(content, encoding="utf-8")
    return path


def _rewritten(place: Path, _: Path) -> None:
    (place / "file").write_text("other", encoding="utf-8")


def _renamed_over(place: Path, other: Path) -> None:
    place.rename(place.with_name("aside"))
    other.rename(place)


def _with_one_more_file(place: Path, _: Path) -> None:
    (place / "second").write_text("more", encoding="utf-8")


@pytest.mark.parametrize("change", [_rewritten, _renamed_over, _with_one_more_file])
async def test_a_changed_folder_is_noticed(tmp_path: Path, change: Callable[[Path, Path], None]) -> None:
    """A file rewritten or added within, and a folder renamed over it, are each told."""
    place, other = folder(tmp_path / "place", "one"), folder(tmp_path / "other", "other")
    async with aclosing(Watch([place]).changes()) as changes:
        await _after(changes, lambda: change(place, other))


async def test_a_symbolic_link_is_followed_wherever_it_is_pointed(tmp_path: Path) -> None:
    """A link that is swapped, one further up the path too, is told, and so is what happens to its new target."""
    for release in ("1", "2"):
        (tmp_path / release).mkdir()
        folder(tmp_path / release / "model", release)
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "1")
    async with aclosing(Watch([current / "model"]).changes()) as changes:
        await _after(changes, lambda: swapped_link(current, tmp_path / "2"))
        await _after(changes, lambda: _rewritten(tmp_path / "2" / "model", tmp_path))


async def test_what_goes_away_and_comes_back_the_same_has_not_changed(tmp_path: Path) -> None:
    """A gap is no change: the next thing that is told is the change after it."""
    place, other = folder(tmp_path / "place", "one"), folder(tmp_path / "other", "two")
    watch = Watch([place])
    place.rename(tmp_path / "aside")
    assert fingerprint(place) == ()
    assert not watch._has_changed()
    (tmp_path / "aside").rename(place)
    assert not watch._has_changed()
    _renamed_over(place, other)
    assert watch._has_changed()
    assert not watch._has_changed()


async def test_a_path_that_is_no_longer_followed_tells_nothing(tmp_path: Path) -> None:
    """What is followed can be changed; a new path counts as known as it is."""
    one, two = folder(tmp_path / "one", "1"), folder(tmp_path / "two", "2")
    watch = Watch([one])
    watch.follow([two])
    assert watch.paths == (two,)
    _rewritten(one, one)
    assert not watch._has_changed()
    _rewritten(two, two)
    assert watch._has_changed()


async def _after(changes: AsyncGenerator[None, None], act: Callable[[], None]) -> None:
    """Acts, and waits until a change is told."""
    told = asyncio.ensure_future(anext(changes))
    act()
    await asyncio.wait_for(told, PATIENCE_S)
