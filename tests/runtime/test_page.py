"""docs/runtime.md: its simulator runs and prints what the page shows, its table states the constants there are."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from pathlib import Path

from pointsman_server.runtime import endpoint, failures, level, limits, profile, tracker, waiting

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "runtime.md").read_text(encoding="utf-8")
MODULES = (
    "breaker",
    "endpoint",
    "estimators",
    "failures",
    "level",
    "sessions",
    "limits",
    "profile",
    "tracker",
    "waiting",
)


def test_the_simulator_of_the_page_does_what_the_page_says() -> None:
    """The example runs as it stands, and prints the lines below it."""
    found = re.search(r"<!-- test: simulator -->\n```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(found[1], {"__name__": "simulator"})
    assert printed.getvalue() == found[2]


def test_each_constant_of_the_page_exists() -> None:
    """Every name in the table is a constant of the aggregator, and the figures that are plain ones are its own."""
    modules = [importlib.import_module(f"pointsman_server.runtime.{name}") for name in MODULES]
    rows = re.findall(r"^\| (`[A-Z][^|]*) \| ([^|]+) \|", PAGE, re.MULTILINE)
    assert len(rows) > 10
    for names, _ in rows:
        first, *others = re.findall(r"`(\w+)`", names)
        for name in (first, *(f"STRAGGLER{other}" if other.startswith("_") else other for other in others)):
            assert any(hasattr(module, name) for module in modules), name
    stated = {names.strip("`"): value for names, value in rows}
    assert float(stated["LEVEL_VARIANCE_PER_S"]) == level.LEVEL_VARIANCE_PER_S
    assert float(stated["REGIME_EVIDENCE"]) == level.REGIME_EVIDENCE
    assert float(stated["EXPONENT_CAUTION"]) == level.EXPONENT_CAUTION
    assert float(stated["EXPONENT_VARIANCE_PRIOR"]) == level.EXPONENT_VARIANCE_PRIOR
    assert float(stated["HANG_SURPRISE"]) == waiting.HANG_SURPRISE
    assert float(stated["RATE_SHARE"]) == limits.RATE_SHARE
    assert float(stated["RUSH_MAX"]) == endpoint.RUSH_MAX
    assert stated["PART_S"] == f"{tracker.PART_S:g} s"
    assert stated["DAY_PRIOR_COUNT"] == f"{profile.DAY_PRIOR_COUNT:g} days"
    assert (waiting.STRAGGLER_SHARE, waiting.STRAGGLER_RATIO, waiting.STRAGGLER_POWER) == (0.02, 2.0, 1.5)
    assert (failures.SPELL_SHARE, failures.SPELL_HALF_LIFE_S) == (0.4, 15.0)
    assert (limits.QUIET_S, limits.GROWTH_S) == (60.0, 120.0)
