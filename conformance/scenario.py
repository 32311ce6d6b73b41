"""The scenarios as they are read from scenarios.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pointsman.v1.router_service_pb2 import DESCRIPTOR

SCENARIOS_FILE = Path(__file__).with_name("scenarios.json")
METHODS = DESCRIPTOR.services_by_name["RouterService"].methods_by_name

JsonValue: TypeAlias = "JsonObject | list[JsonValue] | str | int | float | bool | None"
JsonObject: TypeAlias = "dict[str, JsonValue]"

REPEAT = "$repeat"
"""{"$repeat": ["ab", 3]} stands for "ababab", so that four megabytes fit into a line."""
SCENARIO_KEYS = frozenset(
    {"name", "title", "server", "upstreams", "weather", "standin", "call", "expect", "upstreams_see", "standin_sees"}
)
CALL_KEYS = frozenset({"method", "requests", "metadata", "api_key", "timeout_s", "cancel_after"})


@dataclass(frozen=True, slots=True)
class Call:
    """What a client is to do."""

    method: str
    """Of RouterService."""
    requests: tuple[Message, ...]
    """One, but for a client stream."""
    metadata: Mapping[str, str]
    """Headers to send along."""
    api_key: str | None
    """None sends none."""
    timeout_s: float | None
    """None leaves it to the client's default."""
    cancel_after: int | None
    """The caller leaves after so many responses. None: it stays to the end."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that every client must get right. The parts that only one reader understands stay JSON until there."""

    name: str
    """In words with hyphens between them."""
    title: str
    """One line for people: the row in docs/clients.md."""
    server: JsonObject
    """`endpoints`, `api_keys`, `tls`; see stage.py."""
    upstreams: JsonObject
    """What each provider does with each connection, by name; see stage.py."""
    weather: JsonObject | None
    """Simulated providers in place of scripted ones, with their seed; see stage.py."""
    standin: JsonObject | None
    """A server in place of the real one, see standin.py. None, as almost always: the real one."""
    call: Call
    expect: JsonObject
    """What the caller must see; see judge.py."""
    upstreams_see: JsonObject
    """What each provider must see, by name; see judge.py."""
    standin_sees: JsonObject
    """What the stand-in must see; see judge.py."""


def load_scenarios(path: Path = SCENARIOS_FILE) -> tuple[Scenario, ...]:
    """Every scenario, in the order of the file.

    Raises:
        ValueError: a scenario has an unknown key, or its request is not of its method.
    """
    read = cast("list[JsonObject]", json.loads(path.read_text(encoding="utf-8")))
    scenarios = tuple(_scenario(expanded(each)) for each in read)
    if len({scenario.name for scenario in scenarios}) != len(scenarios):
        raise ValueError(f"{path.name}: two scenarios share a name")
    return scenarios


def expanded(value: JsonValue) -> JsonObject:
    """A JSON object in which every `$repeat` is written out."""
    return cast("JsonObject", _expanded(value))


def _expanded(value: JsonValue) -> JsonValue:
    if isinstance(value, list):
        return [_expanded(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {REPEAT}:
        text, count = cast("tuple[str, int]", value[REPEAT])
        return text * count
    return {key: _expanded(each) for key, each in value.items()}


def _scenario(value: JsonObject) -> Scenario:
    name = str(value["name"])
    if unknown := value.keys() - SCENARIO_KEYS:
        raise ValueError(f"{name}: there is no {', '.join(sorted(unknown))} in a scenario")
    try:
        call = _call(cast("JsonObject", value["call"]))
    except json_format.ParseError as error:
        raise ValueError(f"{name}: {error}") from None
    return Scenario(
        name=name,
        title=str(value["title"]),
        server=cast("JsonObject", value.get("server", {})),
        upstreams=cast("JsonObject", value.get("upstreams", {})),
        weather=cast("JsonObject | None", value.get("weather")),
        standin=cast("JsonObject | None", value.get("standin")),
        call=call,
        expect=cast("JsonObject", value["expect"]),
        upstreams_see=cast("JsonObject", value.get("upstreams_see", {})),
        standin_sees=cast("JsonObject", value.get("standin_sees", {})),
    )


def _call(value: JsonObject) -> Call:
    if unknown := value.keys() - CALL_KEYS:
        raise ValueError(f"there is no {', '.join(sorted(unknown))} in a call")
    method = str(value["method"])
    request_class = GetMessageClass(METHODS[method].input_type)
    requests = cast("list[JsonObject]", value["requests"])
    return Call(
        method=method,
        requests=tuple(json_format.ParseDict(request, request_class()) for request in requests),
        metadata=cast("dict[str, str]", value.get("metadata", {})),
        api_key=cast("str | None", value.get("api_key")),
        timeout_s=cast("float | None", value.get("timeout_s")),
        cancel_after=cast("int | None", value.get("cancel_after")),
    )
