"""What every provider's adapter offers: one call in, batches of typed events out.

An adapter knows one wire format. It never retries, never fails over and never logs: those are the router's, which sees
each failure as one `errors.UpstreamError`.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Protocol, final

from pointsman_server.chat import Conversation, ReasoningControl, RequestAllowance, UpstreamEvent
from pointsman_server.providers.dialects import GENERIC, Dialect, MaxTokensField

CONNECT_TIMEOUT_S = 5.0
"""TCP and TLS take three round trips: 1 s around the globe. Five allow for one lost SYN, which is resent after 1 and 3 s."""
IDLE_TIMEOUT_S = 30.0
"""A stream silent for longer has stalled: slow reasoning models send their first byte, or a comment, within 30 s."""
WHOLE_ANSWER_TIMEOUT_S = 600.0
"""An answer that is not streamed is silent until it is complete; ten minutes is what providers themselves allow."""
CONNECTION_COUNT_MAX = 512
"""Streams per provider at one time; half of the usual limit of 1,024 open files."""
KEEPALIVE_EXPIRY_S = 30.0
"""Idle connections close before load balancers, which commonly drop them after 60 s, do it in the middle of a request."""
WHOLE_BYTES_MAX = 4 * 1024 * 1024
"""An unstreamed answer is held in memory; 128k tokens are 512 KiB, and at most 3 MiB with every character escaped."""
STREAM_BYTES_MAX = 256 * 1024 * 1024
"""Ends an endless stream. 128k tokens in events of 400 bytes are 50 MiB, and nothing of them is kept."""

SECRET_PATTERN = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
"""What HTTP allows in a header's value (RFC 9110, section 5.5) without the obsolete part beyond ASCII."""


@final
class Secret:
    """A value that must never be shown, such as an API key: only `reveal` gives it. Immutable, compared by value.

    Not a dataclass, because `dataclasses.asdict` would lay it bare. Raises ValueError, which does not quote it, when it
    can't be the value of an HTTP header.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if SECRET_PATTERN.fullmatch(value) is None:
            raise ValueError("a secret must be printable ASCII, not empty, with no blank at its ends")
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that sends it."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """How to reach one provider. Safe to print: keys and header values are masked."""

    name: str
    """The provider's name in the catalog."""
    base_url: str
    """http(s) URL up to and including the version, such as https://api.openai.com/v1; without query or fragment."""
    api_key: Secret | None = None
    """None sends no key, as local servers want it."""
    headers: tuple[tuple[str, Secret], ...] = ()
    """Sent with every request; they may carry credentials, so their values are masked."""
    dialect: Dialect = GENERIC
    """How it differs from other providers of OpenAI's format."""
    max_tokens_field: MaxTokensField | None = None
    """How the provider names the limit on the answer; None: as its dialect does."""
    api_version: str | None = None
    """The version in the query, where the dialect has the model in the path."""
    caches_prompts: bool = False
    """The provider is asked to keep what it has read of each prompt, where it does so only when asked and for a price."""
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    """Longest wait for a connection, also for a free one when `connection_count_max` are in use."""
    idle_timeout_s: float = IDLE_TIMEOUT_S
    """Longest silence of a stream, before its first byte and between any two."""
    whole_answer_timeout_s: float = WHOLE_ANSWER_TIMEOUT_S
    """Longest silence before an unstreamed answer."""
    connection_count_max: int = CONNECTION_COUNT_MAX
    """Calls under way at one time; further ones wait."""
    keepalive_expiry_s: float = KEEPALIVE_EXPIRY_S
    """How long an idle connection is kept."""
    whole_bytes_max: int = WHOLE_BYTES_MAX
    """Longest unstreamed answer."""
    stream_bytes_max: int = STREAM_BYTES_MAX
    """Longest stream, with all that its format adds to the text."""

    def __post_init__(self) -> None:
        assert self.name, "a provider has a name"
        assert self.base_url.startswith(("http://", "https://")), self.name
        assert "?" not in self.base_url, self.name
        assert "#" not in self.base_url, self.name
        assert self.dialect.model_in_path == (self.api_version is not None), self.name
        assert min(self.connect_timeout_s, self.idle_timeout_s, self.whole_answer_timeout_s) > 0.0, self.name
        assert min(self.connection_count_max, self.whole_bytes_max, self.stream_bytes_max) > 0, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamCall:
    """One attempt at one provider."""

    upstream_model: str
    """The provider's own name of the model."""
    conversation: Conversation
    output_token_count_max: int | None = None
    """The longest answer that the model can give, for formats that always want a limit; None is unknown."""
    reasoning_control: ReasoningControl = ReasoningControl.EFFORT
    """How the model is told how long to think, where its format knows two ways."""
    stream: bool = True
    """False asks for the answer as a whole; its events come as one batch."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Added to the request, such as traceparent."""
    timeout_s: float | None = None
    """What is left of the deadline, for the whole attempt; None sets no limit beyond the provider's own timeouts."""
    on_allowance: Callable[[RequestAllowance], None] | None = field(default=None, repr=False, compare=False)
    """Told what the answer's headers say of further requests, at once and of refusals too; None is told nothing."""


class ChatProvider(Protocol):
    """A provider that completes conversations. One instance serves any number of concurrent calls."""

    def complete(self, call: UpstreamCall) -> AsyncGenerator[tuple[UpstreamEvent, ...], None]:
        """Make the call and yield what comes back in batches, each never empty: what one read brought is one batch.

        The last event of the last batch is `Finished`, after any `UsageReported`. Iterate to the end: whoever leaves
        early, by `aclose()` or by cancellation, closes the connection at once. A generator that is not run to its end
        must be closed by its user (`contextlib.aclosing`).

        Raises:
            UpstreamError: The attempt failed. No `Finished` was yielded; events before the failure are valid.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection. Calls that are under way fail; no further call may be made."""
        ...
