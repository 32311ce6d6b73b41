"""`pointsman serve`: the server."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Mapping

from pointsman_server import app
from pointsman_server.cli.exit import CommandError
from pointsman_server.errors import PointsmanError


def run(arguments: Namespace, _environment: Mapping[str, str]) -> int:
    """Serves until the process is told to stop; its log is on standard error."""
    # Of other libraries the warnings are enough: an HTTP client tells of every request.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("pointsman").setLevel(logging.INFO)
    options = app.ServeOptions(
        config_path=arguments.config,
        listen=arguments.listen,
        openai_listen=arguments.openai_listen,
        simulate=arguments.simulate,
    )
    try:
        app.run(options)
    except PointsmanError as failed:
        raise CommandError(str(failed)) from failed
    return 0
