"""`python -m conformance`: builds the clients that can be built here, runs every scenario with each, and tells.

python -m conformance --language go --scenario deadline
python -m conformance --write        # also writes the matrix into docs/clients.md
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from conformance.clients import LANGUAGES
from conformance.report import matrix, write_matrix
from conformance.run import Outcome, outcomes
from conformance.scenario import load_scenarios


def main() -> int:
    """Exits with 1 when a client did not do as the scenarios say, or with --write when not all could be asked."""
    parser = argparse.ArgumentParser(
        prog="python -m conformance", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--language", choices=LANGUAGES, action="append", help="only this one; can be repeated")
    parser.add_argument("--scenario", action="append", help="only this one; can be repeated")
    parser.add_argument("--write", action="store_true", help="write the matrix into docs/clients.md")
    arguments = parser.parse_args()
    scenarios = [s for s in load_scenarios() if not arguments.scenario or s.name in arguments.scenario]
    seen: dict[str, dict[str, Outcome]] = {}
    complete = not arguments.scenario
    for name in arguments.language or LANGUAGES:
        language = LANGUAGES[name]
        if missing := language.missing_tools():
            complete = False
            print(f"{language.title}: skipped, {' and '.join(missing)} not found")
            continue
        seen[name] = asyncio.run(outcomes(language, scenarios))
        for scenario, outcome in seen[name].items():
            for difference in outcome.differences:
                print(f"{language.title}: {scenario}: {difference}")
    print(matrix(scenarios, seen))
    if arguments.write and complete and not arguments.language:
        write_matrix(scenarios, seen)
    failed = any(outcome.differences for each in seen.values() for outcome in each.values())
    return int(failed or (arguments.write and not complete))


if __name__ == "__main__":
    sys.exit(main())
