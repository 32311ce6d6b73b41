"""What is wrong with a request, found wherever it stands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman.v1 import chat_pb2
from pointsman.v1.router_service_pb2 import RouteRequest
from pointsman_server.edge.validate import NAME_LENGTH_MAX, validate_route
from pointsman_server.errors import InvalidRequestError

KNOWN_ROLES = (chat_pb2.ROLE_USER, chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_ASSISTANT, chat_pb2.ROLE_TOOL)
TEXT, NO_TEXT, NOTHING = chat_pb2.Part(), chat_pb2.Part(), chat_pb2.Part()
TEXT.text.text = "Hi"
NO_TEXT.text.SetInParent()

MESSAGES = st.builds(
    chat_pb2.Message,
    role=st.sampled_from((*KNOWN_ROLES, chat_pb2.ROLE_UNSPECIFIED, 99)),
    parts=st.lists(st.sampled_from((TEXT, NO_TEXT, NOTHING)), max_size=3),
    name=st.sampled_from(("", "ann", "a" * (NAME_LENGTH_MAX + 1))),
    tool_calls=st.lists(st.builds(chat_pb2.ToolCall, id=st.just("1"), name=st.just("look")), max_size=1),
    tool_call_id=st.sampled_from(("", "1")),
)


def is_right(message: chat_pb2.Message) -> bool:
    """The rules of a message, in other words."""
    is_tool, calls = message.role == chat_pb2.ROLE_TOOL, bool(message.tool_calls)
    return (
        message.role in KNOWN_ROLES
        and (is_tool or calls or len(message.parts) > 0)
        and all(part == TEXT for part in message.parts)
        and len(message.name) <= NAME_LENGTH_MAX
        and (not calls or message.role == chat_pb2.ROLE_ASSISTANT)
        and is_tool == bool(message.tool_call_id)
    )


def paths_of(conversation: chat_pb2.Conversation) -> set[str]:
    """Where something is wrong."""
    try:
        validate_route(RouteRequest(conversation=conversation))
    except InvalidRequestError as error:
        return {violation.field for violation in error.violations}
    return set()


@given(messages=st.lists(MESSAGES, max_size=3))
def test_every_message_that_is_wrong_is_told_and_no_other(messages: list[chat_pb2.Message]) -> None:
    """Plain messages and others, in any order: the paths that are told are those of the wrong ones, and a conversation ends
    with a turn of the user or of a tool."""
    paths = paths_of(chat_pb2.Conversation(messages=messages))
    wrong = {f"conversation.messages[{index}]" for index, message in enumerate(messages) if not is_right(message)}
    assert {path.partition("].")[0] + "]" for path in paths if "[" in path} == wrong
    ends_well = bool(messages) and messages[-1].role not in (chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_ASSISTANT, 99)
    assert ("conversation.messages" in paths) == (not ends_well)


@pytest.mark.parametrize(
    ("field", "extra"),
    [
        ("name", {"name": "a" * (NAME_LENGTH_MAX + 1)}),
        ("tool_calls", {"tool_calls": [chat_pb2.ToolCall(id="1", name="look")]}),
        ("tool_call_id", {"tool_call_id": "1"}),
    ],
)
def test_what_stands_beside_a_text_is_looked_at(field: str, extra: dict[str, Any]) -> None:
    """A user's one text is right, and wrong with anything beside it that may not stand there."""
    plain = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[TEXT])
    wrong = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[TEXT], **extra)
    found = paths_of(chat_pb2.Conversation(messages=[plain, wrong, plain]))
    assert found == {f"conversation.messages[1].{field}"}


def test_what_stands_beside_the_messages_is_looked_at() -> None:
    """A tool without a name is told, with a message and without one."""
    for messages in ([], [chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[TEXT])]):
        paths = paths_of(chat_pb2.Conversation(messages=messages, tools=[chat_pb2.Tool()]))
        assert "conversation.tools[0].name" in paths
        assert ("conversation.messages" in paths) == (not messages)
