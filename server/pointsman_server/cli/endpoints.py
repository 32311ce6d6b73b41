"""`pointsman endpoints`: what is known of each endpoint now, or as it changes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping

from pointsman import Client, EndpointStatus, WatchEndpointsResponse
from rich.live import Live

from pointsman_server.cli.connection import client_arguments, failures_shown
from pointsman_server.cli.output import console, message_fields, print_json
from pointsman_server.cli.tables import endpoints_table


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Shows the endpoints once, or until interrupted."""
    with failures_shown(arguments), Client(**client_arguments(arguments, environment)) as client:
        if not arguments.watch:
            _show(client.list_endpoints(timeout_s=arguments.timeout), as_json=arguments.json)
        elif arguments.json:
            for changes in client.watch_endpoints(timeout_s=arguments.timeout):
                print_json(message_fields(changes))
        else:
            _show_changes(client.watch_endpoints(timeout_s=arguments.timeout))
    return 0


def _show(endpoints: Iterable[EndpointStatus], *, as_json: bool) -> None:
    if as_json:
        print_json({"endpoints": [message_fields(status) for status in endpoints]})
    else:
        screen = console()
        screen.print(endpoints_table(screen, endpoints))


def _show_changes(watch: Iterable[WatchEndpointsResponse]) -> None:
    """One table that keeps up with the changes; where no terminal can redraw it, the last state at the end."""
    known: dict[str, EndpointStatus] = {}
    screen = console()
    with Live(console=screen, auto_refresh=False) as live:
        for changes in watch:
            known.update({status.endpoint.name: status for status in changes.endpoints})
            for name in changes.removed_endpoints:
                known.pop(name, None)
            live.update(endpoints_table(screen, (known[name] for name in sorted(known))), refresh=True)
