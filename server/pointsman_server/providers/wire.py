"""What the wire formats share: how a format is asked, JSON out and in with every field checked, what of an error is told.

Pure. Whatever JSON a provider sends, reading it gives values or an `UpstreamError`, never another exception. Unknown fields
are ignored, as the providers' own compatibility rules ask; known fields of a wrong type are errors.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from pointsman_server.chat import Conversation, Finished, FinishReason, Message, Part, Role, UpstreamEvent
from pointsman_server.decision.facts import request_features
from pointsman_server.decision.types import RequestFeature
from pointsman_server.errors import (
    FieldViolation,
    InvalidRequestError,
    UpstreamDisconnectedError,
    UpstreamError,
    UpstreamErrorKind,
    UpstreamProtocolError,
    UpstreamStatusError,
    UpstreamUnsupportedError,
)
from pointsman_server.providers.base import UpstreamCall

JsonObject = Mapping[str, object]

TOKEN_COUNT_MAX = 1_000_000_000
"""A thousand times the longest context: a larger count is not a count."""
CALL_COUNT_MAX = 1024
"""Tool calls of one answer; requests allow at most 128 tools, and a turn rarely calls ten."""
SIGNATURE_CHARACTER_COUNT_MAX = 1024 * 1024
"""What is handed back with a tool call. The longest reasoning seen, 64k tokens, is 350 KiB of it."""
ERROR_DETAIL_COUNT_MAX = 32
"""Details of one error that are looked at; providers send one to three."""

MACHINE_CODE = re.compile(r"[a-z0-9_.-]{1,64}|[A-Z][A-Z0-9_]{1,63}")
"""What may be quoted of a provider's error: a code such as insufficient_quota. Free text may quote the prompt."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One request, as it goes out."""

    path: str
    """Below the provider's base URL, with its query."""
    body: bytes


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What the body of an error answer says, as far as a machine may repeat it."""

    code: str = ""
    """Its machine-readable code, or empty; never any of its free text."""
    retry_after_s: float | None = None
    """How long it asks to be left alone; the headers' word comes before it."""
    kind: UpstreamErrorKind | None = None
    """What kind of failure the code means, where it says more than the status; None where the status holds."""


class Decoder(Protocol):
    """Turns the events of one streamed answer into ours; holds back `Finished` until the answer has ended."""

    @property
    def ended(self) -> bool:
        """`Finished` has been given; nothing may follow."""
        ...

    @property
    def answer_complete(self) -> bool:
        """The model has said why it stopped, so only usage and the end mark can be missing."""
        ...

    def events_of(self, sent: str) -> list[UpstreamEvent]:
        """What the data of one server-sent event says.

        Raises:
            UpstreamError: It is not what the format says, or reports an error.
        """
        ...

    def end(self) -> list[UpstreamEvent]:
        """What is left to say when the provider closes the stream.

        Raises:
            UpstreamDisconnectedError: The answer was not complete.
        """
        ...


class EndingDecoder:
    """How an answer ends in every format: with the reason why the model stopped, and no sooner.

    A stream that closes after it is complete, whether its end mark has come or not; one that closes before has broken off.
    """

    __slots__ = ("_finish_reason", "_response_model", "ended")

    def __init__(self) -> None:
        self._finish_reason: FinishReason | None = None
        self._response_model: str | None = None
        self.ended = False
        """`Finished` has been given; nothing may follow."""

    @property
    def answer_complete(self) -> bool:
        """See `Decoder.answer_complete`."""
        return self._finish_reason is not None

    def end(self) -> list[UpstreamEvent]:
        """See `Decoder.end`."""
        if self.ended:
            return []
        if self._finish_reason is None:
            raise UpstreamDisconnectedError("the provider closed the stream before the answer was complete")
        return [self._finished()]

    def _finished(self) -> Finished:
        """The end, whatever is known of the reason by now."""
        self.ended = True
        return Finished(self._finish_reason or FinishReason.OTHER, self._response_model)


class WireFormat(Protocol):
    """One provider's way to say things. Immutable."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Sent with every request; the key is among them."""
        ...

    def request(self, call: UpstreamCall) -> WireRequest:
        """The request of a call; the same call always gives the same bytes. What is unset is not sent.

        Raises:
            InvalidRequestError: A JSON schema in the conversation is not JSON.
            UpstreamUnsupportedError: The format can't say what the conversation asks.
        """
        ...

    def decoder(self, call: UpstreamCall) -> Decoder:
        """What reads the stream that answers the call."""
        ...

    def answer_events(self, call: UpstreamCall, body: bytes) -> tuple[UpstreamEvent, ...]:
        """The events of an answer that came as a whole, `Finished` last.

        Raises:
            UpstreamError: It is not what the format says, or reports an error.
        """
        ...

    def error_answer(self, body: bytes) -> ErrorAnswer:
        """What the body of an error answer says; raises nothing."""
        ...


def check_sayable(conversation: Conversation, lacks: frozenset[RequestFeature]) -> None:
    """The last guard against leaving something out: the decision has rejected such endpoints already.

    Raises:
        UpstreamUnsupportedError: The conversation asks for something that the format lacks.
    """
    if lacks and (unsayable := request_features(conversation) & lacks):
        raise UpstreamUnsupportedError(", ".join(sorted(unsayable)))


@dataclass(frozen=True, slots=True)
class Script:
    """A conversation for formats that have no place for the system among the turns."""

    system: tuple[Part, ...]
    """What the system says before everyone else."""
    turns: tuple[tuple[Role, tuple[Message, ...]], ...]
    """The other turns, those of one role in a row together: the results of all calls of one turn belong together."""


def script_of(messages: Sequence[Message]) -> Script:
    """The same turns in the same order, as such formats have them."""
    system_count = 0
    while system_count < len(messages) and messages[system_count].role is Role.SYSTEM:
        system_count += 1
    return Script(
        system=tuple(part for message in messages[:system_count] for part in message.parts),
        turns=tuple((role, tuple(group)) for role, group in groupby(messages[system_count:], lambda turn: turn.role)),
    )


def encoded(payload: Mapping[str, object]) -> bytes:
    """JSON in UTF-8, as short as it can be written.

    Raises:
        InvalidRequestError: A JSON schema holds what is no text.
        UpstreamUnsupportedError: Something is nested more deeply than we can write.
    """
    try:
        return json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except RecursionError:
        raise UpstreamUnsupportedError("JSON that is nested so deeply") from None
    except UnicodeEncodeError:
        # Text from protobuf is whole; only an escape within a JSON schema can name half a surrogate pair.
        raise _invalid_schema("conversation", "holds half of a surrogate pair, which is no character") from None


def schema_of(text: str, path: str) -> object:
    """A JSON schema of the request, parsed.

    Raises:
        InvalidRequestError: It is not JSON, or holds a number that JSON can't carry on.
    """
    try:
        return _strictly_parsed(text)
    except (ValueError, RecursionError):
        raise _invalid_schema(path, "is not JSON") from None


def arguments_of(text: str) -> JsonObject:
    """The arguments of an earlier tool call, for formats that want an object where others take any text; empty is none.

    Raises:
        UpstreamUnsupportedError: They are not a JSON object, which such a format can't say.
    """
    try:
        parsed = _strictly_parsed(text) if text else {}
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise UpstreamUnsupportedError("a tool call whose arguments are no JSON object")
    return parsed


def _strictly_parsed(text: str) -> object:
    return json.loads(text, parse_constant=_no_constant, parse_float=_finite)


def _no_constant(name: str) -> object:
    """Refuses NaN and the infinities, which Python reads though JSON has none."""
    raise ValueError(name)


def _finite(text: str) -> float:
    """Refuses numbers beyond the range of floats: they would go on as infinities."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _invalid_schema(path: str, description: str) -> InvalidRequestError:
    return InvalidRequestError((FieldViolation(path, f"the JSON schema {description}"),))


def object_of(sent: str | bytes) -> JsonObject:
    """The JSON object that was sent.

    Raises:
        UpstreamProtocolError: It is not one.
    """
    try:
        parsed: object = json.loads(sent)
    except (ValueError, RecursionError):
        raise UpstreamProtocolError("the provider sent something that is not JSON") from None
    if not isinstance(parsed, dict):
        raise UpstreamProtocolError("the provider sent JSON that is not an object")
    return parsed


def fields_of(value: object) -> JsonObject:
    """The fields of a foreign value; none if it is no object."""
    return value if isinstance(value, dict) else {}


def error_object_of(body: bytes) -> JsonObject:
    """The error that the body of an error answer holds, empty if it holds none: an object within the object, the object
    itself, or the first of an array of either."""
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    return fields_of(parsed.get("error", parsed) if isinstance(parsed, dict) else None)


def machine_code(error: JsonObject, *names: str) -> str:
    """The first of these fields that holds a code, or empty."""
    for name in names:
        code = error.get(name)
        if isinstance(code, str) and MACHINE_CODE.fullmatch(code):
            return code
    return ""


def reported_error(
    error: JsonObject, said: ErrorAnswer, *, status_of_code: Mapping[str, int], code: str | None = None
) -> UpstreamError:
    """An error that came in place of an answer, after a head that promised one.

    Args:
        error: Its fields; `code` may be the status that it would have had.
        said: What may be told of it.
        status_of_code: The statuses that codes stand for. Without one it is unclear what it says of the provider's health.
        code: What to look up there, if it is not the code that is told.
    """
    number = error.get("code")
    known = isinstance(number, int) and 400 <= number <= 599
    http_status = number if known else status_of_code.get(said.code if code is None else code)
    if isinstance(http_status, int):
        return UpstreamStatusError(http_status, retry_after_s=said.retry_after_s, detail=said.code, kind=said.kind)
    return UpstreamProtocolError(f"the provider reported an error within its answer ({said.code or 'without a code'})")


def text_in(parent: JsonObject, name: str) -> str | None:
    """A text, None if absent; whole UTF-8 whatever was escaped."""
    value = parent.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong_type(name, "text")
    if value.isascii():
        return value
    # An escape may name half a surrogate pair, which no UTF-8 can carry onwards: U+FFFD in its place.
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def count_in(parent: JsonObject, name: str, *, maximum: int = TOKEN_COUNT_MAX) -> int | None:
    """A whole number from 0, None if absent."""
    value = parent.get(name)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= maximum:
        return value
    raise wrong_type(name, "a count")


def object_in(parent: JsonObject, name: str) -> JsonObject | None:
    """An object, None if absent."""
    value = parent.get(name)
    if value is None or isinstance(value, dict):
        return value
    raise wrong_type(name, "an object")


def objects_in(parent: JsonObject, name: str) -> list[JsonObject]:
    """An array of objects, empty if absent."""
    value = parent.get(name)
    if value is None:
        return []
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise wrong_type(name, "an array of objects")


def wrong_type(name: str, expected: str) -> UpstreamProtocolError:
    """A known field of a wrong type."""
    return UpstreamProtocolError(f"the provider sent a {name} that is not {expected}")


def json_text(value: JsonObject) -> str:
    """Arguments that came as an object, as the text that they are to us.

    Raises:
        UpstreamProtocolError: They are nested more deeply than we can write.
    """
    try:
        # ASCII, so that half a surrogate pair stays the escape that it was.
        return json.dumps(value, separators=(",", ":"))
    except RecursionError:
        raise UpstreamProtocolError("the provider sent JSON that is nested too deeply") from None


def signed(tag: str, content: str) -> str:
    """A signature that only the format of that tag reads.

    Raises:
        UpstreamProtocolError: It is too long to be handed on.
    """
    if len(content) > SIGNATURE_CHARACTER_COUNT_MAX:
        raise UpstreamProtocolError(
            f"the provider's reasoning is longer than {SIGNATURE_CHARACTER_COUNT_MAX} characters"
        )
    return f"{tag}:{content}"


def signature_content(signature: str | None, tag: str) -> str | None:
    """What a signature of that tag holds; None if it is another's or there is none."""
    if signature is None or not signature.startswith(f"{tag}:"):
        return None
    return signature[len(tag) + 1 :]
