"""A whole server with its OpenAI-compatible door, over real HTTP on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import openai
from e2e.harness import Running, config_of, endpoints, running, streaming, urls_of
from pointsman_server.providers.scripted import Script, ScriptedUpstream

IN_ORDER = "a@first->a@second->a@third"
"""A chain of fallbacks, so that the order of attempts is the test's."""
PATIENCE_S = 10.0
"""For what must happen at once; reached by a fault alone."""
CAPABLE = 'capabilities = ["tools", "image_input", "json_object", "json_schema", "reasoning"]\nquality_model = "gpt-4o"'
"""What every endpoint can do, and as which model its answers are predicted."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A server whose door is open, and OpenAI's own client to go through it."""

    server: Running
    client: openai.AsyncOpenAI
    upstreams: list[ScriptedUpstream]

    @property
    def url(self) -> str:
        """The door's address, without a path."""
        return f"http://127.0.0.1:{self.server.application.openai_port}"


@asynccontextmanager
async def opened(
    *scripts: Script,
    door: str = "",
    server: str = "",
    environment: Mapping[str, str] | None = None,
    api_key: str = "none",
) -> AsyncIterator[Opened]:
    """A server with one model at three providers, of which each plays one script; missing ones answer in full. `door` and
    `server` are further lines of their tables."""
    names = ("first", "second", "third")
    filled = [*scripts, *([streaming("never")] * (len(names) - len(scripts)))]
    async with (
        ScriptedUpstream(filled[0]) as one,
        ScriptedUpstream(filled[1]) as two,
        ScriptedUpstream(filled[2]) as three,
    ):
        upstreams = [one, two, three]
        urls = urls_of(**dict(zip(names, upstreams, strict=True)))
        text = f'[openai_door]\nlisten = "127.0.0.1:0"\n{door}\n'
        text += endpoints({name: ["a"] for name in names}, urls, extra=CAPABLE)
        async with (
            running(config_of(text, environment, server=server)) as started,
            openai.AsyncOpenAI(
                base_url=f"http://127.0.0.1:{started.application.openai_port}/v1", api_key=api_key, max_retries=0
            ) as client,
        ):
            yield Opened(started, client, upstreams)
