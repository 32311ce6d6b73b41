"""`pointsman serve --openai-listen` as a process."""

from __future__ import annotations

import asyncio
import re
import signal
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import openai
import pytest
from e2e.harness import delta_event, endpoints, streaming, urls_of
from e2e.test_process import PATIENCE_S, PROGRAM, Served, written
from pointsman_server.providers.scripted import ReadRequest, ScriptedUpstream, Send, WaitFor, stream_head


async def test_the_flag_opens_the_door_and_sigterm_ends_its_streams_first(tmp_path: Path) -> None:
    """The log tells where the door is; a stream under way at SIGTERM is sent to its end, and the process exits with 0."""
    gate = asyncio.Event()
    script = (ReadRequest(), Send(stream_head()), Send(delta_event("be")), WaitFor(gate), *streaming("fore")[2:])
    async with ScriptedUpstream(script) as upstream:
        config = written(tmp_path / "pointsman.toml", endpoints({"north": ["a"]}, urls_of(north=upstream)))
        flags = ("--config", str(config), "--listen", "127.0.0.1:0", "--openai-listen", "127.0.0.1:0")
        process = await asyncio.create_subprocess_exec(PROGRAM, "serve", *flags, stdout=PIPE, stderr=STDOUT, env={})
        served = Served(process, 0)
        try:
            match = re.search(r"127\.0\.0\.1:(\d+)", await served.line_with("the OpenAI-compatible door is open"))
            assert match is not None
            async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{match[1]}/v1", api_key="none") as client:
                stream = await client.chat.completions.create(
                    model="a", messages=[{"role": "user", "content": "hi"}], stream=True
                )
                assert (await anext(stream)).choices[0].delta.content == "be"
                process.send_signal(signal.SIGTERM)
                await served.line_with("stopping")
                gate.set()
                assert [chunk.choices[0].finish_reason async for chunk in stream][-1] == "stop"
            assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.mark.parametrize("address", ["8080", "localhost", ":8080", "127.0.0.1:70000", "127.0.0.1:x"])
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    """The flag says what it wants."""
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "serve", "--simulate", "--openai-listen", address, stdout=PIPE, stderr=STDOUT, env={}
    )
    output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 2
    assert "is not HOST:PORT, such as 127.0.0.1:50062" in output.decode()
