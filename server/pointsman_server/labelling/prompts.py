"""The user's prompts: a JSONL file, checked as a whole before anything is asked. Pure.

    {"prompt_id": "q1", "prompt": "What is 17 * 23?", "score": "number", "expected": 391, "category": "arithmetic"}

docs/benchmarking.md is the reader's version.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pointsman_server.chat import Conversation, Message, Role, TextPart, prompt_text
from pointsman_server.labelling.errors import LineFault, PromptFileError
from pointsman_server.labelling.scoring import (
    ChoiceMatch,
    Compared,
    ExactMatch,
    JsonMatch,
    Judged,
    Method,
    NumberMatch,
    PatternMatch,
    Rule,
    RuleError,
    number_of,
    parsed_json,
)

PROMPT_COUNT_MAX = 200_000
"""Twenty times the largest public set that routers are trained on; each takes about a kilobyte here, and so does each answer."""
MESSAGE_COUNT_MAX = 1_000
"""Turns of one prompt, as many as the server takes."""
PROMPT_ID_CHARACTER_COUNT_MAX = 200
"""A name; it stands in every line of the journal."""
EXPECTED_COUNT_MAX = 100
"""Texts of which an answer may be any; more are a pattern."""
TOLERANCE_MAX = 1.0
"""A number that may be off by more than itself says nothing."""
SPLITS = ("train", "val", "test")
"""What training calls the parts of its data."""

_ROLES = {role.value: role for role in (Role.SYSTEM, Role.USER, Role.ASSISTANT)}
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringDefaults:
    """How prompts are scored that don't say so themselves, and what there is to judge with."""

    method: Method | None = None
    """None: every prompt has to say."""
    ignore_case: bool = False
    """For `exact`."""
    has_judge: bool = False
    has_baseline: bool = False
    """Whether an endpoint gives the baseline answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPrompt:
    """One line of the file."""

    line_number: int
    """From 1."""
    prompt_id: str
    messages: tuple[Message, ...] = field(repr=False)
    rule: Rule
    category: str = ""
    split: str | None = None
    """None leaves the split to training."""
    text: str = field(init=False, repr=False)
    """The prompt as the quality model reads it: the last user turn after the system text."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", prompt_text(Conversation(self.messages)))


def read_prompts(lines: Iterable[str], *, source: str, defaults: ScoringDefaults) -> tuple[LabelledPrompt, ...]:
    """The prompts of a file, in its order; blank lines are passed over, and so are keys that mean nothing here.

    Raises:
        PromptFileError: there are faults; all are listed, each with its line.
    """
    prompts: list[LabelledPrompt] = []
    faults: list[LineFault] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if len(prompts) + len(faults) == PROMPT_COUNT_MAX:
            faults.append(LineFault(number, f"is one prompt too many: at most {PROMPT_COUNT_MAX:,} are taken"))
            break
        try:
            prompt = _prompt(number, line, defaults)
        except _FaultError as fault:
            faults.append(LineFault(number, str(fault)))
            continue
        earlier = line_of.setdefault(prompt.prompt_id, number)
        if earlier == number:
            prompts.append(prompt)
        else:
            faults.append(LineFault(number, f"prompt_id {prompt.prompt_id!r} is that of line {earlier} already"))
    faults += _split_faults(prompts)
    if not prompts and not faults:
        faults.append(LineFault(1, "the file holds no prompt"))
    if faults:
        raise PromptFileError(source, tuple(sorted(faults, key=lambda fault: fault.line_number)))
    return tuple(prompts)


class _FaultError(Exception):
    """What is wrong with a line."""


def _prompt(number: int, line: str, defaults: ScoringDefaults) -> LabelledPrompt:
    content = _object(line)
    prompt_id = _value(content, "prompt_id", str)
    if not prompt_id or len(prompt_id) > PROMPT_ID_CHARACTER_COUNT_MAX:
        raise _FaultError(f"prompt_id must be a text of 1 to {PROMPT_ID_CHARACTER_COUNT_MAX} characters")
    split = _value(content, "split", str)
    if split is not None and split not in SPLITS:
        raise _FaultError(f"split must be one of {', '.join(SPLITS)}")
    return LabelledPrompt(
        line_number=number,
        prompt_id=prompt_id,
        messages=_messages(content),
        rule=_rule(content, defaults),
        category=_value(content, "category", str) or "",
        split=split,
    )


def _object(line: str) -> Mapping[str, object]:
    try:
        content = parsed_json(line)
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _FaultError("holds half of a surrogate pair, which is no character") from None
    except (ValueError, RecursionError):
        raise _FaultError("is not JSON") from None
    if not isinstance(content, dict):
        raise _FaultError("is not a JSON object")
    return content


def _value(content: Mapping[str, object], key: str, kind: type[_Value]) -> _Value | None:
    """The value of a key, which must be of that kind; None where it is absent or null."""
    value = content.get(key)
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _FaultError(f"{key} must be {'true or false' if kind is bool else 'a text'}")
    return value


def _messages(content: Mapping[str, object]) -> tuple[Message, ...]:
    if ("prompt" in content) == ("messages" in content):
        raise _FaultError("must have either prompt or messages")
    if "prompt" in content:
        prompt = _value(content, "prompt", str)
        if not prompt:
            raise _FaultError("prompt must be a text that is not empty")
        return (Message(Role.USER, (TextPart(prompt),)),)
    turns = content["messages"]
    if not isinstance(turns, list) or not 1 <= len(turns) <= MESSAGE_COUNT_MAX:
        raise _FaultError(f"messages must be a list of 1 to {MESSAGE_COUNT_MAX:,} turns")
    messages = tuple(_message(turn, index) for index, turn in enumerate(turns))
    if messages[-1].role is not Role.USER:
        raise _FaultError("the last of messages must be the user's, which is what is answered")
    return messages


def _message(turn: object, index: int) -> Message:
    role, text = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
    if role not in _ROLES or not isinstance(text, str) or not text:
        raise _FaultError(
            f"messages[{index}] must have a role ({', '.join(_ROLES)}) and as content a text that is not empty"
        )
    return Message(_ROLES[role], (TextPart(text),))


def _rule(content: Mapping[str, object], defaults: ScoringDefaults) -> Rule:
    named = _value(content, "score", str)
    try:
        method = defaults.method if named is None else Method(named)
    except ValueError:
        raise _FaultError(f"score must be one of {', '.join(Method)}") from None
    if method is None:
        raise _FaultError(f"does not say how it is scored: add score (one of {', '.join(Method)}), or give --score")
    try:
        return _rule_of(method, content, defaults)
    except RuleError as failed:
        raise _FaultError(str(failed)) from None


def _rule_of(method: Method, content: Mapping[str, object], defaults: ScoringDefaults) -> Rule:
    if method in {Method.JUDGE, Method.PAIRWISE}:
        return _judged(method, content, defaults)
    if content.get("expected") is None and not (method is Method.JSON and "expected" in content):
        raise _FaultError(f"expected is missing, which {method} compares the answer with")
    expected = content["expected"]
    match method:
        case Method.EXACT:
            ignore_case = _value(content, "ignore_case", bool)
            ignore_space = _value(content, "ignore_space", bool)
            return ExactMatch(
                _texts(expected),
                ignore_case=defaults.ignore_case if ignore_case is None else ignore_case,
                ignore_space=True if ignore_space is None else ignore_space,
            )
        case Method.REGEX:
            if not isinstance(expected, str) or not expected:
                raise _FaultError("expected must be a regular expression, which is a text")
            return PatternMatch(expected)
        case Method.NUMBER:
            return NumberMatch(number_of(expected), tolerance=_tolerance(content))
        case Method.CHOICE:
            letter = expected.strip().upper() if isinstance(expected, str) else ""
            if len(letter) != 1 or not "A" <= letter <= "Z":
                raise _FaultError("expected must be the letter of the right choice, A to Z")
            return ChoiceMatch(letter)
        case _:
            return JsonMatch(expected)


def _judged(method: Method, content: Mapping[str, object], defaults: ScoringDefaults) -> Rule:
    if not defaults.has_judge:
        raise _FaultError(f"is scored by {method}, but there is no judge: give --judge ENDPOINT")
    if method is Method.JUDGE:
        return Judged(_value(content, "expected", str))
    baseline = _value(content, "baseline", str)
    if baseline is None and not defaults.has_baseline:
        raise _FaultError("has no baseline to compare with: add baseline (an answer), or give --baseline ENDPOINT")
    return Compared(baseline)


def _texts(expected: object) -> tuple[str, ...]:
    texts = expected if isinstance(expected, list) else [expected]
    if not 1 <= len(texts) <= EXPECTED_COUNT_MAX or not all(isinstance(text, str) for text in texts):
        raise _FaultError(
            f"expected must be a text, or a list of 1 to {EXPECTED_COUNT_MAX} texts of which any is right"
        )
    return tuple(texts)


def _tolerance(content: Mapping[str, object]) -> float:
    value = content.get("tolerance", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= TOLERANCE_MAX:
        raise _FaultError(f"tolerance must be a number from 0 to {TOLERANCE_MAX:g}, relative to the expected one")
    return float(value)


def _split_faults(prompts: Iterable[LabelledPrompt]) -> list[LineFault]:
    """Training takes a split of every prompt or of none."""
    with_split = [prompt for prompt in prompts if prompt.split is not None]
    if not with_split:
        return []
    reason = f"has no split, while line {with_split[0].line_number} has one: give one to all or to none"
    return [LineFault(prompt.line_number, reason) for prompt in prompts if prompt.split is None]
