"""Are logged decisions repeated? Written to files, read back, decided again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pointsman_server.decision.router_string import parse_router_string
from pointsman_server.decision_log.codec import LineWriter
from pointsman_server.decision_log.reader import DecisionLogReader
from pointsman_server.decision_log.records import Record
from pointsman_server.decision_log.segments import Segments
from pointsman_server.replay.again import Challenger
from pointsman_server.replay.session import Replay, replay

from benchmarks.replay.world import CHALLENGER, World, drawn

FILE_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """What came of a log."""

    decision_count: int
    identical_count: int
    candidate_count: int
    bytes_per_decision: float
    replay_ms_per_decision: float


def write_log(world: World, directory: Path, *, count: int, seed: int) -> None:
    """Writes so many requests as a server would."""
    writer, segments = LineWriter(), Segments(directory, file_bytes_max=FILE_BYTES_MAX, total_bytes_max=1 << 40)
    for request, _ in drawn(world, count=count, rng=np.random.default_rng(seed)):
        if segments.wants_new_file():
            writer.begin_file()
            segments.begin_file(now_unix_s=time.time())
        assert request.completion is not None, "all are served"
        records: tuple[Record, ...] = (request.decision, request.completion, *request.reports)
        for record in records:
            segments.append(writer.lines(record))
    segments.close()


def replayed(directory: Path, *, challenger: str = CHALLENGER) -> Replay:
    """What a replay finds in it."""
    asked = Challenger(router=parse_router_string(challenger))
    return replay(DecisionLogReader(directory), asked, progress=lambda: None)


def repeated(world: World, directory: Path, *, count: int, seed: int) -> Repeated:
    """Writes a log and decides all of it again."""
    write_log(world, directory, count=count, seed=seed)
    byte_count = sum(path.stat().st_size for path in directory.iterdir())
    started_s = time.process_time()
    found = replay(DecisionLogReader(directory), None, progress=lambda: None)
    elapsed_s = time.process_time() - started_s
    return Repeated(
        decision_count=found.decision_count,
        identical_count=found.identical_count,
        candidate_count=len(world.setting.endpoints),
        bytes_per_decision=byte_count / count,
        replay_ms_per_decision=1000.0 * elapsed_s / count,
    )
