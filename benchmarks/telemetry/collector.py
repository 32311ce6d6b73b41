"""A collector of OpenTelemetry that keeps what it is sent, takes its time, or never answers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from types import TracebackType
from typing import Self

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SLOW_S = 1.0
"""How long a slow collector takes: half of the exporter's timeout."""


class Manner(StrEnum):
    """How a collector treats what it is sent."""

    PROMPT = "prompt"
    SLOW = "slow"
    """It answers each message after a second."""
    FROZEN = "frozen"
    """It takes connections and messages, and never answers."""


class Collector:
    """An OTLP/gRPC server on loopback, from `with` to its end."""

    def __init__(self, manner: Manner = Manner.PROMPT, *, keeps: bool = True, port: int = 0) -> None:
        """Nothing is opened yet. `keeps` says whether what is sent is read and kept for the test; if not, it costs next to
        nothing. A `port` of 0 is any that is free."""
        self.spans: list[Span] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.metadata: dict[str, str] = {}
        """Of the last message with spans."""
        self.port = port
        self._keeps = keeps
        self._manner = manner
        self._ended = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(4))
        service = "opentelemetry.proto.collector"
        for signal, take in (("trace.v1.Trace", self._take_spans), ("metrics.v1.Metrics", self._take_metrics)):
            handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(take)
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"{service}.{signal}Service", {"Export": handler}),)
            )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.stop(None).wait()

    def _take_spans(self, received: bytes, context: grpc.ServicerContext) -> bytes:
        self._wait()
        if self._keeps:
            request = ExportTraceServiceRequest.FromString(received)
            scopes = [scope for resource in request.resource_spans for scope in resource.scope_spans]
            self.spans += [span for scope in scopes for span in scope.spans]
        self.metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        return ExportTraceServiceResponse().SerializeToString()

    def _take_metrics(self, received: bytes, _context: grpc.ServicerContext) -> bytes:
        self._wait()
        if self._keeps:
            self.metrics.append(ExportMetricsServiceRequest.FromString(received))
        return ExportMetricsServiceResponse().SerializeToString()

    def _wait(self) -> None:
        match self._manner:
            case Manner.SLOW:
                self._ended.wait(SLOW_S)
            case Manner.FROZEN:
                self._ended.wait()
            case Manner.PROMPT:
                pass
