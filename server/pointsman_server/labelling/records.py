"""What the journal holds: every call that has ended, with what it gave and what it cost. Pure: lines in, lines out.

A call is known by its key, in which a digest stands for all that was asked of whom. So an answer is bought again exactly when
something about the question has changed, and a change of how answers are scored changes no key.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pointsman_server.chat import Conversation
from pointsman_server.labelling.errors import JournalError
from pointsman_server.labelling.judge import Place, parsed_verdict
from pointsman_server.labelling.scoring import parsed_json

JOURNAL_VERSION = 1
"""Goes up when a line can no longer be read as before."""
HEADER = json.dumps({"journal": "pointsman benchmark", "version": JOURNAL_VERSION})
"""The first line of every journal."""

DIGEST_CHARACTER_COUNT = 32
"""128 bits: no two questions that anybody asks have the same."""


class Purpose(StrEnum):
    """What a call is for."""

    ANSWER = "answer"
    VERDICT_ALONE = "verdict_alone"
    VERDICT_FIRST = "verdict_first"
    """The judged answer is shown before the baseline answer."""
    VERDICT_SECOND = "verdict_second"
    """It is shown after it."""

    @property
    def place(self) -> Place | None:
        """How the judged answer is shown; None for what is no verdict."""
        return None if self is Purpose.ANSWER else Place(self.value.removeprefix("verdict_"))

    @classmethod
    def of_verdict(cls, place: Place) -> Purpose:
        """The purpose of a verdict on an answer that is shown so."""
        return cls(f"verdict_{place.value}")


class CallKey(NamedTuple):
    """What makes two calls the same."""

    purpose: Purpose
    prompt_id: str
    endpoint: str
    """The one that is called."""
    subject: str
    """The endpoint whose answer it is about; of an answer, the one that is called."""
    digest: str
    """Of all that is asked."""


def digest_of(conversation: Conversation, *, upstream_model: str) -> str:
    """A digest of a question as one model gets it: its turns, the shape of the answer, the sampling."""
    response_format, sampling = conversation.response_format, conversation.sampling
    asked = (
        upstream_model,
        [(message.role.value, message.text) for message in conversation.messages],
        (response_format.kind.value, response_format.json_schema),
        (sampling.temperature, sampling.output_token_count_max),
    )
    text = json.dumps(asked, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARACTER_COUNT]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A call that was answered in full."""

    key: CallKey
    text: str = field(repr=False)
    finish_reason: str
    """As `chat.FinishReason` has it."""
    input_token_count: int | None
    """As the provider counted; None where it did not. The same for the output."""
    output_token_count: int | None
    cost_usd: float | None
    """By the catalog's prices at that time; None where it has none."""
    is_cost_estimated: bool
    """The provider did not count, so its tokens were estimated."""
    ttft_s: float | None
    """None where the answer was not streamed, or is empty."""
    latency_s: float
    """From the request to the end of the answer, of the attempt that succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A call, or an attempt at one that was paid for, without an answer."""

    key: CallKey
    kind: str
    """As `errors.UpstreamErrorKind` has it."""
    message: str
    cost_usd: float | None
    """What arrived before it failed is paid for; None where the catalog has no price."""


Record = Answered | Failed


def to_line(record: Record) -> str:
    """The record as a line of the journal, without its end."""
    key = dict(zip(CallKey._fields, record.key, strict=True))
    if isinstance(record, Failed):
        fields = {"failed": record.kind, "message": record.message, "cost_usd": record.cost_usd}
    else:
        fields = {
            "text": record.text,
            "finish_reason": record.finish_reason,
            "input_tokens": record.input_token_count,
            "output_tokens": record.output_token_count,
            "cost_usd": record.cost_usd,
            "cost_estimated": record.is_cost_estimated,
            "ttft_s": record.ttft_s,
            "latency_s": record.latency_s,
        }
    return json.dumps({**key, **fields}, allow_nan=False)


def from_line(line: str) -> Record | None:
    """The record of a line; None where it is none, such as a line that was half written when the machine stopped."""
    try:
        content = parsed_json(line)
        if not isinstance(content, dict):
            return None
        key = CallKey(Purpose(content["purpose"]), *(_text(content, name) for name in CallKey._fields[1:]))
        if "failed" in content:
            return Failed(
                key=key,
                kind=_text(content, "failed"),
                message=_text(content, "message"),
                cost_usd=_number(content, "cost_usd"),
            )
        return Answered(
            key=key,
            text=_text(content, "text"),
            finish_reason=_text(content, "finish_reason"),
            input_token_count=_count(content, "input_tokens"),
            output_token_count=_count(content, "output_tokens"),
            cost_usd=_number(content, "cost_usd"),
            is_cost_estimated=content["cost_estimated"] is True,
            ttft_s=_number(content, "ttft_s"),
            latency_s=_number(content, "latency_s") or 0.0,
        )
    except (KeyError, ValueError, TypeError):
        return None


def _text(content: Mapping[str, object], name: str) -> str:
    value = content[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value


def _number(content: Mapping[str, object], name: str) -> float | None:
    value = content[name]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise TypeError(name)
    return float(value)


def _count(content: Mapping[str, object], name: str) -> int | None:
    value = _number(content, name)
    return None if value is None else int(value)


@dataclass(slots=True)
class Ledger:
    """All that the journal says: which calls have been answered, and what was spent. Look-ups are O(1); it holds every
    answer in memory.

    A verdict that can't be read counts as spent, and not as a verdict.
    """

    answered: dict[CallKey, Answered] = field(default_factory=dict, repr=False)
    """By key; of several the last."""
    spent_usd: float = 0.0
    """Of all calls whose price is known."""
    failed_usd: float = 0.0
    """The part of `spent_usd` that bought nothing: broken answers, and verdicts that can't be read."""
    judge_usd: float = 0.0
    """The part that was paid to judges."""
    unreadable_verdict_count: int = 0
    skipped_line_numbers: tuple[int, ...] = ()
    """Lines of the journal that are no record, from 1."""

    @classmethod
    def read(cls, lines: Iterable[str]) -> Ledger:
        """The ledger of a journal's lines, the header first.

        Raises:
            JournalError: the header is missing, or that of another version.
        """
        ledger, skipped = cls(), []
        for number, line in enumerate(lines, start=1):
            if number == 1:
                _check_header(line)
                continue
            record = from_line(line)
            if record is None:
                skipped.append(number)
            else:
                ledger.add(record)
        ledger.skipped_line_numbers = tuple(skipped)
        return ledger

    def add(self, record: Record) -> None:
        """Takes up a call that has ended."""
        cost_usd = record.cost_usd or 0.0
        self.spent_usd += cost_usd
        place = record.key.purpose.place
        if place is not None:
            self.judge_usd += cost_usd
        if isinstance(record, Failed):
            self.failed_usd += cost_usd
        elif place is not None and parsed_verdict(record.text, place) is None:
            self.failed_usd += cost_usd
            self.unreadable_verdict_count += 1
        else:
            self.answered[record.key] = record


def _check_header(line: str) -> None:
    try:
        header = parsed_json(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or "journal" not in header:
        raise JournalError("the first line is not that of a journal of `pointsman benchmark`; choose another --out")
    if header.get("version") != JOURNAL_VERSION:
        raise JournalError(
            f"the journal has version {header.get('version')!r}, and this pointsman reads {JOURNAL_VERSION}:"
            " go on with the one that began it, or choose another --out"
        )
