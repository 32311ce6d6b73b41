"""What an endpoint can't do of what its labels need is told, and costs nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from labelling.samples import entry
from pointsman_server.chat import Conversation, Message, Role, SamplingOptions, TextPart, UpstreamEvent
from pointsman_server.decision.types import RequestFeature
from pointsman_server.errors import UpstreamUnsupportedError
from pointsman_server.labelling.calls import RETRIED, attempt
from pointsman_server.labelling.plan import Call
from pointsman_server.labelling.records import CallKey, Purpose
from pointsman_server.providers.base import UpstreamCall

ASKED = Conversation((Message(Role.USER, (TextPart("Why?"),)),), sampling=SamplingOptions(temperature=0.0))


class NeverCalled:
    """A provider that no call may reach."""

    async def complete(self, call: UpstreamCall) -> AsyncGenerator[tuple[UpstreamEvent, ...], None]:
        """See `ChatProvider.complete`."""
        assert not call.upstream_model, "it is never called"
        yield ()

    async def aclose(self) -> None:
        """Nothing is open."""


async def test_a_model_without_a_temperature_is_not_asked_with_one() -> None:
    """The attempt fails with that reason, is not repeated, and has cost nothing."""
    plain = entry("a@x")
    lacking = replace(plain, endpoint=replace(plain.endpoint, lacks=frozenset({RequestFeature.TEMPERATURE})))
    call = Call(CallKey(Purpose.ANSWER, "p1", "a@x", "a@x", "digest"), lacking, ASKED)
    failure = await attempt(call, NeverCalled(), timeout_s=1.0, clock_s=lambda: 0.0)
    assert isinstance(failure, tuple)
    error, cost_usd = failure
    assert isinstance(error, UpstreamUnsupportedError)
    assert "temperature" in str(error)
    assert error.kind not in RETRIED
    assert cost_usd == 0.0
