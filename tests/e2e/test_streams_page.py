"""docs/streams.md: its example prints what it shows, its numbers are the code's, its table has every event."""

from __future__ import annotations

import re
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT

from e2e.harness import config_of, delta_event, endpoints, running, streaming, urls_of
from pointsman.v1 import router_service_pb2
from pointsman_server.app import KEEPALIVE_TIME_MS, KEEPALIVE_TIMEOUT_MS
from pointsman_server.execution.lineup import ATTEMPT_TIME_MIN_S
from pointsman_server.providers.asyncio_transport import PIECE_BYTES_MAX
from pointsman_server.providers.scripted import Close, ReadRequest, ScriptedUpstream, Send, stream_head
from test_docs import page, rows

PAGE = page("streams.md")


def block(name: str) -> str:
    """The code block that follows the comment with that name."""
    match = re.search(rf"<!-- test: {name} -->\n```[a-z]+\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None, name
    return match[1]


async def test_the_example_prints_what_the_page_shows() -> None:
    """Against a provider that dies after a word and one that answers, the program ends with the output below it."""
    dying = (ReadRequest(), Send(stream_head() + delta_event("Light")), Close())
    async with ScriptedUpstream(dying) as brittle, ScriptedUpstream(streaming("Light is scattered.")) as sound:
        toml = endpoints({"brittle": ["a"], "sound": ["a"]}, urls_of(brittle=brittle, sound=sound))
        async with running(config_of(toml)) as server:
            program = block("breaks").replace("127.0.0.1:50061", server.address)
            process = await create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE, stderr=STDOUT)
            printed, _ = await process.communicate()
    assert (process.returncode, printed.decode()) == (0, block("broken"))


def test_the_page_tells_of_every_event() -> None:
    """The table of events names each one that the protocol has, and each policy is there."""
    response = router_service_pb2.CompleteResponse.DESCRIPTOR
    named = {name for row in rows(PAGE, "what comes") for name in re.findall(r"`(\w+)`", row[0])}
    assert named == {field.json_name for field in response.oneofs_by_name["event"].fields}
    policies = {name for row in rows(PAGE, "`breakPolicy`") for name in re.findall(r"`(BREAK_POLICY_\w+)`", row[0])}
    assert policies == set(router_service_pb2.BreakPolicy.keys()) - {"BREAK_POLICY_UNSPECIFIED"}


def test_the_numbers_are_those_of_the_code() -> None:
    """What goes out as one message, what is too little time, and when a vanished client is noticed."""
    text = " ".join(PAGE.split())
    assert f"up to {PIECE_BYTES_MAX // 1024} KiB of what the provider sent" in text
    assert f"With less than {ATTEMPT_TIME_MIN_S * 1000:g} ms left no provider is called" in text
    noticed_s = (KEEPALIVE_TIME_MS + KEEPALIVE_TIMEOUT_MS) / 1000
    assert f"noticed by keepalive pings within {noticed_s:g} s" in text
    told = " ".join(page("reliability.md").split())
    assert (
        f"pings every {KEEPALIVE_TIME_MS / 1000:g} s and waits {KEEPALIVE_TIMEOUT_MS / 1000:g} s for an answer" in told
    )
