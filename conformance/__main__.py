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
    """Gives 1 when a client did not do as the scenarios say, or when the matrix was to be written and could not be."""
    parser = argparse.ArgumentParser(
        prog="python -m conformance", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--language", choices=LANGUAGES, action="append", help="only this one; can be repeated")
    parser.add_argument("--scenario", action="append", help="only this one; can be repeated")
    parser.add_argument("--write", action="store_true", help="write the matrix into docs/clients.md")
    arguments = parser.parse_args()
    scenarios = [s for s in load_scenarios() if not arguments.scenario or s.name in arguments.scenario]
    seen: dict[str, dict[str, Outcome]] = {}
    for name in arguments.language or LANGUAGES:
        language = LANGUAGES[name]
        if missing := language.missing_tools():
            print(f"{language.title}: skipped, {' and '.join(missing)} not found")
            continue
        seen[name] = asyncio.run(outcomes(language, scenarios))
        for scenario, outcome in seen[name].items():
            for difference in outcome.differences:
                print(f"{language.title}: {scenario}: {difference}")
    print(matrix(scenarios, seen))
    failed = any(outcome.differences for each in seen.values() for outcome in each.values())
    if not arguments.write or arguments.language or arguments.scenario:
        return int(failed)
    if seen.keys() != LANGUAGES.keys():
        print("docs/clients.md is left as it is: its matrix is of all languages")
        return 1
    write_matrix(scenarios, seen)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
