"""Generates client/web/src/gen from proto/: messages and service for a browser, in TypeScript, by Buf's protoc-gen-es.

`make web` runs it after `npm ci`. What it writes is not committed: the page is built together with it.
"""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from pathlib import Path

from google.rpc import error_details_pb2
from grpc_tools import protoc

REPOSITORY = Path(__file__).resolve().parent.parent
PROTO_ROOT = REPOSITORY / "proto"
FOLDER = REPOSITORY / "client" / "web"


def generate(out: Path) -> None:
    """Writes the modules of our files, and of the standard messages of errors.

    Raises:
        SystemExit: the plugin is not installed, or the compiler refused a proto file.
    """
    plugin = FOLDER / "node_modules" / ".bin" / "protoc-gen-es"
    if not plugin.exists():
        sys.exit(f"{plugin.relative_to(REPOSITORY)} is missing: run `npm ci` in {FOLDER.relative_to(REPOSITORY)} first")
    google = Path(error_details_pb2.__file__).parents[2]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    arguments = [
        "protoc",
        f"--plugin=protoc-gen-es={plugin}",
        f"--proto_path={PROTO_ROOT}",
        f"--proto_path={google}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--es_out={out}",
        "--es_opt=target=ts",
        *sorted(str(path) for path in (PROTO_ROOT / "pointsman" / "v1").glob("*.proto")),
        str(google / "google" / "rpc" / "error_details.proto"),
    ]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")


if __name__ == "__main__":
    generate(FOLDER / "src" / "gen")
