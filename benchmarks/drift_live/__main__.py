"""The command line: `make bench-drift-live`, or `python -m benchmarks.drift_live --help`."""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import httpx
import pointsman

from benchmarks.drift_live.load import Call, Seen, litellm_call, loaded, pointsman_call
from benchmarks.drift_live.report import as_json, draw, markdown
from benchmarks.drift_live.systems import LITELLM_KEY, REQUEST_TIMEOUT_S, litellm, serve_pointsman, serve_providers
from benchmarks.drift_live.weather import Timeline
from benchmarks.harness.children import Child
from benchmarks.harness.machine import ROOT, this_machine

RESULTS = ROOT / "benchmarks" / "results"
POINTSMAN, LITELLM = "Pointsman", "LiteLLM, latency-based"
CHILD_TIMEOUT_S = 60.0
QUICK = Timeline(slow_from_s=3.0, slow_to_s=5.0, hang_from_s=6.0, hang_to_s=7.0, end_s=8.0)


def main() -> None:
    """Runs both, prints the table, writes the results."""
    options = _parser().parse_args()
    timeline = QUICK if options.quick else Timeline()
    program: Path | None = options.litellm
    versions = {"pointsman": version("pointsman")}
    if program is not None:
        python = program.parent / "python"
        show = "from importlib.metadata import version; print(version('litellm'))"
        versions["litellm"] = subprocess.run(
            [python, "-c", show], capture_output=True, text=True, check=True
        ).stdout.strip()
    seen = asyncio.run(_run(timeline, program, seed=options.seed))
    page = markdown(seen, timeline, machine=this_machine(), versions=versions, seed=options.seed)
    print(page)
    out: Path | None = options.out or (None if options.quick else RESULTS)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "drift_live.md").write_text(page, encoding="utf-8")
        (out / "drift_live.json").write_text(
            as_json(seen, timeline, machine=this_machine(), versions=versions, seed=options.seed), encoding="utf-8"
        )
        draw(seen, timeline, out / "drift_live.png")
        print(f"written to {out}/drift_live.md, .json and .png", file=sys.stderr)


async def _run(timeline: Timeline, program: Path | None, *, seed: int) -> dict[str, list[Seen]]:
    providers_port, litellm_port = _free_port(), _free_port()
    origin = f"http://127.0.0.1:{providers_port}"
    with ExitStack() as stack:
        server = stack.enter_context(Child(serve_pointsman, origin))
        target = f"127.0.0.1:{server.receive(CHILD_TIMEOUT_S)}"
        url = None
        if program is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            print("waiting for LiteLLM's proxy", file=sys.stderr)
            url = stack.enter_context(litellm(program, origin=origin, port=litellm_port, folder=folder))
        providers = stack.enter_context(Child(serve_providers, timeline, providers_port))
        providers.receive(CHILD_TIMEOUT_S)
        started_s = time.monotonic()
        async with (
            pointsman.AsyncClient(target) as client,
            httpx.AsyncClient(
                base_url=url or "",
                headers={"authorization": f"Bearer {LITELLM_KEY}"},
                timeout=REQUEST_TIMEOUT_S,
                trust_env=False,
            ) as http,
        ):
            calls: dict[str, Call] = {POINTSMAN: pointsman_call(client)}
            if url is not None:
                calls[LITELLM] = litellm_call(http)
            return await loaded(calls, timeline, seed=seed, started_s=started_s)


def _free_port() -> int:
    """A port that nobody listens on now: both systems must know the providers' before these start."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drift_live", description="Pointsman in real time, beside LiteLLM's proxy."
    )
    parser.add_argument(
        "--litellm", type=Path, metavar="PROGRAM", help="LiteLLM's proxy, as installed; without it Pointsman alone"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the arrivals (1)")
    parser.add_argument(
        "--quick", action="store_true", help="eight seconds, to see that it works; writes only with --out"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go (benchmarks/results)")
    return parser


if __name__ == "__main__":
    main()
