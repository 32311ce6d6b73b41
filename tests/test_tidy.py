"""The repository itself: nothing generated is stale, nothing named is missing, nothing forbidden has crept in."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.tidy

REPOSITORY = Path(__file__).resolve().parent.parent
STUBS = REPOSITORY / "client/python/pointsman/v1"
ARTIFACT = REPOSITORY / "server/pointsman_server/quality/builtin"
NOT_OURS = {".git", ".tools", ".venv", "__pycache__", "build", "dist", "node_modules", "target"}
"""Folders that hold no source, wherever they stand; so do those whose name ends in _cache."""

FILE_BYTES_MAX = 1_000_000
"""What is larger is data, and data does not belong in a repository of code."""
ARTIFACT_BYTES_MAX = 10_000_000
"""The one exception: the shipped quality model, which every install downloads."""
FUNCTION_LINE_COUNT_MAX = 60
"""A function fits a screen."""
FILE_LINE_COUNT_MAX = 700
"""A file can still be read from top to bottom."""
BROAD_EXCEPT_COUNT_MAX = 2
"""One at the edge, where a bug becomes a status, and one in the supervisor of tasks."""

# Assembled, so that this file does not hold the words that it looks for.
UNFINISHED = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
PLACEHOLDER = re.compile(r"@[A-Z]{3,}@")
WORKPLACE = re.compile("|".join(("/wo" + "rk/", "/ro" + "ot/", "py" + r"pi\.org", "python" + r"hosted\.org")))


def repository_files() -> list[Path]:
    """Every file that is, or is about to be, part of the repository; without git, every file that could be."""
    if shutil.which("git") is not None and (REPOSITORY / ".git").exists():
        listing = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
        listed = {REPOSITORY / name for name in listing.split("\0") if name}
        return sorted(path for path in listed if path.is_file())
    return sorted(walked(REPOSITORY))


def walked(folder: Path) -> Iterator[Path]:
    """The files below a folder, but for folders that hold no source."""
    for path in folder.iterdir():
        if path.is_file():
            yield path
        elif path.is_dir() and path.name not in NOT_OURS and not path.name.endswith(("_cache", ".egg-info")):
            yield from walked(path)


def run(*command: str) -> str:
    """What a command prints; its failure is the test's."""
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


FILES = repository_files()
PYTHON = [path for path in FILES if path.suffix == ".py" and path.parent != STUBS]
SHIPPED = [path for path in PYTHON if path.is_relative_to(REPOSITORY / "server")] + [
    path for path in PYTHON if path.is_relative_to(REPOSITORY / "client/python")
]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def named(path: Path) -> str:
    """A file as a failure names it."""
    return path.relative_to(REPOSITORY).as_posix()


def text_of(path: Path) -> str:
    """The text of a file; empty where it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def syntax(path: Path) -> ast.Module:
    """A Python file, parsed."""
    return ast.parse(text_of(path), filename=str(path))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    return (node for node in ast.walk(syntax(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_with(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """Where a pattern occurs."""
    return [
        f"{named(path)}:{number}: {line.strip()[:100]}"
        for path in paths
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if pattern.search(line)
    ]


def test_the_stubs_are_what_the_generator_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The committed stubs are, byte for byte, what tools/generate_stubs.py makes of proto/; `make stubs` renews them."""
    # The compiler looks for its plugins there, also when the virtual environment has not been activated.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    spec = importlib.util.spec_from_file_location("generate_stubs", REPOSITORY / "tools/generate_stubs.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    generator.generate(tmp_path)
    generated = {path.name: path.read_bytes() for path in (tmp_path / "pointsman/v1").iterdir()}
    committed = {path.name: path.read_bytes() for path in STUBS.glob("*_pb2*.py*")}
    assert sorted(generated) == sorted(committed)
    assert [name for name in generated if generated[name] != committed[name]] == []


def test_the_floors_of_grpcio_and_protobuf_are_the_versions_of_the_generated_code() -> None:
    """Generated code refuses an older runtime when it is imported; the installer refuses it first."""
    grpc_versions = re.findall(
        r"^GRPC_GENERATED_VERSION = '([0-9.]+)'$", text_of(STUBS / "router_service_pb2_grpc.py"), re.MULTILINE
    )
    protobuf_versions = {
        re.sub(r"\s*,\s*", ".", version)
        for path in STUBS.glob("*_pb2.py")
        for version in re.findall(r"_runtime_version\.Domain\.PUBLIC,\s*(\d+,\s*\d+,\s*\d+),", text_of(path))
    }
    floors = dict(requirement.split(">=") for requirement in PROJECT["project"]["dependencies"])
    assert [floors["grpcio"]] == grpc_versions
    assert {floors["protobuf"]} == protobuf_versions


def dependencies() -> dict[str, set[str]]:
    """What pyproject.toml asks for: by extra, and under the empty name the base install."""
    groups = {"": PROJECT["project"]["dependencies"], **PROJECT["project"]["optional-dependencies"]}
    return {
        extra: {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in group} - {"pointsman"}
        for extra, group in groups.items()
    }


def argued_dependencies() -> dict[str, set[str]]:
    """What docs/dependencies.md argues for, likewise; a name may end in *."""
    argued: dict[str, set[str]] = {"": set()}
    extra = ""
    for cell in re.findall(r"^\| *([^|]+?) *\|", text_of(REPOSITORY / "docs/dependencies.md"), re.MULTILINE):
        if section := re.fullmatch(r"\*\*`\[([a-z]+)\]`\*\*", cell):
            extra = section[1]
            argued[extra] = set()
        elif cell != "package" and not set(cell) <= set("-:"):
            argued[extra] |= set(cell.split(", "))
    return argued


def test_each_dependency_is_argued_for_and_nothing_else_is() -> None:
    """docs/dependencies.md has a line for every dependency of pyproject.toml, under its extra, and for no other."""
    asked, argued = dependencies(), argued_dependencies()
    assert asked.keys() == argued.keys()
    for extra, names in asked.items():
        unargued = {name for name in names if not any(fnmatchcase(name, pattern) for pattern in argued[extra])}
        unasked = {pattern for pattern in argued[extra] if not any(fnmatchcase(name, pattern) for name in names)}
        assert (extra, unargued, unasked) == (extra, set(), set())


def test_every_tested_version_satisfies_what_is_asked_for() -> None:
    """constraints.txt pins every dependency of pyproject.toml, so that a fresh clone gets what the tests passed with."""
    pinned = set(re.findall(r"^([A-Za-z0-9._-]+)==", text_of(REPOSITORY / "constraints.txt"), re.MULTILINE))
    normalised = {re.sub(r"[-_.]+", "-", name).lower() for name in pinned}
    assert set().union(*dependencies().values()) - normalised == set()


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_local_link_leads_somewhere(page: Path) -> None:
    """Each link of a page that is no web address names a file, and where it has one a heading, that exist."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """A path in backquotes that starts at one of our folders is there."""
    folders = "|".join(sorted(re.escape(path.name) for path in REPOSITORY.iterdir() if path.is_dir()))
    paths = re.findall(rf"`((?:{folders})/[\w./-]*)`", text_of(page))
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []


def test_every_page_and_test_that_the_code_names_exists() -> None:
    """A comment or docstring that sends its reader to docs/, tests/ or tools/ names a file that is there."""
    pattern = re.compile(r"\b((?:docs|tests|tools)/[\w./-]+\.(?:md|py))\b")
    sources = [*SHIPPED, REPOSITORY / "pyproject.toml", REPOSITORY / "Makefile", *REPOSITORY.glob("tools/*.py")]
    missing = [
        f"{named(path)}: {name}"
        for path in sources
        for name in pattern.findall(text_of(path))
        if not (REPOSITORY / name).exists()
    ]
    assert missing == []


def test_no_file_is_too_large_but_the_artifact_and_that_has_a_limit_of_its_own() -> None:
    """A clone stays small: no file over a megabyte, and ten for the shipped quality model."""
    in_artifact = [path for path in FILES if path.is_relative_to(ARTIFACT)]
    large = [named(path) for path in FILES if path not in in_artifact and path.stat().st_size > FILE_BYTES_MAX]
    assert large == []
    assert in_artifact
    assert sum(path.stat().st_size for path in in_artifact) <= ARTIFACT_BYTES_MAX


def test_nothing_is_left_for_later() -> None:
    """What remains to be done is no comment: it is an issue, or it is done. The artifact's vocabulary may have any word."""
    assert lines_with(UNFINISHED, [path for path in FILES if not path.is_relative_to(ARTIFACT)]) == []
    assert lines_with(PLACEHOLDER, PAGES) == []


def test_the_repository_speaks_of_the_project_alone() -> None:
    """No path of a machine that it was written on, and no package registry but in the pinned versions."""
    speaking = [path for path in FILES if path.name != "constraints.txt" and path.suffix not in {".lock", ".sum"}]
    assert lines_with(WORKPLACE, speaking) == []


def test_the_server_prints_nothing() -> None:
    """Only the command line and its demo speak to a terminal; the server logs."""
    server = REPOSITORY / "server/pointsman_server"
    found = [
        f"{named(path)}:{node.lineno}"
        for path in SHIPPED
        if not any(path.is_relative_to(server / spared) for spared in ("cli", "demo", "demo.py"))
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_nothing_is_replaced_behind_its_back() -> None:
    """No test patches what it tests: fakes are shipped, typed, and passed in."""
    imports = (
        node for path in PYTHON for node in ast.walk(syntax(path)) if isinstance(node, ast.Import | ast.ImportFrom)
    )
    names = [f"{getattr(node, 'module', None) or ''}.{alias.name}" for node in imports for alias in node.names]
    assert [name for name in names if "mock" in name.split(".")] == []


def swallows_everything(node: ast.ExceptHandler) -> bool:
    """Whether this handles Exception, BaseException or whatever comes, without passing it on."""
    broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"})
    last = node.body[-1]
    return broad and not (isinstance(last, ast.Raise) and last.exc is None)


def test_almost_nothing_catches_everything() -> None:
    """Two handlers may take whatever comes; others may clean up after it, and pass it on."""
    broad = [
        f"{named(path)}:{node.lineno}"
        for path in SHIPPED
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.ExceptHandler) and swallows_everything(node)
    ]
    assert len(broad) <= BROAD_EXCEPT_COUNT_MAX, broad


def test_every_function_fits_a_screen() -> None:
    """No function of the server or the client is longer than 60 lines."""
    long = [
        f"{named(path)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1}"
        for path in SHIPPED
        for node in functions(path)
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > FUNCTION_LINE_COUNT_MAX
    ]
    assert long == []


def test_every_file_can_be_read_in_one_go() -> None:
    """No file of the server or the client, generated ones aside, is longer than 700 lines."""
    lengths = {named(path): len(text_of(path).splitlines()) for path in SHIPPED}
    assert {name: length for name, length in lengths.items() if length > FILE_LINE_COUNT_MAX} == {}


def test_every_test_says_what_it_proves() -> None:
    """Each test function has a docstring."""
    silent = [
        f"{named(path)}:{node.lineno} {node.name}"
        for path in PYTHON
        if path.is_relative_to(REPOSITORY / "tests") and path.name.startswith("test_")
        for node in functions(path)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def make_targets() -> dict[str, bool]:
    """The targets of the Makefile, and whether `make help` lists them."""
    found = re.findall(r"^([a-z][a-z-]*):(?!=)([^\n]*)$", text_of(REPOSITORY / "Makefile"), re.MULTILINE)
    return {name: " ## " in rest for name, rest in found}


def test_every_make_target_that_is_named_is_one_that_help_lists() -> None:
    """What README, CONTRIBUTING and docs/ tell the reader to make can be made, and `make help` says what it does."""
    pattern = re.compile(r"(?:`|^ *(?:\$ )?)make ([a-z][a-z-]*)", re.MULTILINE)
    mentioned = {name for page in PAGES for name in pattern.findall(text_of(page))}
    assert {"demo", "setup", "test"} <= mentioned
    assert sorted(mentioned - {name for name, listed in make_targets().items() if listed}) == []


def test_no_make_target_is_taken_for_a_file() -> None:
    """Each target is declared phony, so that a folder of its name, such as `stubs`, does not stop it."""
    phony = re.findall(r"^\.PHONY: ([a-z-]+)$", text_of(REPOSITORY / "Makefile"), re.MULTILINE)
    assert sorted(phony) == sorted(make_targets())


def test_every_module_of_the_server_has_a_layer() -> None:
    """The layers of import-linter are the server's modules: none is missing, none is gone."""
    (layers,) = [
        contract["layers"] for contract in PROJECT["tool"]["importlinter"]["contracts"] if "layers" in contract
    ]
    listed = {name for layer in layers for name in re.split(r"\s*[|:]\s*", layer)}
    server = REPOSITORY / "server/pointsman_server"
    modules = {path.relative_to(server).parts[0].removesuffix(".py") for path in SHIPPED if path.is_relative_to(server)}
    assert listed == modules - {"__init__", "__main__"}


def test_no_module_of_the_server_is_forgotten() -> None:
    """Each module is named by another file that ships or by the Makefile: no dead code stays behind. The fakes that
    ship for tests are named by those."""
    sources = {path: text_of(path) for path in [*SHIPPED, REPOSITORY / "Makefile", REPOSITORY / "pyproject.toml"]}
    forgotten = [
        named(path)
        for path in SHIPPED
        if path.name not in {"__init__.py", "__main__.py", "scripted.py"}
        and not any(other != path and re.search(rf"\b{path.stem}\b", text) for other, text in sources.items())
    ]
    assert forgotten == []


def test_the_changelog_speaks_of_this_version() -> None:
    """CHANGELOG.md has an entry for the version of pyproject.toml."""
    headings = re.findall(r"^## ([0-9][^\s,]*)", text_of(REPOSITORY / "CHANGELOG.md"), re.MULTILINE)
    assert PROJECT["project"]["version"] in headings


def test_what_ci_runs_is_what_a_person_types() -> None:
    """.ci/run calls `make test`, then `make test-jaeger`, and may be executed."""
    script = REPOSITORY / ".ci/run"
    assert text_of(script).splitlines()[-2:] == ["make test", "make test-jaeger"]
    assert os.access(script, os.X_OK)
