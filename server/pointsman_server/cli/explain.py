"""`pointsman explain`: why a request went where it went, from the decision log."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime

from pointsman import Decision
from pointsman.explanation import UNKNOWN, usd
from rich.console import Console, Group, RenderableType
from rich.text import Text

from pointsman_server.cli.exit import CommandError
from pointsman_server.cli.offline import faults_told
from pointsman_server.cli.output import console, message_fields, print_json
from pointsman_server.cli.tables import Row, decision_report, fitting_table
from pointsman_server.decision.resolve import effective_router_string
from pointsman_server.decision_log.codec import aftermath_fields
from pointsman_server.decision_log.reader import DecisionLogReader, LoggedRequest
from pointsman_server.decision_log.records import CompletionResult, LoggedAttempt, LoggedCompletion, LoggedReport
from pointsman_server.edge.decision_message import fill_decision

_RESULTS: Mapping[CompletionResult, str] = {
    CompletionResult.DONE: "the answer is complete",
    CompletionResult.EXHAUSTED: "every attempt failed",
    CompletionResult.BROKEN: "the answer broke off",
    CompletionResult.DEADLINE: "the caller's deadline passed",
    CompletionResult.LEFT: "the caller left",
    CompletionResult.FAILED: "the router failed",
}


def run(arguments: Namespace, _environment: Mapping[str, str]) -> int:
    """Prints the decision as `route` prints one, and what came of it."""
    with faults_told():
        reader = DecisionLogReader(arguments.log)
        request = reader.find(arguments.decision_id)
    if request is None:
        damaged = f" ({reader.damage.line_count} lines of it can't be read)" if reader.damage.line_count else ""
        raise CommandError(f"{arguments.log}: the log has no decision {arguments.decision_id}{damaged}")
    if arguments.json:
        print_json(_fields(request))
        return 0
    screen = console()
    screen.print(explanation(screen, request))
    return 0


def explanation(screen: Console, request: LoggedRequest) -> RenderableType:
    """The decision in words and tables: who asked for what, the choice, what came of it, how good it was found."""
    logged = request.decision
    moment = datetime.fromtimestamp(logged.time_unix_s, UTC).isoformat(sep=" ", timespec="milliseconds")
    policy = effective_router_string(logged.given.alternatives)
    parts: list[RenderableType] = [
        Text(f"decided {moment} by {policy}, seed {logged.given.seed}", style="dim"),
        decision_report(screen, message_of(request)),
        "",
    ]
    if request.completion is not None:
        parts += [Text(_completion_text(request.completion)), _attempts_table(screen, request.completion.attempts)]
    elif logged.served:
        parts.append(
            Text("what came of it is not in the log: the caller left at once, the server was killed, or it was dropped")
        )
    parts += [Text(_report_text(report)) for report in request.reports]
    return Group(*parts)


def message_of(request: LoggedRequest) -> Decision:
    """The decision as a caller was shown it."""
    logged, message = request.decision, Decision()
    fill_decision(
        message,
        logged.decision,
        input_token_count=logged.given.facts.input_token_count,
        decide_time_s=logged.time_unix_s,
        router_text=str(effective_router_string(logged.given.alternatives)),
    )
    return message


def _completion_text(completion: LoggedCompletion) -> str:
    ttft = UNKNOWN if completion.ttft_s is None else f"{completion.ttft_s:.3f} s"
    cost = UNKNOWN if completion.cost_usd is None else usd(completion.cost_usd)
    return (
        f"{_RESULTS[completion.result]}: first token after {ttft}, {completion.duration_s:.3f} s in all, {cost},"
        f" {completion.attempt_count} attempt{'' if completion.attempt_count == 1 else 's'}"
    )


def _attempts_table(screen: Console, attempts: tuple[LoggedAttempt, ...]) -> RenderableType:
    rows: list[Row] = [
        (
            (
                str(attempt.number),
                attempt.endpoint_name,
                "failed: " + attempt.failure.value.replace("_", " ") if attempt.failure else "answered",
                _count(attempt.input_token_count),
                _count(attempt.output_token_count),
                UNKNOWN if attempt.cost_usd is None else usd(attempt.cost_usd),
            ),
            "",
        )
        for attempt in attempts
    ]
    return fitting_table(screen, ("attempt", "endpoint", "", "tokens in", "tokens out", "cost"), rows)


def _count(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count:,}"


def _report_text(report: LoggedReport) -> str:
    """What a caller reported, in one line."""
    told = [] if report.quality is None else [f"quality {report.quality:g}"]
    if report.quality_source:
        told.append(f"by {report.quality_source}")
    if report.failure is not None:
        told.append("failed: " + report.failure.value.replace("_", " "))
    for name, value_s in (("first token after", report.ttft_s), ("took", report.duration_s)):
        if value_s is not None:
            told.append(f"{name} {value_s:.3f} s")
    return f"reported of {report.endpoint_name}: {', '.join(told) or 'nothing'}"


def _fields(request: LoggedRequest) -> dict[str, object]:
    """The same for programs: the decision as `route --json` has it, and the records of what came of it."""
    return {
        "decision": message_fields(message_of(request)),
        "completion": None if request.completion is None else aftermath_fields(request.completion),
        "reports": [aftermath_fields(report) for report in request.reports],
    }
