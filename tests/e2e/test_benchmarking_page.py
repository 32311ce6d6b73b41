"""What docs/benchmarking.md shows works as it stands, and gives what it shows."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from pointsman_server.labelling.scoring import Method
from pointsman_server.training.dataset import load_dataset

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarking.md").read_text(encoding="utf-8")
PATIENCE_S = 120.0
"""Ends a test that hangs; no test waits for it."""


def block(name: str) -> str:
    """The code block that follows the comment with that name."""
    match = re.search(rf"<!-- test: {name} -->\n```[a-z]+\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None, name
    return match[1]


def unmeasured(text: str) -> str:
    """An output without what differs from day to day: latencies, and the widths of columns that follow from them."""
    text = re.sub(r" [0-9.]+ s *$", " LATENCY", text, flags=re.MULTILINE)
    return re.sub(r"─+", "-", re.sub(r" +", " ", text)).replace(" \n", "\n").strip()


async def test_the_example_gives_what_it_shows(tmp_path: Path) -> None:
    """The command, with the file of prompts beside it, prints the estimate and the table, and writes what training reads."""
    (tmp_path / "prompts.jsonl").write_text(block("prompts"), encoding="utf-8")
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/")}
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", block("command"), cwd=tmp_path, stdout=PIPE, stderr=PIPE, env=environment
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, err.decode()
    assert unmeasured(err.decode()) == unmeasured(block("estimate"))
    assert unmeasured(out.decode()) == unmeasured(block("report"))
    dataset = load_dataset(tmp_path / "labels")
    assert dataset.quality.shape == (5, 2)


def test_each_way_to_score_is_described() -> None:
    """The table of the page has every way once, in the order of the code."""
    table = PAGE[PAGE.index("\n| `score` | an answer") :].strip().split("\n\n")[0]
    assert re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE)[1:] == [method.value for method in Method]
