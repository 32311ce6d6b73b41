"""`pointsman complete`: asks a prompt and streams the answer."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping

from pointsman import (
    AttemptFailed,
    AttemptStarted,
    Client,
    Decision,
    Delta,
    Done,
    Event,
    Usage,
    seconds,
)
from pointsman.explanation import headline, milliseconds, shadow_text, usd
from pointsman.v1.chat_pb2 import FinishReason
from pointsman.v1.router_service_pb2 import CompleteResponse
from rich.console import Console

from pointsman_server.cli.connection import client_arguments, failures_shown, route_options
from pointsman_server.cli.output import console, message_fields, print_json, print_text
from pointsman_server.cli.prompt import read_prompt

_EVENT_NAMES = {
    event.message_type.full_name: event.name
    for event in CompleteResponse.DESCRIPTOR.fields
    if event.message_type is not None
}
"""The contract's name of each kind of event."""


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Prints the text as it comes on standard output, and everything about it on standard error."""
    prompt = read_prompt(arguments.prompt)
    with failures_shown(arguments), Client(**client_arguments(arguments, environment)) as client:
        events = client.complete(prompt, allow_hedging=arguments.hedge, **route_options(arguments))
        if arguments.json:
            for event in events:
                _print_event(event)
        else:
            _show(events)
    return 0


def _show(events: Iterable[Event]) -> None:
    transcript = _Transcript(console(stderr=True))
    try:
        for event in events:
            transcript.show(event)
    finally:
        transcript.end_line()


def _print_event(event: Event) -> None:
    print_json({_EVENT_NAMES[event.DESCRIPTOR.full_name]: message_fields(event)})


class _Transcript:
    """Shows an answer to a person; text ends in a newline before anything else is said."""

    def __init__(self, aside: Console) -> None:
        self._aside = aside
        self._line_open = False

    def show(self, event: Event) -> None:
        """Shows the next event."""
        match event:
            case Delta():
                print_text(event.text)
                self._line_open = (self._line_open or bool(event.text)) and not event.text.endswith("\n")
            case Decision():
                self._say(headline(event))
                for shadow in event.shadows:
                    self._say(shadow_text(event, shadow))
            case AttemptStarted():
                self._say(f"{event.attempt_number}. {event.endpoint}")
            case AttemptFailed():
                self._say(f"   failed: {event.message}")
            case Usage():
                cost = f", {usd(event.cost_usd)}" if event.HasField("cost_usd") else ""
                self._say(
                    f"   {event.input_token_count} tokens in, {event.output_token_count} out{cost} ({event.endpoint})"
                )
            case Done():
                self._say(_summary(event))

    def end_line(self) -> None:
        """Ends the line of text that is being written, if one is."""
        if self._line_open:
            print_text("\n")
            self._line_open = False

    def _say(self, text: str) -> None:
        self.end_line()
        self._aside.print(text, style="dim")


def _summary(done: Done) -> str:
    reason = FinishReason.Name(done.finish_reason).removeprefix("FINISH_REASON_").lower()
    first = f", first token after {milliseconds(done.ttft)}" if done.HasField("ttft") else ""
    attempts = "1 attempt" if done.attempt_count == 1 else f"{done.attempt_count} attempts"
    return f"{done.endpoint}: {reason}, {attempts}{first}, done after {seconds(done.duration):.2f} s"
