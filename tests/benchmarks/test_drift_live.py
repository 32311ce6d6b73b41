"""The live benchmark: it runs, and what it reads off the requests is what happened."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from benchmarks.drift_live.load import Seen
from benchmarks.drift_live.report import left_after_s, rows_of
from benchmarks.drift_live.systems import REQUEST_TIMEOUT_S
from benchmarks.drift_live.weather import Timeline, weather

ROOT = Path(__file__).resolve().parents[2]


def answered(at_s: float, provider: str, ttft_s: float = 0.3) -> Seen:
    """A request that this provider answered."""
    return Seen(at_s, ttft_s, failed=False, provider=provider)


def test_an_endpoint_is_left_when_hardly_any_of_the_next_requests_go_there() -> None:
    """One straggler among ten does not count as having stayed; two do."""
    before = [answered(float(second), "first") for second in range(5)]
    after = [answered(5.0 + second, "second") for second in range(20)]
    assert left_after_s(before + after, from_s=0.0, to_s=25.0) == 4.0
    left = left_after_s(before + after, from_s=20.0, to_s=25.0)
    assert left is not None
    assert math.isnan(left), "it was not there any more"
    staying = [answered(float(second), "first" if second % 4 == 0 else "second") for second in range(25)]
    assert left_after_s(staying, from_s=0.0, to_s=25.0) is None


def test_what_nobody_answered_went_to_whoever_hangs() -> None:
    """A request that failed counts as still sent to the first provider, and with its whole timeout."""
    requests = [Seen(float(second), None, failed=True, provider="") for second in range(20)]
    assert left_after_s(requests, from_s=0.0, to_s=20.0) is None
    timeline = Timeline(slow_from_s=5.0, slow_to_s=10.0, hang_from_s=12.0, hang_to_s=15.0, end_s=20.0)
    total = rows_of({"one": requests}, timeline)[-1]
    assert (total.phase, total.request_count, total.failed_count) == ("all", 20, 20)
    assert total.ttft_mean_s == REQUEST_TIMEOUT_S


def test_phases_cover_the_run_and_strike_the_first_provider_alone() -> None:
    """Each phase begins where the one before ends, and the other providers have calm weather throughout."""
    timeline = Timeline()
    edges = [(from_s, to_s) for _, from_s, to_s in timeline.phases()]
    assert edges[0][0] == 0.0
    assert edges[-1][1] == timeline.end_s
    assert all(left[1] == right[0] for left, right in pairwise(edges))
    first, *others = weather(timeline)
    assert first.outages
    assert first.endpoints[0].latency_factor(timeline.slow_from_s, in_flight_count=1) == timeline.slow_factor
    assert not any(other.outages or other.endpoints[0].drifts for other in others)


def test_a_quick_run_works_from_end_to_end(tmp_path: Path) -> None:
    """Real server, real sockets: every request is accounted for, and table, figures and picture are written."""
    command = [sys.executable, "-m", "benchmarks.drift_live", "--quick", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120.0, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "drift_live.json").read_text())
    total = found["rows"][-1]
    assert total["phase"] == "all"
    assert total["request_count"] > 10
    assert (tmp_path / "drift_live.md").read_text().startswith("# Pointsman")
    assert (tmp_path / "drift_live.png").stat().st_size > 10_000
