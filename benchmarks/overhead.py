"""What Pointsman adds to a request: `make bench-overhead`, or `python benchmarks/overhead.py --help`.

README.md beside this file says what is measured and how to read it.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Makes `benchmarks` importable, which a script's own folder is not, and runs the benchmark."""
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from benchmarks.harness.run import run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
