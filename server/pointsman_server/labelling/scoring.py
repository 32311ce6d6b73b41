"""How an answer is scored: what counts as right, by comparison alone or by the word of a judge. Pure.

Whatever stands in an answer, scoring it takes time linear in its length: an answer is a stranger's text.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

import re2

PATTERN_CHARACTER_COUNT_MAX = 10_000
"""A pattern that a person can still read; the compiled form is bounded by `PATTERN_BYTES_MAX`."""
PATTERN_BYTES_MAX = 8 * 1024 * 1024
"""What one compiled pattern may take: RE2's own default, named."""
NUMBER_CHARACTER_COUNT_MAX = 100
"""Longer than any number that is an answer; beyond, digits are data, and their arithmetic would cost."""

_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-+])?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]{1,3}(?![0-9]))?"
)
_NUMBER_TEXT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_MINUS_SIGNS = str.maketrans({"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-"})

_MARKUP = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)\b|[*_`$\\{}]")
_CHOSEN = re.compile(r"\b(?i:answer)(?i:\s{1,3}is|\s{0,3}[:=])?:?\s{0,3}[\[(\"']?([A-Za-z])(?![\w'])")
_CHOSEN_FIRST = re.compile(r"\s{0,8}[\[(\"']?([A-Z])(?:[\])\"'.:,]|\s{0,8}$)")
_CHOSEN_ALONE = re.compile(r"\s{0,8}[\[(\"']?([A-Za-z])[\])\"'.:,]{0,3}\s{0,8}")

_FENCED = re.compile(
    r"^[ \t]{0,3}```[ \t]{0,3}(?:json|JSON)?[ \t]{0,3}\r?\n(.*?)^[ \t]{0,3}```", re.DOTALL | re.MULTILINE
)


class Method(StrEnum):
    """The ways to score, by the names that the prompt file uses."""

    EXACT = "exact"
    REGEX = "regex"
    NUMBER = "number"
    CHOICE = "choice"
    JSON = "json"
    JUDGE = "judge"
    """A judge grades the answer, with a reference answer before it if there is one."""
    PAIRWISE = "pairwise"
    """A judge grades the answer side by side with a baseline answer, in both orders."""


class RuleError(ValueError):
    """What is expected can't be used with that way of scoring; the text says what would be right."""


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """The answer is one of these texts."""

    expected: tuple[str, ...] = field(repr=False)
    ignore_case: bool = False
    ignore_space: bool = True
    """Blanks at the ends are dropped, and a run of blanks or line ends within counts as one blank."""

    def score(self, answer: str) -> float:
        """1 where they are equal, else 0."""
        return float(any(self._normal(answer) == self._normal(text) for text in self.expected))

    def _normal(self, text: str) -> str:
        spaced = " ".join(text.split()) if self.ignore_space else text
        return spaced.casefold() if self.ignore_case else spaced


class PatternMatch:
    """The answer has a match of a regular expression anywhere, in RE2's syntax.

    RE2 takes time linear in the text, so no pattern can hang a run, and no score hangs on how fast the machine is, as it
    would with a time limit. In return it has neither look-around nor back references.
    """

    __slots__ = ("_compiled",)

    def __init__(self, pattern: str) -> None:
        """Compiles it.

        Raises:
            RuleError: it is too long, or not a pattern.
        """
        if len(pattern) > PATTERN_CHARACTER_COUNT_MAX:
            raise RuleError(f"the pattern must have at most {PATTERN_CHARACTER_COUNT_MAX:,} characters")
        options = re2.Options()
        options.log_errors = False
        options.never_capture = True
        options.max_mem = PATTERN_BYTES_MAX
        try:
            self._compiled = re2.compile(pattern, options)
        except re2.error as failed:
            raise RuleError(f"the pattern is not one in RE2's syntax: {_pattern_fault(failed)}") from None

    def __repr__(self) -> str:
        return "PatternMatch()"

    def score(self, answer: str) -> float:
        """1 where there is a match, else 0."""
        return float(self._compiled.search(answer) is not None)


def _pattern_fault(failed: re2.error) -> str:
    """RE2's own words, which name the part of the pattern that it can't take."""
    (words,) = failed.args
    return words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)


@dataclass(frozen=True, slots=True)
class NumberMatch:
    """The last number of the answer is this one, give or take."""

    expected: Decimal = field(repr=False)
    tolerance: float = 0.0
    """Relative: 0.01 takes what is within a hundredth of the expected number. 0 takes the same value alone."""

    def score(self, answer: str) -> float:
        """1 where it is, else 0; an answer without a number is wrong."""
        found = last_number(answer)
        if found is None:
            return 0.0
        return float(abs(found - self.expected) <= abs(self.expected) * Decimal(repr(self.tolerance)))


def last_number(text: str) -> Decimal | None:
    """The last decimal number of a text, with thousands' commas or without; None where there is none."""
    last = None
    for match in _NUMBER.finditer(text.translate(_MINUS_SIGNS)):
        last = match.group()
    if last is None or len(last) > NUMBER_CHARACTER_COUNT_MAX:
        return None
    return Decimal(last.replace(",", ""))


def number_of(expected: object) -> Decimal:
    """The number that a prompt file expects: a number, or a text that is one.

    Raises:
        RuleError: it is none.
    """
    text = str(expected).strip().replace(",", "") if isinstance(expected, int | float | str) else ""
    is_number = not isinstance(expected, bool) and len(text) <= NUMBER_CHARACTER_COUNT_MAX
    if not is_number or _NUMBER_TEXT.fullmatch(text) is None:
        raise RuleError('expected must be a number, such as 42 or "1,234.5"')
    return Decimal(text)


@dataclass(frozen=True, slots=True)
class ChoiceMatch:
    """The answer settles on this letter of a multiple-choice question."""

    expected: str
    """A to Z."""

    def score(self, answer: str) -> float:
        """1 where it does, else 0; an answer that settles on none is wrong."""
        return float(chosen_letter(answer) == self.expected)


def chosen_letter(answer: str) -> str | None:
    """The letter that an answer settles on: alone, or in its last "answer is C", or with "C)", "C." or "C:" at the start of
    the whole answer. Markdown and LaTeX around it don't count. None where it settles on none."""
    text = _MARKUP.sub("", answer)
    if alone := _CHOSEN_ALONE.fullmatch(text):
        return alone[1].upper()
    stated = [match[1] for match in _CHOSEN.finditer(text) if match[1].isupper()]
    if stated:
        return str(stated[-1])
    first = _CHOSEN_FIRST.match(text)
    return None if first is None else first[1]


@dataclass(frozen=True, slots=True)
class JsonMatch:
    """The answer is JSON of this value: the order of keys and the writing of numbers don't count."""

    expected: object = field(repr=False)

    def score(self, answer: str) -> float:
        """1 where it is, else 0; an answer that is no JSON is wrong."""
        try:
            value = parsed_json(json_text(answer))
        except ValueError:
            return 0.0
        return float(equal_json(value, self.expected))


def json_text(answer: str) -> str:
    """The part of an answer that is to be JSON: what the last fenced block holds, or all of it where there is none."""
    fenced = _FENCED.findall(answer)
    return str(fenced[-1]) if fenced else answer.strip()


def parsed_json(text: str) -> object:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON: it holds NaN, an infinity, a number that is too large, or it nests too deep.
    """
    try:
        value: object = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def _no_constant(name: str) -> object:
    """Refuses NaN and the infinities, which Python reads though JSON has none."""
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("beyond the range of a double")
    return value


def equal_json(left: object, right: object) -> bool:
    """Whether two JSON values are the same; 1 and 1.0 are, 1 and true are not. However deep, it does not recurse."""
    pending: list[tuple[Any, Any]] = [(left, right)]
    while pending:
        one, other = pending.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                return False
            pending += [(value, other[key]) for key, value in one.items()]
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            pending += zip(one, other, strict=True)
        elif isinstance(one, bool) or isinstance(other, bool):
            if one is not other:
                return False
        elif one != other:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge grades the answer."""

    reference: str | None = field(default=None, repr=False)
    """An answer that is known to be good; None has the judge go by the prompt alone."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A judge grades the answer beside a baseline answer, in both orders."""

    baseline: str | None = field(default=None, repr=False)
    """None: what the baseline endpoint answers."""


MechanicalRule = ExactMatch | PatternMatch | NumberMatch | ChoiceMatch | JsonMatch
Rule = MechanicalRule | Judged | Compared
