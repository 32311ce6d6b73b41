"""What providers' settings show and refuse."""

from __future__ import annotations

import dataclasses

import pytest
from pointsman_server.chat import Conversation, Message, Role, TextPart
from pointsman_server.providers.base import ProviderSettings, Secret, UpstreamCall

KEY = "sk-very-secret-0123"


def test_a_secret_is_shown_by_reveal_alone() -> None:
    """Neither repr, str, format nor the settings around it show a key or a header's value."""
    settings = ProviderSettings(
        name="p", base_url="http://127.0.0.1/v1", api_key=Secret(KEY), headers=(("x-org", Secret("org-" + KEY)),)
    )
    shown = f"{Secret(KEY)} {Secret(KEY)!r} {settings} {settings!r} {dataclasses.asdict(settings)}"
    assert KEY not in shown
    assert Secret(KEY).reveal() == KEY


@pytest.mark.parametrize("value", ["", " ", "key\r\nx-injected: 1", "ключ", "key ", " key", "a\x00b", "a\x7fb"])
def test_a_secret_that_no_header_can_carry_is_refused_without_quoting_it(value: str) -> None:
    """Line breaks, control characters, blanks at the ends and letters beyond ASCII are refused at once."""
    with pytest.raises(ValueError, match="printable ASCII") as raised:
        Secret(value)
    assert value.strip() == "" or value not in str(raised.value)


def test_secrets_compare_by_value() -> None:
    """A reload of the configuration can tell whether a key has changed."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")


@pytest.mark.parametrize("base_url", ["ftp://host/v1", "host/v1", "https://host/v1?a=b", "https://host/v1#a"])
def test_settings_refuse_a_base_url_that_is_not_http_or_not_a_prefix(base_url: str) -> None:
    """The path of a call is appended to the base URL, so it can have no query and no fragment."""
    with pytest.raises(AssertionError):
        ProviderSettings(name="p", base_url=base_url)


def test_a_call_shows_no_prompt() -> None:
    """The repr of a call holds the model and no text of the conversation, nor its headers."""
    conversation = Conversation(messages=(Message(Role.USER, (TextPart("my diary"),)),))
    call = UpstreamCall(upstream_model="m", conversation=conversation, headers=(("traceparent", "00-ab"),))
    assert "diary" not in repr(call)
    assert "00-ab" not in repr(call)
