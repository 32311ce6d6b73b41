"""From arguments to a client, and from a failed call to words."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypedDict

from pointsman import (
    AttemptsExhaustedError,
    InvalidRequestError,
    NoEligibleEndpointError,
    PointsmanError,
    ResourceExhaustedError,
    StreamBrokenError,
    TlsSettings,
    UnavailableError,
)
from pointsman.options import RouteOptions
from rich.console import Console
from rich.text import Text

from pointsman_server.cli.arguments import DEFAULT_API_KEY_VARIABLE
from pointsman_server.cli.exit import EXIT_USAGE, CommandError
from pointsman_server.cli.output import console, error_fields, print_json
from pointsman_server.cli.tables import rejections_table


class ClientArguments(TypedDict):
    """What a client of either kind is made with."""

    target: str
    api_key: str | None
    tls: TlsSettings | None


def client_arguments(arguments: Namespace, environment: Mapping[str, str]) -> ClientArguments:
    """The client that the arguments ask for.

    Raises:
        CommandError: the named variable is not set, or the roots can't be read.
    """
    variable: str | None = arguments.api_key_env
    api_key = environment.get(variable or DEFAULT_API_KEY_VARIABLE)
    if variable is not None and not api_key:
        raise CommandError(f"the environment variable {variable} is not set", exit_code=EXIT_USAGE)
    return ClientArguments(target=arguments.server, api_key=api_key, tls=_tls(arguments))


def route_options(arguments: Namespace) -> RouteOptions:
    """By what the arguments ask to route."""
    return RouteOptions(
        router=arguments.router,
        assignment_key=arguments.assignment_key,
        conversation_id=arguments.conversation_id,
        include_shadows=arguments.shadows,
        timeout_s=arguments.timeout,
    )


def _tls(arguments: Namespace) -> TlsSettings | None:
    if arguments.tls_ca is None:
        return TlsSettings() if arguments.tls else None
    try:
        return TlsSettings(root_certificates_pem=arguments.tls_ca.read_bytes())
    except OSError as failed:
        raise CommandError(f"can't read {arguments.tls_ca}: {failed.strerror}", exit_code=EXIT_USAGE) from failed


@contextmanager
def failures_shown(arguments: Namespace) -> Iterator[None]:
    """Turns a failed call into words on standard error, and with --json into an object on standard output too.

    Raises:
        CommandError: a call failed; all has been said.
    """
    try:
        yield
    except PointsmanError as failed:
        if arguments.json:
            print_json({"error": error_fields(failed)})
        show_failure(failed, console(stderr=True), server=arguments.server)
        raise CommandError from failed


def show_failure(error: PointsmanError, screen: Console, *, server: str) -> None:
    """Says what failed, with what would help."""
    screen.print(Text.assemble(("pointsman: ", "bold red"), error.message, (f"  {error.code.name}", "dim")))
    match error:
        case InvalidRequestError():
            for violation in error.violations:
                screen.print(f"  {violation.field}: {violation.description}")
        case NoEligibleEndpointError():
            screen.print(rejections_table(screen, error.candidates))
            for relaxation in error.relaxations:
                changes = ", ".join(f"{change.bound} to {change.relaxed_bound}" for change in relaxation.changes)
                screen.print(Text.assemble(("would do: ", "bold"), f"{relaxation.endpoint}, by relaxing {changes}"))
        case AttemptsExhaustedError():
            for attempt in error.attempts:
                screen.print(f"  {attempt.attempt_number}. {attempt.endpoint}: {attempt.message}")
        case StreamBrokenError():
            screen.print(f"  what was printed is all that {error.endpoint} sent")
        case UnavailableError(reason=""):
            screen.print(f"  is a server running at {server}? `pointsman serve` starts one, --server names another")
    if isinstance(error, AttemptsExhaustedError | ResourceExhaustedError | UnavailableError) and error.retry_after_s:
        screen.print(f"  try again in {error.retry_after_s:g} s")
