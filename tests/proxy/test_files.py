"""What ships for Envoy is sound: its descriptors are those of the protocol, and its configuration is one, with TLS too."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from pointsman.v1 import router_service_pb2
from proxy.harness import FOLDER, ROOT, configured, envoy

CERTIFICATE = ROOT / "tests" / "providers" / "localhost.pem"


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


def with_tls(text: str) -> str:
    """The configuration with its comments on TLS taken for what they say."""
    lines, within = [], False
    for line in text.splitlines():
        within = "# TLS " in line or (within and line.lstrip().startswith("#"))
        lines.append(re.sub(r"^( *)# (?!TLS |Browsers)", r"\1", line) if within else line)
    return "\n".join(lines)


def test_envoy_takes_the_configuration_with_tls_on_either_side(tmp_path: Path) -> None:
    """Envoy itself validates the file with its TLS blocks uncommented."""
    text = with_tls(configured(port=50061))
    assert text.count("\n          transport_socket:") == 1
    assert text.count("\n      transport_socket:") == 1
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).write_bytes(CERTIFICATE.read_bytes())
        text = text.replace(f"filename: {name}", f"filename: {tmp_path / name}")
    (tmp_path / "envoy.yaml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        (envoy(), "--mode", "validate", "-c", "envoy.yaml"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("OK")


def test_the_files_stand_where_the_configuration_looks() -> None:
    """Started in its own folder, as its first lines say, the configuration finds the descriptors."""
    text = (FOLDER / "envoy.yaml").read_text(encoding="utf-8")
    (name,) = re.findall(r"proto_descriptor: (\S+)", text)
    assert (FOLDER / name).is_file()
    assert "cd deploy/envoy && envoy -c envoy.yaml" in text
