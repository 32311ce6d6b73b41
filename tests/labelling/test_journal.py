"""The journal on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from labelling.samples import answer, exact, plan
from pointsman_server.labelling.errors import JournalError
from pointsman_server.labelling.journal import JOURNAL_FILE, opened_journal
from pointsman_server.labelling.records import HEADER, to_line

PLAN = plan([exact("1"), exact("2")], "a@p")
FIRST, SECOND = answer(PLAN, 1, "a@p", "one"), answer(PLAN, 2, "a@p", "two")


async def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    """A folder is made where it is missing, and a journal opened again holds what was added to it."""
    folder = tmp_path / "new" / "folder"
    with opened_journal(folder) as journal:
        await journal.append(FIRST)
    with opened_journal(folder) as journal:
        assert list(journal.ledger.answered.values()) == [FIRST]
        await journal.append(SECOND)
    with opened_journal(folder) as journal:
        assert list(journal.ledger.answered.values()) == [FIRST, SECOND]
    assert (folder / JOURNAL_FILE).stat().st_mode & 0o077 == 0, "answers are nobody else's business"


@pytest.mark.parametrize("kept", [1, 40, -1])
async def test_a_half_written_line_costs_itself_alone(tmp_path: Path, kept: int) -> None:
    """What was cut off is passed over with a count, and what is added then is read."""
    line = to_line(FIRST)
    (tmp_path / JOURNAL_FILE).write_text(f"{HEADER}\n{line[:kept]}", encoding="utf-8")
    with opened_journal(tmp_path) as journal:
        assert journal.ledger.skipped_line_numbers == (2,)
        await journal.append(SECOND)
    with opened_journal(tmp_path) as journal:
        assert list(journal.ledger.answered.values()) == [SECOND]
        assert journal.ledger.skipped_line_numbers == (2,)


async def test_a_line_that_lacks_its_end_alone_is_whole(tmp_path: Path) -> None:
    """Nothing is paid for again where all but the line's end was written."""
    (tmp_path / JOURNAL_FILE).write_text(f"{HEADER}\n{to_line(FIRST)}", encoding="utf-8")
    with opened_journal(tmp_path) as journal:
        await journal.append(SECOND)
    with opened_journal(tmp_path) as journal:
        assert list(journal.ledger.answered.values()) == [FIRST, SECOND]


@pytest.mark.parametrize("kept", range(0, len(HEADER) + 1, 7))
async def test_a_half_written_header_is_written_anew(tmp_path: Path, kept: int) -> None:
    """A run that was killed at its very start leaves a folder that can be used."""
    (tmp_path / JOURNAL_FILE).write_text(HEADER[:kept], encoding="utf-8")
    with opened_journal(tmp_path) as journal:
        await journal.append(FIRST)
    with opened_journal(tmp_path) as journal:
        assert list(journal.ledger.answered.values()) == [FIRST]
        assert journal.ledger.skipped_line_numbers == ()


def test_two_runs_do_not_meet_in_a_folder(tmp_path: Path) -> None:
    """While one process has the journal open, another is told so, and told again after a third was killed."""
    code = (
        "import sys, time, pathlib\n"
        "from pointsman_server.labelling.journal import opened_journal\n"
        "with opened_journal(pathlib.Path(sys.argv[1])):\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(JournalError, match="another run is at work"), opened_journal(tmp_path):
            pass
        other.kill()
        other.wait()
    with opened_journal(tmp_path) as journal:
        assert journal.ledger.answered == {}


def test_a_file_that_is_no_journal_stays_as_it_is(tmp_path: Path) -> None:
    """Nothing is added to it, and the error names it."""
    path = tmp_path / JOURNAL_FILE
    path.write_text("my own notes", encoding="utf-8")
    with pytest.raises(JournalError, match="not that of a journal") as caught, opened_journal(tmp_path):
        pass
    assert str(path) in str(caught.value)
    assert path.read_text(encoding="utf-8") == "my own notes"
