"""How `[providers.NAME]` is written, and what the environment adds to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pointsman_server.catalog.entry_table import PROVIDER_RULE, Labels, read_labels
from pointsman_server.catalog.toml_table import Faults, Hint, Table, TextRule, shortened
from pointsman_server.config.text_rules import VARIABLE_RULE, read_timeout_s, read_url, url_fault
from pointsman_server.execution.probing import PROBE_TOKEN_COUNT, ProbeSettings
from pointsman_server.providers.base import (
    CONNECT_TIMEOUT_S,
    CONNECTION_COUNT_MAX,
    IDLE_TIMEOUT_S,
    SECRET_PATTERN,
    WHOLE_ANSWER_TIMEOUT_S,
    ProviderSettings,
    Secret,
)
from pointsman_server.providers.dialects import DIALECTS, GENERIC, Dialect, MaxTokensField
from pointsman_server.providers.traits import AdapterTraits

DEFAULT_ADAPTER = "openai_compatible"
"""The wire format that most providers speak."""
OPENAI_BASE_URL = "OPENAI_BASE_URL"
"""Moves the well-known provider `openai` to another server, as it does for OpenAI's own clients."""
CONNECTION_COUNT_LIMIT = 65_535
"""More connections to one address than there are ports can't be."""

PROBE_AFTER_S_MIN = 5.0
"""What was seen that short a time ago is not worth a probe."""
PROBE_AFTER_S_MAX = 86_400.0

_SECRET_KEYS = ("api_key", "apikey", "key", "token", "api_token", "bearer_token", "secret", "password")
"""Under what names a key is written into a file by those who have not read on."""
_SECRET_HEADER = re.compile(r"auth|key|token|secret|password|cookie|credential", re.IGNORECASE)
"""Headers whose value is a secret, as far as a name can tell."""
_OWN_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding", "user-agent"}
)
"""Headers that the client itself sends; a second value would break the request."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
"""A token (RFC 9110, section 5.6.2)."""
_API_VERSION_RULE = TextRule(re.compile(r"[A-Za-z0-9._-]{1,64}"), "1 to 64 letters, digits or any of . _ -")
_HEADER_RULE = TextRule(SECRET_PATTERN, "printable ASCII without blanks at its ends")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDeclaration:
    """A provider as it is written, before the environment is asked for what it names."""

    name: str
    path: str
    adapter: str
    dialect: Dialect
    base_url: str
    """Empty if it is a fault."""
    api_key_env: str | None
    headers: tuple[tuple[str, str], ...]
    headers_env: tuple[tuple[str, str], ...]
    max_tokens_field: MaxTokensField | None
    """None: as the dialect has it."""
    api_version: str | None
    caches_prompts: bool
    connect_timeout_s: float
    idle_timeout_s: float
    whole_answer_timeout_s: float
    connection_count_max: int
    labels: Labels
    probes: ProbeSettings | None
    """None: its endpoints are never probed."""
    well_known: bool
    """It comes from the shipped catalog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider as the environment completes it."""

    declaration: ProviderDeclaration
    settings: ProviderSettings | None
    """None when it can't be called: a variable is missing or wrong."""
    missing_variables: tuple[str, ...] = ()
    """What it names and the environment lacks."""
    moved: bool = False
    """`OPENAI_BASE_URL` moved it."""


def read_provider(
    name: str, table: Table, *, adapters: Mapping[str, AdapterTraits], well_known: bool = False
) -> ProviderDeclaration:
    """One of `[providers]`; its faults are recorded."""
    if PROVIDER_RULE.pattern.fullmatch(name) is None:
        table.fault(None, f"is no name of a provider: it must be {PROVIDER_RULE.wanted}")
    adapter = table.text("adapter") or DEFAULT_ADAPTER
    if adapter not in adapters:
        hint = Hint(adapter, adapters, f"known are {', '.join(sorted(adapters))}")
        table.fault("adapter", f"`{shortened(adapter)}` is not an adapter", hint)
    dialect, api_version = _dialect(table, adapter, adapters)
    table.require("base_url")
    for key in _SECRET_KEYS:
        table.forbid(key, "a key must not stand in this file: name the environment variable with it in `api_key_env`")
    declaration = ProviderDeclaration(
        name=name,
        path=table.path,
        adapter=adapter,
        dialect=dialect,
        base_url=(read_url(table, "base_url") or "").rstrip("/"),
        api_key_env=table.text("api_key_env", VARIABLE_RULE),
        headers=table.text_table("headers", _HEADER_RULE),
        headers_env=table.text_table("headers_env", VARIABLE_RULE),
        max_tokens_field=_max_tokens_field(table),
        api_version=api_version,
        caches_prompts=_caches_prompts(table, adapter, adapters),
        connect_timeout_s=read_timeout_s(table, "connect_timeout_s", CONNECT_TIMEOUT_S),
        idle_timeout_s=read_timeout_s(table, "idle_timeout_s", IDLE_TIMEOUT_S),
        whole_answer_timeout_s=read_timeout_s(table, "whole_answer_timeout_s", WHOLE_ANSWER_TIMEOUT_S),
        connection_count_max=table.whole_number(
            "connection_count_max", CONNECTION_COUNT_MAX, minimum=1, maximum=CONNECTION_COUNT_LIMIT
        ),
        labels=read_labels(table),
        probes=_read_probes(table.table("probes")) if "probes" in table else None,
        well_known=well_known,
    )
    _check_headers(table, has_key=declaration.api_key_env is not None)
    table.finish()
    return declaration


def complete_provider(declaration: ProviderDeclaration, environment: Mapping[str, str], faults: Faults) -> Provider:
    """The provider with the values of the variables that it names. A variable that is empty counts as missing."""
    override = environment.get(OPENAI_BASE_URL, "").strip().rstrip("/")
    moved = declaration.well_known and declaration.name == "openai" and override not in ("", declaration.base_url)
    if moved and (fault := url_fault(override)) is not None:
        faults.add(f"environment.{OPENAI_BASE_URL}", fault)
        return Provider(declaration=declaration, settings=None)
    base_url = override if moved else declaration.base_url
    named = [("api_key_env", declaration.api_key_env)] if declaration.api_key_env else []
    named += [(f"headers_env.{name}", variable) for name, variable in declaration.headers_env]
    values: dict[str, Secret] = {}
    missing: list[str] = []
    for key, variable in named:
        value = environment.get(variable, "").strip()
        # Another server may well want no key.
        if not value and not moved:
            missing.append(variable)
        elif value and SECRET_PATTERN.fullmatch(value) is None:
            faults.add(f"{declaration.path}.{key}", f"the value of {variable} must be {_HEADER_RULE.wanted}")
        elif value:
            values[key] = Secret(value)
    if missing or not base_url:
        return Provider(declaration=declaration, settings=None, missing_variables=tuple(dict.fromkeys(missing)))
    literal_headers = [(name, Secret(value)) for name, value in declaration.headers]
    secret_headers = [(name, values.get(f"headers_env.{name}")) for name, _ in declaration.headers_env]
    settings = ProviderSettings(
        name=declaration.name,
        base_url=base_url,
        api_key=values.get("api_key_env"),
        headers=(*literal_headers, *((name, value) for name, value in secret_headers if value is not None)),
        dialect=declaration.dialect,
        max_tokens_field=declaration.max_tokens_field,
        api_version=declaration.api_version,
        caches_prompts=declaration.caches_prompts,
        connect_timeout_s=declaration.connect_timeout_s,
        idle_timeout_s=declaration.idle_timeout_s,
        whole_answer_timeout_s=declaration.whole_answer_timeout_s,
        connection_count_max=declaration.connection_count_max,
    )
    return Provider(declaration=declaration, settings=settings, moved=moved)


def _read_probes(table: Table) -> ProbeSettings:
    default = ProbeSettings()
    settings = ProbeSettings(
        after_s=table.number("after_s", default.after_s, minimum=PROBE_AFTER_S_MIN, maximum=PROBE_AFTER_S_MAX),
        tokens_per_hour_max=table.whole_number(
            "tokens_per_hour_max", default.tokens_per_hour_max, minimum=PROBE_TOKEN_COUNT, maximum=1_000_000
        ),
        usd_per_day_max=table.number("usd_per_day_max", default.usd_per_day_max, minimum=0.0, maximum=1000.0),
    )
    table.finish()
    return settings


def _dialect(table: Table, adapter: str, adapters: Mapping[str, AdapterTraits]) -> tuple[Dialect, str | None]:
    """The dialect, and the version of the API where the dialect wants one."""
    name = table.text("dialect")
    has_dialects = adapter in adapters and adapters[adapter].has_dialects
    if name is not None and not has_dialects:
        table.fault("dialect", f"is for providers that speak OpenAI's format; `{shortened(adapter)}` has no dialects")
    elif name is not None and name not in DIALECTS:
        hint = Hint(name, DIALECTS.keys(), f"known are {', '.join(DIALECTS)}")
        table.fault("dialect", f"`{shortened(name)}` is not a dialect", hint)
    dialect = GENERIC if name is None else DIALECTS.get(name, GENERIC)
    api_version = table.text("api_version", _API_VERSION_RULE)
    if dialect.model_in_path == (api_version is not None):
        return dialect, api_version
    if "api_version" not in table:
        table.fault("api_version", f"is required with the dialect {dialect.name}, such as 2024-10-21")
    elif not dialect.model_in_path:
        table.fault("api_version", "is sent only where the dialect is azure")
    return GENERIC, None


def _caches_prompts(table: Table, adapter: str, adapters: Mapping[str, AdapterTraits]) -> bool:
    asked = table.flag("caches_prompts", default=False)
    if asked and not (adapter in adapters and adapters[adapter].caches_when_asked):
        table.fault("caches_prompts", "is for the adapter anthropic; others cache without being asked, or not at all")
    return asked


def _max_tokens_field(table: Table) -> MaxTokensField | None:
    match table.text("max_tokens_field"):
        case "max_completion_tokens":
            return "max_completion_tokens"
        case "max_tokens":
            return "max_tokens"
        case None:
            return None
        case _:
            table.fault("max_tokens_field", "must be max_tokens or max_completion_tokens")
            return None


def _check_headers(table: Table, *, has_key: bool) -> None:
    seen: set[str] = set()
    for key in ("headers", "headers_env"):
        header_table = table.table(key)
        for name in header_table.names:
            if _HEADER_NAME.fullmatch(name) is None:
                header_table.fault(name, "is no name of an HTTP header")
            elif name.lower() in _OWN_HEADERS:
                header_table.fault(name, "is sent by Pointsman itself and can't be set")
            elif name.lower() in seen:
                header_table.fault(name, "is set twice")
            elif name.lower() == "authorization" and has_key:
                header_table.fault(name, "is set from `api_key_env` already")
            elif key == "headers" and _SECRET_HEADER.search(name):
                header_table.fault(name, "looks like a secret: name the environment variable with it in `headers_env`")
            seen.add(name.lower())
