"""The matrix in docs/clients.md: which client does what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from conformance.clients import LANGUAGES, REPOSITORY
from conformance.run import Outcome
from conformance.scenario import Scenario

PAGE = REPOSITORY / "docs/clients.md"
BEGIN = "<!-- matrix: written by make conformance -->\n"
IMPOSSIBLE = "can't be"
"""In place of yes or no."""
END = "<!-- end of the matrix -->"


def matrix(scenarios: Iterable[Scenario], seen: Mapping[str, Mapping[str, Outcome]]) -> str:
    """A table with a row for each scenario and a column for each language that was asked, and below it what can't be."""
    scenarios = list(scenarios)
    rows = [
        ["scenario", *(LANGUAGES[name].title for name in seen)],
        ["---", *(":---:" for _ in seen)],
        *([scenario.title, *(cell(seen[name][scenario.name]) for name in seen)] for scenario in scenarios),
    ]
    notes = [
        f'\n{IMPOSSIBLE}: "{scenario.title}" by {LANGUAGES[name].title}, because {reason}.\n'
        for scenario in scenarios
        for name in seen
        if (reason := seen[name][scenario.name].impossible)
    ]
    return "".join([*(f"| {' | '.join(row)} |\n" for row in rows), *notes])


def cell(outcome: Outcome) -> str:
    """One field of it."""
    if outcome.differences:
        return "**no**"
    return IMPOSSIBLE if outcome.impossible else "yes"


def write_matrix(scenarios: Iterable[Scenario], seen: Mapping[str, Mapping[str, Outcome]], page: Path = PAGE) -> None:
    """Puts the matrix between its two marks on the page."""
    text = page.read_text(encoding="utf-8")
    table = matrix(scenarios, seen)
    page.write_text(
        re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}{table}{END}", text, flags=re.DOTALL), encoding="utf-8"
    )


def rows_of_page(page: Path = PAGE) -> list[dict[str, str]]:
    """The matrix on the page: of each row its cells by their columns' headings."""
    found = re.search(f"{BEGIN}(.*){END}", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, f"{page.name} has lost the marks of its matrix"
    lines = [line for line in found[1].splitlines() if line.startswith("|")]
    heading, _, *rows = [[each.strip() for each in line.strip("|").split(" | ")] for line in lines]
    return [dict(zip(heading, row, strict=True)) for row in rows]
