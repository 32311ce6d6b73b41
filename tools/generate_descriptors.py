"""Generates deploy/envoy/pointsman.binpb from proto/: what Envoy needs to turn JSON into our messages and back.

`make descriptors` runs it; tests/proxy/test_files.py runs it into a scratch folder and compares.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from google.rpc import error_details_pb2
from grpc_tools import protoc

REPOSITORY = Path(__file__).resolve().parent.parent
PROTO_ROOT = REPOSITORY / "proto"
OUT = REPOSITORY / "deploy" / "envoy" / "pointsman.binpb"


def generate(out: Path) -> None:
    """Writes the descriptors of our files, of the standard messages of errors, and of all that these import.

    Raises:
        SystemExit: the compiler refused a proto file.
    """
    google = Path(error_details_pb2.__file__).parents[2]
    arguments = [
        "protoc",
        f"--proto_path={PROTO_ROOT}",
        f"--proto_path={google}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        "--include_imports",
        f"--descriptor_set_out={out}",
        *sorted(str(path) for path in (PROTO_ROOT / "pointsman" / "v1").glob("*.proto")),
        str(google / "google" / "rpc" / "error_details.proto"),
    ]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")


if __name__ == "__main__":
    generate(OUT)
