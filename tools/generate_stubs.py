"""Generates client/python/pointsman/v1 from proto/: messages, service stubs, and their types for mypy.

`make stubs` runs it; tests/test_tidy.py runs it into a scratch folder and compares.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

REPOSITORY = Path(__file__).resolve().parent.parent
PROTO_ROOT = REPOSITORY / "proto"
PYTHON_ROOT = REPOSITORY / "client" / "python"


def generate(out: Path) -> None:
    """Writes the generated modules below `out`, which stands for client/python.

    Raises:
        SystemExit: the compiler refused a proto file.
    """
    out.mkdir(parents=True, exist_ok=True)
    protos = sorted(str(path) for path in (PROTO_ROOT / "pointsman" / "v1").glob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={PROTO_ROOT}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *protos,
    ]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")
    # The plugin writes service modules for files without a service too; they hold nothing.
    for path in (out / "pointsman" / "v1").glob("*_pb2_grpc.py*"):
        if not path.name.startswith("router_service"):
            path.unlink()


if __name__ == "__main__":
    generate(PYTHON_ROOT)
