"""`pointsman catalog`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from cli.conftest import Pointsman

_CONFIG = """\
[providers.basement]
base_url = "http://127.0.0.1:8000/v1"
labels = { region = ["eu"] }

[[endpoints]]
model = "small"
provider = "basement"
upstream_model = "vendor/Small"
input_price_usd_per_mtok = 0.25
context_token_count_max = 32_768
capabilities = ["tools"]
"""

_PRICES = {
    "mistral/small-1": {"litellm_provider": "mistral", "mode": "chat", "input_cost_per_token": 1e-07},
    "groq/open-1": {"litellm_provider": "groq", "mode": "chat"},
    **{f"groq/embed-{number}": {"litellm_provider": "groq", "mode": "embedding"} for number in range(5)},
}


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A configuration of one endpoint."""
    path = tmp_path / "pointsman.toml"
    path.write_text(_CONFIG, encoding="utf-8")
    return str(path)


@pytest.fixture
def prices(tmp_path: Path) -> str:
    """A file of prices."""
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(_PRICES), encoding="utf-8")
    return str(path)


def test_the_catalog_is_a_table(pointsman: Pointsman, config: str) -> None:
    """Each endpoint of a configuration is a row; a price that is not known is a question mark."""
    done = pointsman("catalog", "show", "--config", config)
    assert done.exit_code == 0
    *_, row = (line.split() for line in done.out.splitlines())
    assert row == ["small@basement", "0.25", "?", "32,768", "tools", "region=eu", "vendor/Small"]


def test_a_right_configuration(pointsman: Pointsman, config: str) -> None:
    """A configuration without faults is said to be valid, with what is in it."""
    done = pointsman("catalog", "check", config)
    assert done.exit_code == 0
    assert done.out.startswith(f"{config} is valid: 1 endpoints at 1 providers, routers default\n")


def test_a_wrong_configuration(pointsman: Pointsman, config: str) -> None:
    """Every fault of a configuration is listed, with code 1 and no traceback."""
    Path(config).write_text(_CONFIG.replace("0.25", "-1").replace('["tools"]', '["flight"]'), encoding="utf-8")
    done = pointsman("catalog", "check", config)
    assert (done.exit_code, done.out) == (1, "")
    assert "input_price_usd_per_mtok" in done.err
    assert "flight" in done.err
    assert "Traceback" not in done.err


def test_a_published_score_of_an_unknown_benchmark(pointsman: Pointsman, config: str) -> None:
    """A check knows which benchmarks the artifact can read scores of, and what may have been meant."""
    scores = '[models.small.benchmark_scores]\n"mmlu-pro" = 0.7\n'
    Path(config).write_text(_CONFIG + scores, encoding="utf-8")
    done = pointsman("catalog", "check", config)
    assert (done.exit_code, done.out) == (1, "")
    assert 'models."small".benchmark_scores."mmlu-pro": is no benchmark that the quality artifact knows' in done.err
    assert "; did you mean mmlu_pro?" in done.err


def test_a_published_score_of_a_known_benchmark(pointsman: Pointsman, config: str) -> None:
    """Scores that count are no fault."""
    scores = '[models.small.benchmark_scores]\nmmlu_pro = 0.7\n"mmlu_pro/physics" = 0.6\n'
    Path(config).write_text(_CONFIG + scores, encoding="utf-8")
    assert pointsman("catalog", "check", config).exit_code == 0


def test_import_to_standard_output(pointsman: Pointsman, prices: str) -> None:
    """An import prints configuration and nothing else; what was left out is said beside it."""
    done = pointsman("catalog", "import", prices)
    assert done.exit_code == 0
    assert {entry["provider"] for entry in tomllib.loads(done.out)["endpoints"]} == {"mistral", "groq"}
    assert done.err.startswith("2 endpoints imported\n5 left out: ")
    assert "groq/embed-2, ...)" in done.err


def test_import_of_one_provider(pointsman: Pointsman, prices: str, tmp_path: Path) -> None:
    """An import of one provider writes that one's endpoints into the file that is named."""
    out = tmp_path / "catalog.toml"
    done = pointsman("catalog", "import", prices, "--provider", "groq", "--out", str(out))
    assert (done.exit_code, done.out) == (0, "")
    assert [entry["provider"] for entry in tomllib.loads(out.read_text(encoding="utf-8"))["endpoints"]] == ["groq"]


@pytest.mark.parametrize(
    ("content", "exit_code", "message"),
    [(b"{}", 1, "no chat model"), (b"[", 1, "is no JSON"), (b"\xff", 2, "is not UTF-8"), (None, 2, "No such file")],
)
def test_import_of_something_else(
    pointsman: Pointsman, tmp_path: Path, content: bytes | None, exit_code: int, message: str
) -> None:
    """What is not a file of prices is refused with its fault."""
    path = tmp_path / "prices.json"
    if content is not None:
        path.write_bytes(content)
    done = pointsman("catalog", "import", str(path))
    assert (done.exit_code, done.out) == (exit_code, "")
    assert message in done.err
