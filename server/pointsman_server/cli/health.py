"""`pointsman health`: whether a server takes calls, for probes of containers."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from pointsman.errors import translated_errors
from pointsman.v1.router_service_pb2 import DESCRIPTOR

from pointsman_server.cli.connection import client_arguments, failures_shown
from pointsman_server.cli.exit import EXIT_FAILURE
from pointsman_server.cli.output import print_json

_SERVICE = DESCRIPTOR.services_by_name["RouterService"].full_name

_TIMEOUT_S = 3.0
"""A server that takes longer to say that it is well is not."""


def run(arguments: Namespace, environment: Mapping[str, str]) -> int:
    """Prints the state of the server; the code is 0 only while it takes calls."""
    connection = client_arguments(arguments, environment)
    target, tls = connection["target"], connection["tls"]
    channel = grpc.insecure_channel(target) if tls is None else grpc.secure_channel(target, tls.credentials())
    timeout_s = _TIMEOUT_S if arguments.timeout is None else arguments.timeout
    with failures_shown(arguments), channel, translated_errors():
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        status = check(HealthCheckRequest(service=_SERVICE), timeout=timeout_s).status
    name = HealthCheckResponse.ServingStatus.Name(status)
    if arguments.json:
        print_json({"status": name})
    else:
        sys.stdout.write(f"{name}\n")
    return 0 if status == HealthCheckResponse.SERVING else EXIT_FAILURE
