"""`pointsman replay`: is every decision of a log repeated, and what would another router have given."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict

from pointsman_server.app import artifact_paths, served_routers
from pointsman_server.artifacts import renewed_artifacts
from pointsman_server.cli.catalog_show import read_config
from pointsman_server.cli.exit import EXIT_FAILURE, EXIT_USAGE, CommandError
from pointsman_server.cli.offline import faults_told, spinning
from pointsman_server.cli.output import console, print_json
from pointsman_server.cli.replay_tables import replay_report
from pointsman_server.decision.resolve import DEFAULT_ROUTER_NAME
from pointsman_server.decision.router_string import RouterString, RouterStringError, parse_router_string
from pointsman_server.decision_log.reader import DecisionLogReader
from pointsman_server.errors import InvalidRequestError
from pointsman_server.replay.again import Challenger
from pointsman_server.replay.session import Replay, replay


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Prints what was found; 1 where a decision is not repeated."""
    with faults_told():
        challenger = _challenger(arguments, environment)
        log = DecisionLogReader(arguments.log)
        try:
            with spinning("deciding again") as tick:
                found = replay(log, challenger, progress=tick)
        except InvalidRequestError as error:
            faults = "; ".join(violation.description for violation in error.violations)
            raise CommandError(f"--router: {faults}", exit_code=EXIT_USAGE) from error
    if not found.decision_count:
        raise CommandError(f"{arguments.log}: the log has no decision")
    if arguments.json:
        print_json(fields_of(found))
    else:
        screen = console()
        screen.print(replay_report(screen, found))
    return 0 if found.identical_count == found.decision_count else EXIT_FAILURE


def _challenger(arguments: Namespace, environment: Mapping[str, str]) -> Challenger | None:
    """The router that is asked about; None when none is."""
    asked = _asked(arguments.router or "")
    if arguments.config is None:
        return None if arguments.router is None else Challenger(router=asked)
    config = read_config(arguments.config, environment)
    routers = served_routers(config, renewed_artifacts(artifact_paths(config), {}))
    head = asked.alternatives[0].head
    served = routers.get(head, routers[DEFAULT_ROUTER_NAME])
    return Challenger(
        router=asked,
        routers={name: router.router for name, router in routers.items()},
        endpoints=config.catalog.endpoints,
        quality_names={entry.endpoint.model: entry.quality_model for entry in config.catalog.entries},
        quality=served.quality,
        quality_artifact=served.quality_artifact,
    )


def _asked(text: str) -> RouterString:
    try:
        return parse_router_string(text)
    except RouterStringError as error:
        raise CommandError(f"--router: {error}", exit_code=EXIT_USAGE) from error


def fields_of(found: Replay) -> dict[str, object]:
    """What was found, for programs."""
    fields: dict[str, object] = {
        "decision_count": found.decision_count,
        "identical_count": found.identical_count,
        "different": [asdict(different) for different in found.different],
        "damaged_line_count": found.damaged_line_count,
    }
    if (comparison := found.comparison) is not None:
        support = comparison.support
        fields["comparison"] = {
            "decision_count": support.decision_count,
            "refused_count": support.refused_count,
            "caller_seeded_count": support.caller_seeded_count,
            "same_choice_count": comparison.same_choice_count,
            "unseen_share": support.unseen_share,
            "certain_count": support.certain_count,
            "stale_prediction_count": comparison.stale_prediction_count,
            "estimates": {outcome.value: asdict(found) for outcome, found in comparison.estimates.items()},
            "warnings": list(comparison.warnings),
        }
    return fields
