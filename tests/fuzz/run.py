"""Fuzzes one target for a while: `python tests/fuzz/run.py TARGET SECONDS OUT`, as `make fuzz` does.

What makes the target fail is written to OUT; put it into tests/fuzz/corpus/TARGET, where it stays a test.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
INPUT_BYTES_MAX = 16 * 1024
"""Longer than any seed, and short enough for thousands of tries a second."""


def main(arguments: list[str]) -> None:
    """Fuzzes; libFuzzer ends the process itself, with an error if something was found.

    Raises:
        SystemExit: There is no such target, or the `[fuzz]` extra is missing.
    """
    sys.path.insert(0, str(TESTS))
    try:
        import atheris  # only here is it needed, and only on Linux can it be installed
    except ImportError:
        sys.exit("fuzzing needs atheris: pip install -c constraints.txt -e '.[fuzz]'")
    with atheris.instrument_imports(include=["pointsman_server.providers", "pointsman_server.catalog"]):
        from fuzz.corpora import seeds  # imported under instrumentation
        from fuzz.targets import TARGETS
    if len(arguments) != 3 or arguments[0] not in TARGETS:
        sys.exit(f"usage: run.py TARGET SECONDS OUT, with a target of {', '.join(TARGETS)}")
    name, seconds, out = arguments[0], int(arguments[1]), Path(arguments[2])
    corpus = out / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds(name):
        shutil.copyfile(seed, corpus / f"{seed.parent.name}-{seed.name}")
    limits = [f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", "-timeout=10", "-rss_limit_mb=2048"]
    atheris.Setup(
        [sys.argv[0], *limits, "-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={out}/{name}-", str(corpus)],
        TARGETS[name],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
