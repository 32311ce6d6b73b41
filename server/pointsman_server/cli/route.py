"""`pointsman route`: where a prompt would go, and why."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Mapping

from pointsman import Client

from pointsman_server.cli.connection import client_arguments, failures_shown, route_options
from pointsman_server.cli.exit import EXIT_USAGE, CommandError
from pointsman_server.cli.output import console, message_fields, print_json
from pointsman_server.cli.prompt import read_prompt
from pointsman_server.cli.route_file import route_file
from pointsman_server.cli.tables import decision_report


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Routes one prompt, or every line of a file."""
    if (arguments.prompt is None) == (arguments.file is None):
        raise CommandError("give either a prompt (- for standard input) or --file", exit_code=EXIT_USAGE)
    if arguments.file is not None:
        return asyncio.run(route_file(arguments, client_arguments(arguments, environment)))
    prompt = read_prompt(arguments.prompt)
    with failures_shown(arguments), Client(**client_arguments(arguments, environment)) as client:
        decision = client.route(prompt, **route_options(arguments))
    if arguments.json:
        print_json({"decision": message_fields(decision)})
    else:
        screen = console()
        screen.print(decision_report(screen, decision))
    return 0
