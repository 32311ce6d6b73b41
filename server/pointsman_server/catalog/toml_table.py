"""Reading TOML so that every fault is told at once, each with its path, what is wrong and what would be right.

A `Table` hands out its keys one by one, checked. Whatever nobody asked for is a fault too: a misspelled key must not
pass as an unset one. Values stay out of the messages wherever they could be a secret in the wrong place.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pointsman_server.errors import ConfigError, FieldViolation

TEXT_CHARACTER_COUNT_MAX = 8192
"""Longest single value: twice the longest router string."""
FAULT_COUNT_MAX = 100
"""Faults that are listed; nobody reads more before fixing some, and a file of 4 MiB could hold a million."""
NAME_CHARACTER_COUNT_MAX = 128
"""Longest name, and as much of a wrong one as is compared with the known ones and shown in a message."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

Number = TypeVar("Number", float, None)
WholeNumber = TypeVar("WholeNumber", int, None)
Flag = TypeVar("Flag", bool, None)


@dataclass(frozen=True, slots=True)
class TextRule:
    """What a text must look like."""

    pattern: re.Pattern[str]
    """Matched against the whole text."""
    wanted: str
    """The rule in words, such as `a name of letters and digits`; never quotes the text."""


@dataclass(frozen=True, slots=True)
class Hint:
    """What may have been meant by a word that is not known. The search waits until the fault is listed: it is slow."""

    word: str
    known: Collection[str]
    otherwise: str = ""
    """What to say when no known word is like it."""

    def text(self) -> str:
        """`; did you mean ...?`, or the other advice."""
        matches = difflib.get_close_matches(self.word[:NAME_CHARACTER_COUNT_MAX], self.known, n=1)
        advice = f"did you mean {matches[0]}?" if matches else self.otherwise
        return f"; {advice}" if advice else ""


class Faults:
    """Collects the faults of a configuration. Memory: at most `FAULT_COUNT_MAX` of them, and a count of the rest."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []
        self._unlisted_count = 0

    def add(self, path: str, description: str, hint: Hint | None = None) -> None:
        """One more fault."""
        if len(self._violations) == FAULT_COUNT_MAX:
            self._unlisted_count += 1
            return
        self._violations.append(FieldViolation(path, description + (hint.text() if hint else "")))

    def raise_if_any(self, source: str) -> None:
        """Ends the reading of `source` if it has faults.

        Raises:
            ConfigError: It has.
        """
        if not self._violations:
            return
        more = f"and {self._unlisted_count} more faults"
        rest = (FieldViolation("...", more),) if self._unlisted_count else ()
        raise ConfigError(source, (*self._violations, *rest))


class Table:
    """One TOML table. Ask for every key that it may hold, then call `finish`.

    Each reader gives the default when the key is absent, and also when its value is a fault: the fault is recorded, so
    whatever is built from the default is never used.
    """

    def __init__(self, values: Mapping[str, object], path: str, faults: Faults) -> None:
        self.path = path
        self._values = values
        self._faults = faults
        self._asked: list[str] = []
        self._forbidden: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    @property
    def names(self) -> tuple[str, ...]:
        """The keys that are there, in the order of the file: for a table whose names are free."""
        return tuple(self._values)

    def child(self, key: str) -> str:
        """The path of a key, quoted where TOML would quote it."""
        shown = shortened(key) if _BARE_KEY.fullmatch(key) else json.dumps(shortened(key), ensure_ascii=False)
        return f"{self.path}{'.' if self.path and not self.path.endswith(':') else ''}{shown}"

    def fault(self, key: str | None, description: str, hint: Hint | None = None) -> None:
        """The value of that key, or without a key the table itself, is wrong for a reason that the caller knows."""
        self._faults.add(self.path if key is None else self.child(key), description, hint)

    def require(self, *keys: str) -> None:
        """Records each of these keys that is absent."""
        for key in keys:
            if key not in self._values:
                self.fault(key, "is required")

    def forbid(self, key: str, reason: str) -> None:
        """Records the key if it is there, with an explanation of its own instead of a guess at another key."""
        if key in self._values:
            self.fault(key, reason)
            self._forbidden.add(key)

    def text(self, key: str, rule: TextRule | None = None) -> str | None:
        """A text that is not empty; None when absent."""
        value = self._take(key)
        if value is None:
            return None
        return self._checked_text(self.child(key), value, rule)

    def texts(self, key: str, rule: TextRule | None = None) -> tuple[str, ...]:
        """An array of texts, each at most once; empty when absent."""
        value = self._take(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.fault(key, f"must be an array of texts, not {_kind(value)}")
            return ()
        texts: dict[str, None] = {}
        for index, item in enumerate(value):
            path = f"{self.child(key)}[{index}]"
            text = self._checked_text(path, item, rule)
            if text in texts:
                self._faults.add(path, "is listed twice")
            elif text is not None:
                texts[text] = None
        return tuple(texts)

    def text_or_texts(self, key: str, rule: TextRule | None = None) -> tuple[str, ...]:
        """A text, or an array of texts, each at most once; empty when absent."""
        if isinstance(self._values.get(key), list):
            return self.texts(key, rule)
        text = self.text(key, rule)
        return () if text is None else (text,)

    def text_table(self, key: str, rule: TextRule) -> tuple[tuple[str, str], ...]:
        """A table of texts under free names, in the order of the file; empty when absent."""
        child = self.table(key)
        pairs = [(name, child.text(name, rule)) for name in child.names]
        return tuple((name, value) for name, value in pairs if value is not None)

    def number(
        self, key: str, default: Number, *, minimum: float, maximum: float, above_minimum: bool = False
    ) -> float | Number:
        """A finite number within the range; `above_minimum` excludes the minimum itself."""
        value = self._take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fault(key, f"must be a number, not {_kind(value)}")
            return default
        # A comparison with NaN is false, so NaN falls through to the fault.
        if (minimum < value if above_minimum else minimum <= value) and value <= maximum:
            return float(value)
        low = f"above {minimum:g} and at most {maximum:g}" if above_minimum else f"from {minimum:g} to {maximum:g}"
        self.fault(key, f"must be a number {low}, not {_shown_number(value)}")
        return default

    def whole_number(self, key: str, default: WholeNumber, *, minimum: int, maximum: int) -> int | WholeNumber:
        """A whole number within the range."""
        value = self._take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            fraction = " with a fraction" if isinstance(value, float) else ""
            self.fault(key, f"must be a whole number, not {_kind(value)}{fraction}")
            return default
        if minimum <= value <= maximum:
            return value
        self.fault(key, f"must be a whole number from {minimum} to {maximum}, not {_shown_number(value)}")
        return default

    def flag(self, key: str, default: Flag) -> bool | Flag:
        """True or false."""
        value = self._take(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        self.fault(key, f"must be true or false, not {_kind(value)}")
        return default

    def table(self, key: str) -> Table:
        """A table; an empty one when absent."""
        value = self._take(key)
        if isinstance(value, dict):
            return Table(value, self.child(key), self._faults)
        if value is not None:
            self.fault(key, f"must be a table, not {_kind(value)}")
        return Table({}, self.child(key), self._faults)

    def tables(self, key: str, *, count_max: int) -> tuple[tuple[str, Table], ...]:
        """A table of named tables, in the order of the file; empty when absent."""
        parent = self.table(key)
        names = parent.names
        if len(names) > count_max:
            self.fault(key, f"must hold at most {count_max} tables, not {len(names)}")
        return tuple((name, parent.table(name)) for name in names[:count_max])

    def array_of_tables(self, key: str, *, count_max: int) -> tuple[Table, ...]:
        """An array of tables; empty when absent."""
        value = self._take(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.fault(key, f"must be an array of tables ([[{key}]]), not {_kind(value)}")
            return ()
        if len(value) > count_max:
            self.fault(key, f"must hold at most {count_max} tables, not {len(value)}")
        tables: list[Table] = []
        for index, item in enumerate(value[:count_max]):
            path = f"{self.child(key)}[{index}]"
            if isinstance(item, dict):
                tables.append(Table(item, path, self._faults))
            else:
                self._faults.add(path, f"must be a table, not {_kind(item)}")
        return tuple(tables)

    def finish(self) -> None:
        """Records every key that nobody asked for."""
        for key in self._values:
            if key not in self._asked and key not in self._forbidden:
                self.fault(key, "is unknown", Hint(key, self._asked))

    def _take(self, key: str) -> object | None:
        self._asked.append(key)
        return self._values.get(key)

    def _checked_text(self, path: str, value: object, rule: TextRule | None) -> str | None:
        if not isinstance(value, str):
            self._faults.add(path, f"must be text, not {_kind(value)}")
        elif not value:
            self._faults.add(path, "must not be empty")
        elif len(value) > TEXT_CHARACTER_COUNT_MAX:
            self._faults.add(path, f"must be at most {TEXT_CHARACTER_COUNT_MAX} characters long, not {len(value)}")
        elif rule is not None and rule.pattern.fullmatch(value) is None:
            self._faults.add(path, f"must be {rule.wanted}")
        else:
            return value
        return None


def shortened(text: str) -> str:
    """A name as a message shows it."""
    return text if len(text) <= NAME_CHARACTER_COUNT_MAX else f"{text[:NAME_CHARACTER_COUNT_MAX]}..."


def parse_toml(text: str, source: str) -> dict[str, object]:
    """The tables of a TOML text.

    Raises:
        ConfigError: It is no TOML; says where.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        reason = "nests its values too deeply"
    except ValueError as error:  # TOMLDecodeError, and whole numbers that Python refuses to convert
        reason = f"is no TOML: {error}"
    raise ConfigError(source, (FieldViolation("file", reason),))


def read_text(path: Path, *, bytes_max: int) -> str:
    """The text of a configuration file.

    Raises:
        ConfigError: It can't be read, is too large, or is no UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
        if len(content) <= bytes_max:
            return content.decode("utf-8")
        reason = f"must be at most {bytes_max} bytes long"
    except UnicodeDecodeError as error:
        reason = f"must be UTF-8 text; byte {error.start} is not"
    except OSError as error:
        reason = f"can't be read: {error.strerror}"
    raise ConfigError(str(path), (FieldViolation("file", reason),))


def _shown_number(value: float) -> str:
    """A number in a message; one that is too long to print is described."""
    return "a number of more than 18 digits" if 1e18 <= abs(value) < math.inf else f"{value}"


def _kind(value: object) -> str:
    """What a value is, in TOML's words."""
    match value:
        case bool():
            return "true or false"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return "a date or time"
