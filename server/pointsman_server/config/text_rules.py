"""The values that several tables hold: lines, paths, URLs, names of environment variables, timeouts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pointsman_server.catalog.toml_table import Table, TextRule

TIMEOUT_S_MAX = 3600.0
"""No call is worth waiting for longer than an hour."""

LINE_RULE = TextRule(re.compile(r"[^\x00-\x1f\x7f]{1,1024}"), "at most 1024 characters on one line")
# Upper case only: many providers' keys would pass for a variable's name otherwise, and then be shown in a message.
VARIABLE_RULE = TextRule(
    re.compile(r"[A-Z_][A-Z0-9_]{0,127}"),
    "the name of an environment variable in upper case, such as OPENAI_API_KEY (never the key itself)",
)

LOOPBACK_ADDRESS = re.compile(r"(127\.[0-9.]+|\[::1\]|localhost)(:[0-9]+)?")
"""A host that only this machine reaches, with or without a port."""

_PRINTABLE_ASCII = re.compile(r"[\x21-\x7e]+")


def read_timeout_s(table: Table, key: str, default: float) -> float:
    """A time limit in seconds."""
    return table.number(key, default, minimum=0.0, maximum=TIMEOUT_S_MAX, above_minimum=True)


def read_path(table: Table, key: str, directory: Path, *, kind: Literal["file", "directory"]) -> Path | None:
    """Something that exists; None when absent or wrong.

    Args:
        table: Where the path is written.
        key: Under what key.
        directory: What a relative path is relative to.
        kind: What must be there.
    """
    text = table.text(key, LINE_RULE)
    if text is None:
        return None
    path = directory / text
    try:
        exists = path.is_file() if kind == "file" else path.is_dir()
    except OSError:  # a directory on the way may not be entered, or a name is too long
        exists = False
    if not exists:
        table.fault(key, f"there is no {kind} {path}")
        return None
    return path


def read_url(table: Table, key: str) -> str | None:
    """An http(s) URL; None when absent or wrong."""
    text = table.text(key)
    fault = None if text is None else url_fault(text)
    if fault is not None:
        table.fault(key, fault)
        return None
    return text


def url_fault(text: str) -> str | None:
    """What is wrong with a URL, None if nothing. Never quotes it: it might hold a password."""
    try:
        url = urlsplit(text)
        is_reachable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_reachable = False
    if not is_reachable or _PRINTABLE_ASCII.fullmatch(text) is None:
        return "must be an http or https URL, such as https://api.example.com/v1"
    if "@" in url.netloc:
        return "must not hold a user name or password: name environment variables in `api_key_env` or `headers_env`"
    if "?" in text or "#" in text:
        return "must have neither a query (?) nor a fragment (#)"
    return None
