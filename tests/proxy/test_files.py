"""What ships for Envoy is sound: its descriptors are those of the protocol, and its configuration is one, with TLS too."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
from e2e.harness import config_of, endpoints
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from pointsman.v1 import router_service_pb2
from pointsman_server.errors import ConfigError
from proxy.harness import ROOT
from toolchains import tool

from conformance.clients import ENVOY
from conformance.envoy import FOLDER, configured
from conformance.stage import TLS_FILES


def test_the_descriptors_are_those_of_the_protocol(tmp_path: Path) -> None:
    """The committed descriptors are, byte for byte, what tools/generate_descriptors.py makes; `make descriptors` renews
    them."""
    spec = importlib.util.spec_from_file_location("generate_descriptors", ROOT / "tools/generate_descriptors.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    generator.generate(tmp_path / "made.binpb")
    committed = (FOLDER / "pointsman.binpb").read_bytes()
    assert committed == (tmp_path / "made.binpb").read_bytes()
    files = {file.name: file for file in FileDescriptorSet.FromString(committed).file}
    assert "google/rpc/error_details.proto" in files
    (service,) = files["pointsman/v1/router_service.proto"].service
    methods = router_service_pb2.DESCRIPTOR.services_by_name["RouterService"].methods_by_name
    assert [method.name for method in service.method] == list(methods)


def test_envoy_takes_the_configuration_with_tls_on_either_side(tmp_path: Path) -> None:
    """Envoy itself validates the file with its TLS blocks uncommented."""
    text = configured(port=50061, tls=TLS_FILES)
    assert text.count("\n          transport_socket:") == 1
    assert text.count("\n      transport_socket:") == 1
    (tmp_path / "envoy.yaml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        (tool(ENVOY), "--mode", "validate", "-c", "envoy.yaml"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("OK")


def test_how_many_calls_are_too_many_is_for_the_server_to_say() -> None:
    """Envoy lets through as many at once as Pointsman can be told to serve."""
    (limit,) = re.findall(r"max_requests: (\d+)", (FOLDER / "envoy.yaml").read_text(encoding="utf-8"))
    endpoint = endpoints({"first": ["a"]}, {"first": "http://127.0.0.1:1"})
    config = config_of(endpoint, server=f"request_count_max = {limit}")
    assert config.server.request_count_max == int(limit)
    with pytest.raises(ConfigError, match="request_count_max"):
        config_of(endpoint, server=f"request_count_max = {int(limit) + 1}")


def test_the_files_stand_where_the_configuration_looks() -> None:
    """Started in its own folder, as its first lines say, the configuration finds the descriptors."""
    text = (FOLDER / "envoy.yaml").read_text(encoding="utf-8")
    (name,) = re.findall(r"proto_descriptor: (\S+)", text)
    assert (FOLDER / name).is_file()
    assert "cd deploy/envoy && envoy -c envoy.yaml" in text
