"""A JSON object of a request, read field by field: what is wrong is noted with its path, and what nobody asks for too.

Null stands for absent throughout, as it does in OpenAI's own clients, which send it for what was not set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pointsman_server.errors import FieldViolation, InvalidRequestError

FAULT_COUNT_MAX = 100
"""A request with more faults than this gets the first hundred: enough to mend it by, and a bounded answer."""
NAME_CHARACTER_COUNT_MAX = 60
"""A field's name in a path; a longer one is cut."""


class FaultCode(StrEnum):
    """What kind of fault it is, in the words that OpenAI's errors use."""

    INVALID_JSON = "invalid_json"
    INVALID_TYPE = "invalid_type"
    INVALID_VALUE = "invalid_value"
    MISSING = "missing_required_parameter"
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    UNSUPPORTED_VALUE = "unsupported_value"
    UNKNOWN_MODEL = "model_not_found"


class RefusedRequestError(InvalidRequestError):
    """The request is wrong in itself, in the words of OpenAI's protocol."""

    def __init__(self, violations: tuple[FieldViolation, ...], code: FaultCode) -> None:
        super().__init__(violations)
        self.code = code
        """What kind of fault the first violation is."""


@dataclass(slots=True)
class Faults:
    """The faults found so far."""

    violations: list[FieldViolation] = field(default_factory=list)
    code: FaultCode = FaultCode.INVALID_VALUE
    """Of the first one."""

    def add(self, path: str, code: FaultCode, description: str) -> None:
        """Notes one fault; beyond the maximum they are dropped."""
        if not self.violations:
            self.code = code
        if len(self.violations) < FAULT_COUNT_MAX:
            self.violations.append(FieldViolation(path, description))

    def check(self) -> None:
        """Ends the reading.

        Raises:
            RefusedRequestError: something was found.
        """
        if self.violations:
            raise RefusedRequestError(tuple(self.violations), self.code)


class JsonObject:
    """One object. Ask for every field that it may hold, then call `finish`."""

    def __init__(self, values: Mapping[str, object], path: str, faults: Faults) -> None:
        self.values = values
        self.path = path
        self.faults = faults
        self._asked: set[str] = set()

    def child(self, name: str) -> str:
        """The path of a field."""
        short = name if len(name) <= NAME_CHARACTER_COUNT_MAX else f"{name[:NAME_CHARACTER_COUNT_MAX]}..."
        return f"{self.path}.{short}" if self.path else short

    def has(self, name: str) -> bool:
        """Whether the field is there, and not null."""
        return self.values.get(name) is not None

    def value(self, name: str) -> object:
        """The field as it is; None when absent."""
        self._asked.add(name)
        return self.values.get(name)

    def fault(self, name: str, description: str, code: FaultCode = FaultCode.INVALID_VALUE) -> None:
        """The field is wrong for a reason that the caller knows."""
        self.faults.add(self.child(name), code, description)

    def text(self, name: str) -> str | None:
        """A text; None when absent or wrong."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, str):
            self._wrong(name, "text", value)
            return None
        if not is_whole(value):
            self.fault(name, "holds half of a surrogate pair, which is no character")
            return None
        return value

    def required_text(self, name: str) -> str:
        """A text that must be there; empty when it is not, or wrong."""
        if not self.has(name):
            self._asked.add(name)
            self.fault(name, "is required", FaultCode.MISSING)
        return self.text(name) or ""

    def number(self, name: str) -> float | None:
        """A finite number; None when absent or wrong."""
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._wrong(name, "a number", value)
            return None
        # A whole number may have any length, and a float has none for it.
        if isinstance(value, int) and abs(value) >= 1 << 63:
            self.fault(name, "is no number of a size that could be meant")
            return None
        return float(value)

    def whole_number(self, name: str, *, bits: int) -> int | None:
        """A whole number that fits into so many bits, its sign included; None when absent or wrong."""
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self._wrong(name, "a whole number", value)
            return None
        limit = 1 << (bits - 1)
        if not -limit <= value < limit:
            self.fault(name, f"must be a whole number from {-limit} to {limit - 1}")
            return None
        return value

    def flag(self, name: str) -> bool | None:
        """True or false; None when absent or wrong."""
        value = self.value(name)
        if value is None or isinstance(value, bool):
            return value
        self._wrong(name, "true or false", value)
        return None

    def inner(self, name: str) -> JsonObject | None:
        """An object; None when absent or wrong."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self._wrong(name, "an object", value)
            return None
        return JsonObject(value, self.child(name), self.faults)

    def items(self, name: str) -> Sequence[object]:
        """The entries of an array; empty when absent or wrong."""
        value = self.value(name)
        if value is None:
            return ()
        if isinstance(value, list):
            return value
        self._wrong(name, "an array", value)
        return ()

    def objects(self, name: str) -> list[JsonObject]:
        """The entries of an array of objects; those that are none are faults, and left out."""
        found = []
        for index, item in enumerate(self.items(name)):
            path = f"{self.child(name)}[{index}]"
            if isinstance(item, dict):
                found.append(JsonObject(item, path, self.faults))
            else:
                self.faults.add(path, FaultCode.INVALID_TYPE, f"must be an object, not {kind(item)}")
        return found

    def only(self, name: str, *values: object, otherwise: str) -> None:
        """A field that is taken only where it says what holds anyway."""
        value = self.value(name)
        if value is not None and not any(value == known and type(value) is type(known) for known in values):
            self.fault(name, otherwise, FaultCode.UNSUPPORTED_VALUE)

    def finish(self) -> None:
        """Notes every field that nobody asked for."""
        for name, value in self.values.items():
            if name not in self._asked and value is not None:
                self.fault(name, "is not supported; leave it out", FaultCode.UNSUPPORTED_PARAMETER)

    def _wrong(self, name: str, wanted: str, value: object) -> None:
        self.fault(name, f"must be {wanted}, not {kind(value)}", FaultCode.INVALID_TYPE)


def kind(value: object) -> str:
    """What a value is, in JSON's words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "text"
        case int():
            return "a number"
        case float():
            return "a number with a fraction" if math.isfinite(value) else "no number"
        case list():
            return "an array"
        case _:
            return "an object"


def is_whole(text: str) -> bool:
    """Whether UTF-8 can carry the text: an escape of JSON's may name half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
