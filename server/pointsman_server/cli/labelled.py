"""Labelled prompts for the commands that learn: from a folder, from a decision log, or from both."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from pointsman_server.cli.exit import EXIT_USAGE, CommandError
from pointsman_server.cli.offline import spinning
from pointsman_server.cli.output import console
from pointsman_server.training.dataset import Dataset, joined, load_dataset
from pointsman_server.training.logged import LoggedLabels, load_logged


def read_labelled(arguments: Namespace) -> Dataset:
    """What --data and --log name, together.

    Raises:
        CommandError: neither is given.
        DatasetError: what is there can't be learned from.
        DecisionLogError: the log can't be read.
    """
    if arguments.data is None and arguments.log is None:
        raise CommandError("give --data, --log, or both", exit_code=EXIT_USAGE)
    if arguments.log is None:
        return load_dataset(arguments.data)
    with spinning("reading the log") as tick:
        logged = load_logged(arguments.log, progress=tick)
    _tell(logged)
    return logged.dataset if arguments.data is None else joined(load_dataset(arguments.data), logged.dataset)


def _tell(logged: LoggedLabels) -> None:
    """What of the log is learned from, on standard error."""
    left_out = (
        (logged.without_quality_count, "without a reported quality"),
        (logged.without_prompt_count, "without a prompt"),
        (logged.failed_over_count, "answered by another endpoint than the chosen one"),
    )
    told = "".join(f", {count:,} {words}" for count, words in left_out if count)
    dataset, count = logged.dataset, len(logged.dataset.texts)
    worth = count if dataset.weight is None else dataset.weight[~np.isnan(dataset.quality)].sum()
    console(stderr=True).print(
        f"{count:,} labels of the log, weighed by their propensities worth {worth:,.0f}; of {logged.decision_count:,}"
        f" decisions{told}",
        style="dim",
    )
