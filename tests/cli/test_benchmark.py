"""`pointsman benchmark` as a process, against providers on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import endpoints
from labelling.oracle import Oracle, Question, Reply
from pointsman_server.cli.arguments import build_parser
from pointsman_server.labelling.plan import OUTPUT_TOKEN_COUNT_ASSUMED
from pointsman_server.labelling.scoring import Method
from pointsman_server.labelling.tables import TableFormat
from pointsman_server.training.dataset import load_dataset

PROGRAM = str(Path(sys.executable).with_name("pointsman"))
PATIENCE_S = 60.0
"""Ends a test that hangs; no test waits for it."""
CONCURRENCY = 3
PROMPT_COUNT = 30
"""More than are answered before the kill, so that every lane has a question left to hang on."""
COST_USD = 120e-6
"""Of every answer of the oracle: 100 tokens in at one dollar per million, 10 out at two."""

# What a pytest of this machine may have set must not colour what the program prints.
_ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a command."""

    exit_code: int | None
    out: str
    err: str


class Folder:
    """A user's folder: prompts, a configuration, and what comes of them."""

    def __init__(self, path: Path, base_url: str) -> None:
        self.path = path
        self.out = path / "out"
        config = endpoints({"north": ["a", "b"], "south": ["c"]}, {"north": base_url, "south": base_url})
        (path / "pointsman.toml").write_text(config, encoding="utf-8")

    def write_prompts(self, *lines: dict[str, Any]) -> None:
        """The prompt file."""
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.path / "prompts.jsonl").write_text(text, encoding="utf-8")

    async def start(self, *options: str, endpoints: str = "a@north,c@south") -> asyncio.subprocess.Process:
        """The command, running."""
        return await asyncio.create_subprocess_exec(
            *(PROGRAM, "benchmark", "--prompts", "prompts.jsonl", "--config", "pointsman.toml", "--out", "out"),
            *("--endpoints", endpoints, "--concurrency", str(CONCURRENCY), *options),
            cwd=self.path,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=_ENVIRONMENT,
        )

    async def run(self, *options: str, endpoints: str = "a@north,c@south") -> Ended:
        """The command, to its end."""
        process = await self.start(*options, endpoints=endpoints)
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        return Ended(process.returncode, out.decode(), err.decode())


def exact_lines(count: int) -> list[dict[str, Any]]:
    """So many prompts whose answer is 1."""
    return [
        {"prompt_id": f"p{number}", "prompt": f"Question {number}?", "score": "exact", "expected": "1"}
        for number in range(count)
    ]


class Interrupted:
    """Answers so many questions, and then lets every other one hang until it is told to go on."""

    def __init__(self, answer_count: int) -> None:
        self._left_count = answer_count
        self.hung: list[Question] = []

    def __call__(self, question: Question) -> Reply | None:
        """An answer, or none."""
        if self._left_count == 0:
            self.hung.append(question)
            return None
        self._left_count -= 1
        return Reply("1")

    def go_on(self) -> None:
        """From now on everything is answered."""
        self._left_count = sys.maxsize


@pytest.mark.parametrize("answer_count", [0, 1, 7, 23])
async def test_nothing_is_paid_for_twice_across_a_kill(tmp_path: Path, answer_count: int) -> None:
    """After kill -9 in the middle, what had been answered is not asked again, what had not been is asked once more, and in
    the end every prompt has its label."""
    interrupted = Interrupted(answer_count)
    async with Oracle(interrupted) as oracle:
        folder = Folder(tmp_path, oracle.base_url)
        folder.write_prompts(*exact_lines(PROMPT_COUNT))
        process = await folder.start("--yes")
        # A lane asks its next question only once the last answer is in the journal, so with every lane hanging all are.
        async with asyncio.timeout(PATIENCE_S):
            await oracle.asked(answer_count + 2 * CONCURRENCY)
        process.kill()
        await process.communicate()
        assert len(interrupted.hung) == 2 * CONCURRENCY
        assert not (folder.out / "outcomes.parquet").exists()

        interrupted.go_on()
        done = await folder.run("--yes", "--json")
        assert (done.exit_code, json.loads(done.out)["missing"]) == (0, [])
        twice = Counter((question.model, question.prompt) for question in interrupted.hung)
        assert oracle.counts - twice == Counter(
            {(model, f"Question {number}?"): 1 for model in "ac" for number in range(PROMPT_COUNT)}
        )
        assert json.loads(done.out)["spent_usd"] == pytest.approx(2 * PROMPT_COUNT * COST_USD)
        dataset = load_dataset(folder.out)
        assert dataset.endpoints == (("own", "a"), ("own", "c"))
        assert dataset.quality.tolist() == [[1.0, 1.0]] * PROMPT_COUNT


async def test_the_table_says_what_came_of_each_endpoint(tmp_path: Path) -> None:
    """Labels, quality with its interval, cost, latency; failures are listed with their reason, and the code is 1."""
    async with Oracle(lambda question: Reply(status=400) if question.model == "c" else Reply("1")) as oracle:
        folder = Folder(tmp_path, oracle.base_url)
        folder.write_prompts(*exact_lines(4))
        done = await folder.run("--yes")
    assert done.exit_code == 1
    assert re.search(r"^a@north +4 +1\.000 \(0\.510-1\.000\) +\$0\.000480 ", done.out, re.MULTILINE)
    assert re.search(r"^c@south +0 +\? +4 ", done.out, re.MULTILINE)
    assert (
        "c@south: 4 without a label, call failed: c@south: the provider answered HTTP 400 (refused) (p0, p1, p2, ...)"
        in done.err
    )
    assert "a@north      4" in done.err
    assert "in all $0.00" in done.err


async def test_nothing_is_asked_before_somebody_agrees(tmp_path: Path) -> None:
    """Without a terminal --yes has to say so; the estimate is shown all the same."""
    async with Oracle(lambda _: Reply("1")) as oracle:
        folder = Folder(tmp_path, oracle.base_url)
        folder.write_prompts(*exact_lines(2))
        done = await folder.run()
        assert oracle.questions == []
    assert done.exit_code == 2
    assert "likely cost" in done.err
    assert "--yes goes on without a question" in done.err


async def test_two_runs_do_not_work_on_one_folder(tmp_path: Path) -> None:
    """The second ends at once and says why; it asks nothing."""
    async with Oracle(Interrupted(0)) as oracle:
        folder = Folder(tmp_path, oracle.base_url)
        folder.write_prompts(*exact_lines(1))
        process = await folder.start("--yes")
        async with asyncio.timeout(PATIENCE_S):
            await oracle.asked(2)
        done = await folder.run("--yes")
        process.kill()
        await process.communicate()
        assert len(oracle.questions) == 2
    assert done.exit_code == 1
    assert "another run is at work in out" in done.err


async def test_a_budget_ends_a_run_with_what_it_bought(tmp_path: Path) -> None:
    """What fits is asked and labelled, the rest is listed, and no more is spent."""
    async with Oracle(lambda _: Reply("1", usage={"prompt_tokens": 10, "completion_tokens": 10})) as oracle:
        folder = Folder(tmp_path, oracle.base_url)
        folder.write_prompts(*exact_lines(30))
        done = await folder.run("--yes", "--json", "--budget-usd", "0.0005", "--output-tokens-max", "10")
    shown = json.loads(done.out)
    assert done.exit_code == 1
    assert 0 < shown["outcome_count"] < 60
    assert shown["outcome_count"] + len(shown["missing"]) == 60
    assert {missing["reason"] for missing in shown["missing"]} == {"over the budget"}
    assert 0 < shown["spent_usd"] <= 0.0005
    assert len(oracle.questions) == shown["outcome_count"]


async def test_jsonl_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    """One object a line, in the order of the prompts."""
    async with Oracle(lambda _: Reply("1")) as oracle:
        folder = Folder(tmp_path, oracle.base_url)
        folder.write_prompts(*exact_lines(3))
        done = await folder.run("--yes", "--format", "jsonl")
    assert done.exit_code == 0
    rows = [json.loads(line) for line in (folder.out / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["prompt_id"], row["model"]) for row in rows] == [(f"p{n}", model) for n in range(3) for model in "ac"]
    assert [row["cost_usd"] for row in rows] == [pytest.approx(COST_USD)] * 6


@pytest.mark.parametrize(
    ("options", "names", "exit_code", "words"),
    [
        ((), "a@nort", 2, "a@nort is not an endpoint of the catalog; did you mean a@north"),
        ((), ",", 2, "--endpoints names none"),
        (("--judge", "x@y"), "a@north", 2, "x@y is not an endpoint of the catalog"),
        (("--baseline", "a@north"), "a@north", 2, "--baseline needs another endpoint"),
        (("--prompts", "nowhere.jsonl"), "a@north", 2, "can't read nowhere.jsonl: No such file or directory"),
        (("--prompts", "faulty.jsonl"), "a@north", 1, "faulty.jsonl is not valid:\n  line 1: is not JSON"),
        (("--budget-usd", "1"), "a@north", 1, "how long an answer of a@north can be is unknown"),
        (("--budget-usd", "0"), "a@north", 2, "argument --budget-usd: 0 is not a number above 0"),
        (("--concurrency", "none"), "a@north", 2, "argument --concurrency: invalid"),
        (("--concurrency", "257"), "a@north", 2, "argument --concurrency: 257 is more than 256"),
        (("--out", "prompts.jsonl"), "a@north", 1, "prompts.jsonl: File exists"),
        (("--out", ".", "--format", "jsonl"), "a@north", 1, "would be written over prompts.jsonl"),
    ],
)
async def test_what_is_asked_wrongly_is_said_to_be(
    tmp_path: Path, options: tuple[str, ...], names: str, exit_code: int, words: str
) -> None:
    """A clear sentence and no traceback, before anything is asked."""
    async with Oracle(lambda _: Reply("1")) as oracle:
        folder = Folder(tmp_path, oracle.base_url)
        folder.write_prompts(*exact_lines(1))
        (tmp_path / "faulty.jsonl").write_text("prompt_id,prompt\n", encoding="utf-8")
        done = await folder.run("--yes", *options, endpoints=names)
        assert oracle.questions == []
    assert done.exit_code == exit_code
    assert words in done.err
    assert "Traceback" not in done.err


def test_the_parser_offers_what_there_is() -> None:
    """The ways to score and the formats, which the parser names without loading them, are those of the code; so is the
    assumed length."""
    parse = build_parser({}).parse_args
    command = ["benchmark", "--prompts", "p", "--endpoints", "a@p", "--out", "o"]
    for method in Method:
        assert parse([*command, "--score", method.value]).score == method
    for table_format in TableFormat:
        assert parse([*command, "--format", table_format.value]).format == table_format
    assert parse(command).assume_output_tokens == OUTPUT_TOKEN_COUNT_ASSUMED
