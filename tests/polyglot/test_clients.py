"""The clients in other languages are kept as their ecosystems keep code, and their READMEs show what runs."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import tomllib

import pytest
from polyglot.toolchains import require

from conformance.clients import LANGUAGES, REPOSITORY, build, environment, execute
from tools.generate_clients import PROTOC

PATIENCE_S = 120.0
"""Ends an example that hangs; no test waits for it."""
LINTED = [name for name, language in LANGUAGES.items() if language.lint]
EXAMPLES = [(name, file) for name, language in LANGUAGES.items() for file in language.examples]
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def client_file(path: str) -> str:
    """The text of a file below client/."""
    return (REPOSITORY / "client" / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LINTED)
def test_the_linters_of_its_ecosystem_are_content(name: str) -> None:
    """Gofmt and go vet, prettier, rustfmt and clippy find nothing; tsc's and javac's own lints are part of the build."""
    language = LANGUAGES[name]
    require(language.title, language.missing_tools())
    build(name)
    execute(language.lint, language.folder)


@pytest.mark.parametrize(("name", "file"), EXAMPLES)
def test_the_readme_shows_the_example_as_it_is(name: str, file: str) -> None:
    """Each example stands in its client's README, word for word, under a heading of its own."""
    folder = LANGUAGES[name].folder
    readme = (folder / "README.md").read_text(encoding="utf-8")
    shown = re.search(rf"<!-- {re.escape(file)} -->\n+```[a-z]+\n(.*?)```", readme, re.DOTALL)
    assert shown is not None
    assert shown[1] == (folder / file).read_text(encoding="utf-8")


def printed_by(name: str, file: str, address: str) -> str:
    """What an example prints; it must end with 0."""
    language = LANGUAGES[name]
    build(name)
    target = f"http://{address}" if name == "rust" else address
    done = subprocess.run(
        [*language.examples[file], target],
        cwd=language.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("name", "file"), EXAMPLES)
async def test_the_example_runs(name: str, file: str, address: str) -> None:
    """One asks for a decision and prints the ranks, the other prints a whole answer as it streams."""
    require(LANGUAGES[name].title, LANGUAGES[name].missing_tools())
    printed = await asyncio.to_thread(printed_by, name, file, address)
    if "oute" in file:
        assert re.match(r"1\. \S+@sim-\w+, quality 0\.\d\d\n2\. ", printed)
    else:
        assert re.fullmatch(r"-> \S+@sim-\w+\n(.*\n)*?\[simulated\] .*\n\S+@sim-\w+, \$0\.\d{6}\n", printed)


def test_the_clients_have_the_version_of_the_project() -> None:
    """What is published together has one version."""
    cargo = tomllib.loads(client_file("rust/Cargo.toml"))["package"]["version"]
    package = json.loads(client_file("typescript/package.json"))["version"]
    pom = re.search(r"<artifactId>pointsman-client</artifactId>\s*<version>([^<]+)<", client_file("java/pom.xml"))
    assert pom is not None
    assert {cargo, package, pom[1]} == {VERSION}


def test_the_java_runtime_is_as_new_as_the_generated_code() -> None:
    """Generated code refuses an older runtime when it is loaded; Maven resolves one that it takes."""
    runtime = re.search(r"<protobuf.version>([^<]+)<", client_file("java/pom.xml"))
    generated = re.search(
        r"^// Protobuf Java Version: (\S+)$",
        client_file("java/src/main/java/dev/pointsman/v1/Decision.java"),
        re.MULTILINE,
    )
    assert runtime is not None
    assert generated is not None
    assert runtime[1] == generated[1] == PROTOC
