"""`pointsman routers`: the named routers."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from pointsman import Client

from pointsman_server.cli.connection import client_arguments, failures_shown
from pointsman_server.cli.output import console, message_fields, print_json
from pointsman_server.cli.tables import routers_report


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Lists them."""
    with failures_shown(arguments), Client(**client_arguments(arguments, environment)) as client:
        routers = client.list_routers(timeout_s=arguments.timeout)
    if arguments.json:
        print_json({"routers": [message_fields(router) for router in routers]})
    else:
        screen = console()
        screen.print(routers_report(screen, routers))
    return 0
