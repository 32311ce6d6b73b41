"""How a client connects: transport security, limits, retries, keepalive. Blocking and asynchronous channels share it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TypedDict

import grpc

from pointsman.options import CallOptions, Metadata
from pointsman.v1.router_service_pb2 import DESCRIPTOR

DEFAULT_TARGET = "127.0.0.1:50061"
"""Where `pointsman serve` listens unless it is told otherwise."""

DEFAULT_TIMEOUT_S = 10.0
"""Deadline of every call but `complete`: a decision takes milliseconds, so this only ends a call that hangs."""

DEFAULT_COMPLETE_TIMEOUT_S = 600.0
"""Deadline of `complete`: as long as reasoning models take for their longest answers."""

SERVICE: str = DESCRIPTOR.services_by_name["RouterService"].full_name
"""The service's name in gRPC."""

_SERVICE_CONFIG = {
    # Every address that the name resolves to: replicas share their observations, so any one serves any call.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            # Only what changes nothing is sent again. `Complete` costs money, and an outcome must count once.
            "name": [{"service": SERVICE, "method": name} for name in ("Route", "ListEndpoints", "ListRouters")],
            "retryPolicy": {
                "maxAttempts": 4,  # rides out a replica's restart; grpc allows 5
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 3,
                # gRPC answers CANCELLED for what reaches a server while it closes its port; a call that its caller
                # cancelled is never sent again.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # Retries stop while more than half the calls fail, so that they never add to an outage (gRPC proposal A6).
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # What is too large the server says, with its limit, which can be set as high as this; what it sends is at most a
    # page of 1,000 endpoints, or a decision over 4,096.
    ("grpc.max_send_message_length", 256 * 1024 * 1024),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # Error details travel in the trailers: 256 rejected candidates with their reasons are beyond the default of 8 KiB.
    ("grpc.max_metadata_size", 512 * 1024),
    ("grpc.absolute_max_metadata_size", 1024 * 1024),
    # A connection that died without a word is noticed within 40 s, even under an answer that keeps us waiting.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
"""What every channel is created with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """How the connection is secured. As it is, the server's certificate is checked against the system's roots."""

    root_certificates_pem: bytes | None = None
    """Roots to trust instead of the system's."""
    private_key_pem: bytes | None = field(default=None, repr=False)
    """The client's key, for mutual TLS; goes with `certificate_chain_pem`."""
    certificate_chain_pem: bytes | None = None
    """The client's certificate, for mutual TLS."""

    def __post_init__(self) -> None:
        if (self.private_key_pem is None) != (self.certificate_chain_pem is None):
            raise ValueError("mutual TLS takes both private_key_pem and certificate_chain_pem")

    def credentials(self) -> grpc.ChannelCredentials:
        """The same for grpc."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.root_certificates_pem,
            private_key=self.private_key_pem,
            certificate_chain=self.certificate_chain_pem,
        )


class GrpcCallArguments(TypedDict):
    """What a call passes to grpc beside its request."""

    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDefaults:
    """What a client adds to every call."""

    api_key: str | None = field(repr=False)
    timeout_s: float
    complete_timeout_s: float

    def of_call(self, options: CallOptions) -> GrpcCallArguments:
        """For a call that is answered at once."""
        return self._arguments(options, self.timeout_s)

    def of_completion(self, options: CallOptions) -> GrpcCallArguments:
        """For an answer."""
        return self._arguments(options, self.complete_timeout_s)

    def of_watch(self, options: CallOptions) -> GrpcCallArguments:
        """For a stream that goes on until the caller has enough."""
        return self._arguments(options, None)

    def _arguments(self, options: CallOptions, default_timeout_s: float | None) -> GrpcCallArguments:
        timeout_s = options.get("timeout_s")
        headers: dict[str, str | bytes] = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        added: Metadata = options.get("metadata") or {}
        return GrpcCallArguments(
            timeout=default_timeout_s if timeout_s is None else timeout_s,
            metadata=tuple({**headers, **added}.items()),
        )
