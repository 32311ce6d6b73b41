"""`pointsman catalog import`: prices that LiteLLM's users already have."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping

from pointsman_server.catalog.importer import import_litellm_prices
from pointsman_server.cli.exit import EXIT_USAGE, CommandError
from pointsman_server.cli.output import console
from pointsman_server.errors import ConfigError

_SHOWN_MODEL_COUNT = 3
"""Models named for each reason why some were left out: examples, not the list."""


def run(arguments: Namespace, _environment: Mapping[str, str]) -> int:
    """Writes the configuration, and says on standard error what was left out and why."""
    providers = frozenset(arguments.provider) if arguments.provider else None
    try:
        result = import_litellm_prices(arguments.file.read_text(encoding="utf-8"), providers=providers)
        if arguments.out is None:
            sys.stdout.write(result.toml)
        else:
            arguments.out.write_text(result.toml, encoding="utf-8")
    except ConfigError as failed:
        raise CommandError(str(failed)) from failed
    except UnicodeDecodeError as failed:
        raise CommandError(f"{arguments.file} is not UTF-8", exit_code=EXIT_USAGE) from failed
    except OSError as failed:
        raise CommandError(f"{failed.filename}: {failed.strerror}", exit_code=EXIT_USAGE) from failed
    screen = console(stderr=True)
    screen.print(f"{result.endpoint_count} endpoints imported")
    for skipped in result.skipped:
        examples = ", ".join(skipped.models[:_SHOWN_MODEL_COUNT])
        more = ", ..." if len(skipped.models) > _SHOWN_MODEL_COUNT else ""
        screen.print(f"{len(skipped.models)} left out: {skipped.reason} ({examples}{more})", style="dim")
    return 0
