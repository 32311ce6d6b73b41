"""What is configured, as the rest of the server sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pointsman_server.catalog.catalog import Catalog
from pointsman_server.decision.resolve import DEFAULT_ROUTER_NAME
from pointsman_server.decision.router_string import DEFAULT_HEAD, RouterAlternative, RouterString
from pointsman_server.decision.types import Arm, Exploration
from pointsman_server.decision_log.settings import DecisionLogSettings
from pointsman_server.execution.probing import ProbeSettings
from pointsman_server.providers.base import ProviderSettings, Secret

DEFAULT_ROUTER = DEFAULT_ROUTER_NAME
"""The router of a request that names none; it always exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """The files of the server's own certificate, in PEM. They existed when the configuration was read."""

    certificate_file: Path
    """The certificate, followed by its intermediates."""
    key_file: Path
    """The certificate's private key."""
    client_ca_file: Path | None = None
    """Clients must show a certificate that one of these signed; None asks for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the server listens, and what it admits."""

    listen: str = "127.0.0.1:50061"
    """`host:port`; port 0 takes a free one."""
    request_count_max: int = 1000
    """Requests served at one time; one more is refused as overload."""
    message_bytes_max: int = 8 * 1024 * 1024
    """Largest request message. A million tokens are about 4 MiB, which leaves as much for images."""
    shutdown_grace_s: float = 10.0
    """How long requests under way may take to end once the server is told to stop."""
    decision_memory_count: int = 100_000
    """Recent decisions that ReportOutcome can refer to; the oldest is forgotten first."""
    attempt_count_max: int = 3
    """Endpoints tried for one request, the first included."""
    ttft_timeout_s: float = 30.0
    """An attempt that has shown no token for so long gives way to the next candidate; sooner where more is known."""
    replica_count: int = 1
    """Servers that callers spread their requests over, this one included."""
    runtime_state_file: Path | None = None
    """Where what is known of latencies survives a restart; its folder exists. None forgets it."""
    runtime_state_interval_s: float = 30.0
    """Between two times that it is saved; it is saved at the end as well."""
    api_keys: tuple[Secret, ...] = ()
    """A client must send one of them as `authorization: Bearer KEY`; empty admits everyone."""
    tls: TlsSettings | None = None
    """None serves plain HTTP/2, for loopback or behind a proxy that ends TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAiDoorSettings:
    """Where OpenAI's protocol is spoken, and what is admitted there. The certificate is the server's own."""

    listen: str = "127.0.0.1:50062"
    """`host:port`; port 0 takes a free one."""
    body_bytes_max: int = 32 * 1024 * 1024
    """Largest request body. Images come in base64, which makes them a third larger than in a gRPC message."""
    header_bytes_max: int = 16 * 1024
    """Largest request line, and largest header; at most 64 headers are taken."""
    connection_count_max: int = 1000
    """Connections at one time, idle ones included; one more is closed at once."""
    api_keys: tuple[Secret, ...] = ()
    """A client must send one of them as `authorization: Bearer KEY`; empty asks for those of the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Where traces and metrics go."""

    otlp_endpoint: str | None = None
    """URL of an OTLP/gRPC collector, such as http://127.0.0.1:4317; None exports nothing."""
    otlp_metrics: bool = True
    """Whether the collector is sent metrics too; Jaeger takes traces alone."""
    sample_ratio: float = 1.0
    """Share of requests that are traced, 0..1."""
    service_name: str = "pointsman"
    """`service.name` of the telemetry."""
    prometheus_listen: str | None = None
    """`host:port` where Prometheus finds the metrics; port 0 takes a free one. None serves none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """One named router."""

    name: str
    """What requests call it."""
    description: str = ""
    """For people who choose among routers."""
    policy: RouterString = RouterString((RouterAlternative(DEFAULT_HEAD),))
    """Its alternatives; each starts from `router` (the built-in preference) or from a model of the catalog."""
    artifact: Path | None = None
    """Directory of its own quality artifact; None uses `Config.quality_artifact`."""
    exploration: Exploration = Exploration()
    """How much chance enters its decisions."""
    split: tuple[Arm, ...] = ()
    """Other routers, each without a split, that decide for a share of its requests; the rest is its own."""
    shadows: tuple[str, ...] = ()
    """Other routers that decide beside it without acting."""
    version: str = field(init=False)
    """Hash of all that its decisions depend on, 12 hexadecimal digits: policy, path of the artifact, exploration. Split
    and shadows are no part of it: they change which router decides, not how."""

    def __post_init__(self) -> None:
        content = repr((str(self.policy), str(self.artifact), self.exploration))
        object.__setattr__(self, "version", hashlib.sha256(content.encode()).hexdigest()[:12])


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that is configured. Safe to print: secrets are masked."""

    server: ServerSettings
    openai_door: OpenAiDoorSettings | None
    """None: OpenAI's protocol is not spoken."""
    telemetry: TelemetrySettings
    decision_log: DecisionLogSettings | None = None
    """Where decisions are logged; None logs none."""
    quality_artifact: Path | None
    """Directory of the quality artifact; None uses the shipped one."""
    catalog: Catalog
    """The endpoints that can be called; at least one."""
    providers: Mapping[str, ProviderSettings]
    """By name: every provider of the catalog, and no other."""
    adapters: Mapping[str, str]
    """The wire format of each of `providers`."""
    probes: Mapping[str, ProbeSettings]
    """Of those of `providers` whose endpoints may be probed."""
    routers: Mapping[str, RouterSettings]
    """By name; always holds `DEFAULT_ROUTER`."""
    notices: tuple[str, ...]
    """What an operator should know although it is no fault, such as endpoints that are left out for want of a key."""
