"""A sound configuration means what docs/configuration.md says."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.catalog.catalog import CatalogEntry
from pointsman_server.chat import ReasoningControl
from pointsman_server.config import (
    Config,
    OpenAiDoorSettings,
    RouterSettings,
    ServerSettings,
    TelemetrySettings,
    TlsSettings,
    load_config,
    parse_config,
)
from pointsman_server.decision.router_string import parse_router_string
from pointsman_server.decision.types import Arm, Capability, Endpoint, Exploration, RequestFeature
from pointsman_server.decision_log.settings import DecisionLogSettings
from pointsman_server.errors import ConfigError
from pointsman_server.execution.probing import ProbeSettings
from pointsman_server.providers import anthropic_wire
from pointsman_server.providers.base import ProviderSettings, Secret
from pointsman_server.providers.dialects import DIALECTS
from pointsman_server.providers.traits import AdapterTraits

ROOT = Path(__file__).parents[2]
LOCAL = '[providers.local]\nbase_url = "http://127.0.0.1:8000/v1"\n'
ALPHA = '[[endpoints]]\nmodel = "alpha"\nprovider = "local"\n'


def parse(text: str, environment: dict[str, str] | None = None, directory: Path = Path()) -> Config:
    """The configuration of a text."""
    return parse_config(text, source="test.toml", directory=directory, environment=environment or {})


def test_what_is_not_set_has_its_default() -> None:
    """One provider and one endpoint are a whole configuration."""
    config = parse(LOCAL + ALPHA)
    assert config.server == ServerSettings()
    assert config.openai_door is None
    assert config.telemetry == TelemetrySettings()
    assert config.decision_log is None
    assert config.quality_artifact is None
    assert config.catalog.entries == (
        CatalogEntry(endpoint=Endpoint("alpha", "local"), upstream_model="alpha", quality_model="alpha", stream=True),
    )
    assert config.providers == {"local": ProviderSettings(name="local", base_url="http://127.0.0.1:8000/v1")}
    assert config.adapters == {"local": "openai_compatible"}
    assert config.probes == {}
    assert config.routers == {"default": RouterSettings(name="default")}
    assert config.notices == ()


def test_every_key_arrives_where_it_belongs(tmp_path: Path) -> None:
    """What is set is what the settings hold; relative paths are relative to the file."""
    for name in ("crt.pem", "key.pem", "ca.pem"):
        (tmp_path / name).touch()
    (tmp_path / "artifact").mkdir()
    path = tmp_path / "pointsman.toml"
    path.write_text("""
        prices_as_of = "2026-11-01"
        [server]
        listen = "[::1]:0"
        request_count_max = 7
        message_bytes_max = 2048
        shutdown_grace_s = 0
        decision_memory_count = 7
        attempt_count_max = 10
        ttft_timeout_s = 0.5
        replica_count = 3
        runtime_state_file = "runtime.json"
        runtime_state_interval_s = 2
        api_keys_env = "CLIENT_KEYS"
        tls = { certificate_file = "crt.pem", key_file = "key.pem", client_ca_file = "ca.pem" }
        [openai_door]
        listen = "[::1]:80"
        body_bytes_max = 4096
        header_bytes_max = 2048
        connection_count_max = 7
        api_keys_env = "CLIENT_KEYS"
        [telemetry]
        otlp_endpoint = "http://127.0.0.1:4317"
        sample_ratio = 0
        service_name = "mine"
        [decision_log]
        directory = "log"
        file_bytes_max = 65536
        total_bytes_max = 131072
        flush_interval_s = 0.5
        keep_prompts = true
        [quality]
        artifact = "artifact"
        [providers.local]
        adapter = "other"
        base_url = "https://a.example/v1/"
        api_key_env = "LOCAL_KEY"
        headers = { X-Title = "mine" }
        headers_env = { X-Team-Key = "TEAM_KEY" }
        dialect = "azure"
        api_version = "2024-10-21"
        max_tokens_field = "max_completion_tokens"
        caches_prompts = true
        connect_timeout_s = 1
        idle_timeout_s = 2.5
        whole_answer_timeout_s = 3
        connection_count_max = 4
        labels = { region = ["eu", "us"], retention = "none" }
        probes = { after_s = 60, tokens_per_hour_max = 100, usd_per_day_max = 0.5 }
        [[endpoints]]
        model = "alpha"
        provider = "local"
        upstream_model = "@cf/Alpha-1"
        quality_model = "alpha-1"
        input_price_usd_per_mtok = 1
        output_price_usd_per_mtok = 2.5
        cached_input_price_usd_per_mtok = 0.0
        cache_write_price_usd_per_mtok = 1.25
        context_token_count_max = 1_000
        output_token_count_max = 1_000
        capabilities = ["tools", "reasoning"]
        lacks = ["seed"]
        reasoning_control = "budget"
        labels = { region = "ch" }
        stream = false
        [routers.r]
        description = "für alle"
        policy = "alpha@lowest-ttft"
        artifact = "artifact"
        exploration_rate = 0
        near_tie_width = 1
        shadow = ["default", "second"]
        [[routers.r.split]]
        router = "second"
        share = 0.25
        [[routers.r.split]]
        router = "default"
        share = 0.75
        [routers.second]
    """)
    environment = {"CLIENT_KEYS": " one, two ,", "LOCAL_KEY": "key\n", "TEAM_KEY": "team"}
    config = load_config(
        path, environment, adapters={"other": AdapterTraits(has_dialects=True, caches_when_asked=True)}
    )
    assert config.server == ServerSettings(
        listen="[::1]:0",
        request_count_max=7,
        message_bytes_max=2048,
        shutdown_grace_s=0.0,
        decision_memory_count=7,
        attempt_count_max=10,
        ttft_timeout_s=0.5,
        replica_count=3,
        runtime_state_file=tmp_path / "runtime.json",
        runtime_state_interval_s=2.0,
        api_keys=(Secret("one"), Secret("two")),
        tls=TlsSettings(
            certificate_file=tmp_path / "crt.pem", key_file=tmp_path / "key.pem", client_ca_file=tmp_path / "ca.pem"
        ),
    )
    assert config.openai_door == OpenAiDoorSettings(
        listen="[::1]:80",
        body_bytes_max=4096,
        header_bytes_max=2048,
        connection_count_max=7,
        api_keys=(Secret("one"), Secret("two")),
    )
    assert config.telemetry == TelemetrySettings(
        otlp_endpoint="http://127.0.0.1:4317", sample_ratio=0.0, service_name="mine"
    )
    assert config.decision_log == DecisionLogSettings(
        directory=tmp_path / "log",
        file_bytes_max=65536,
        total_bytes_max=131072,
        flush_interval_s=0.5,
        keep_prompts=True,
    )
    assert config.quality_artifact == tmp_path / "artifact"
    assert config.providers == {
        "local": ProviderSettings(
            name="local",
            base_url="https://a.example/v1",
            api_key=Secret("key"),
            headers=(("X-Title", Secret("mine")), ("X-Team-Key", Secret("team"))),
            dialect=DIALECTS["azure"],
            api_version="2024-10-21",
            max_tokens_field="max_completion_tokens",
            caches_prompts=True,
            connect_timeout_s=1.0,
            idle_timeout_s=2.5,
            whole_answer_timeout_s=3.0,
            connection_count_max=4,
        )
    }
    assert config.adapters == {"local": "other"}
    assert config.probes == {"local": ProbeSettings(after_s=60.0, tokens_per_hour_max=100, usd_per_day_max=0.5)}
    assert config.catalog.entries == (
        CatalogEntry(
            endpoint=Endpoint(
                model="alpha",
                provider="local",
                input_price_usd_per_mtok=1.0,
                output_price_usd_per_mtok=2.5,
                cached_input_price_usd_per_mtok=0.0,
                cache_write_price_usd_per_mtok=1.25,
                context_token_count_max=1000,
                output_token_count_max=1000,
                capabilities=frozenset({Capability.TOOLS, Capability.REASONING}),
                labels=frozenset({("region", "ch"), ("retention", "none")}),
                lacks=DIALECTS["azure"].lacks | {RequestFeature.SEED},
            ),
            upstream_model="@cf/Alpha-1",
            quality_model="alpha-1",
            reasoning_control=ReasoningControl.BUDGET,
            stream=False,
        ),
    )
    assert config.routers["r"] == RouterSettings(
        name="r",
        description="für alle",
        policy=parse_router_string("alpha@lowest-ttft"),
        artifact=tmp_path / "artifact",
        exploration=Exploration(rate=0.0, near_tie_width=1.0),
        split=(Arm("second", 0.25), Arm("default", 0.75)),
        shadows=("default", "second"),
    )


def test_what_a_wire_format_cannot_say_its_endpoints_lack() -> None:
    """Endpoints of a provider get what its adapter and its dialect lack, beside what they lack themselves."""
    config = parse("""
        [providers.claude]
        adapter = "anthropic"
        base_url = "http://a"
        [[endpoints]]
        model = "one"
        provider = "claude"
        output_token_count_max = 10
        lacks = ["top_k"]
        [providers.fast]
        dialect = "groq"
        base_url = "http://b"
        [[endpoints]]
        model = "one"
        provider = "fast"
        [providers.mine]
        base_url = "http://c"
        [[endpoints]]
        model = "one"
        provider = "mine"
    """)
    lacks = {endpoint.provider: endpoint.lacks for endpoint in config.catalog.endpoints}
    assert lacks == {
        "claude": anthropic_wire.LACKS | {RequestFeature.TOP_K},
        "fast": DIALECTS["groq"].lacks,
        "mine": frozenset(),
    }


def test_probes_are_opt_in() -> None:
    """A provider with the table has its endpoints probed, with the defaults for what it leaves out; others have not."""
    far = '[providers.far]\nbase_url = "http://a"\n[[endpoints]]\nmodel = "alpha"\nprovider = "far"\n'
    config = parse(f"{LOCAL}{ALPHA}{far}[providers.far.probes]")
    assert config.probes == {"far": ProbeSettings()}


def test_no_secret_shows_in_the_configuration() -> None:
    """Printing a configuration shows no key, no client's key and no header's value."""
    text = """
    [server]
    api_keys_env = "CLIENT_KEYS"
    [providers.local]
    base_url = "http://a"
    api_key_env = "KEY"
    headers_env = { x = "HEADER" }
    """
    config = parse(text + ALPHA, {"CLIENT_KEYS": "hidden-1", "KEY": "hidden-2", "HEADER": "hidden-3"})
    assert "hidden" not in repr(config)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_endpoints_whose_key_is_missing_are_left_out_with_a_notice(value: str | None) -> None:
    """A variable that is absent or blank takes its provider's endpoints out, and the notice names it."""
    text = f'{LOCAL}{ALPHA}[providers.far]\nbase_url = "https://far.example"\napi_key_env = "FAR_KEY"\n'
    text += '[[endpoints]]\nmodel = "alpha"\nprovider = "far"\n[routers.r]\npolicy = "router@providers:far"\n'
    config = parse(text, {} if value is None else {"FAR_KEY": value})
    assert config.catalog.models == {"alpha"}
    assert config.catalog.providers == {"local"}
    assert set(config.providers) == {"local"}
    assert config.notices == ("provider far: without FAR_KEY its 1 endpoints are left out",)


def test_a_provider_without_endpoints_is_noticed() -> None:
    """A provider that nothing uses is no fault, but is told and not set up."""
    config = parse(f'{LOCAL}{ALPHA}[providers.idle]\nbase_url = "https://idle.example"\n')
    assert set(config.providers) == {"local"}
    assert config.notices == ("provider idle: it has no endpoints",)


def test_a_server_that_anyone_can_reach_is_noticed() -> None:
    """Listening beyond loopback without asking who calls is told; with keys it is not."""
    [notice] = parse(f'[server]\nlisten = "0.0.0.0:50061"\n{LOCAL}{ALPHA}').notices
    assert notice.startswith("server.listen: whoever reaches 0.0.0.0:50061 can spend your credit")
    text = f'[server]\nlisten = "0.0.0.0:50061"\napi_keys_env = "KEYS"\n{LOCAL}{ALPHA}'
    assert parse(text, {"KEYS": "k"}).notices == ()


def test_a_door_that_anyone_can_reach_is_noticed() -> None:
    """The OpenAI-compatible door likewise: its own keys, or the server's, are enough."""
    door = '[openai_door]\nlisten = "0.0.0.0:80"\n'
    [notice] = parse(f"{door}{LOCAL}{ALPHA}").notices
    assert notice.startswith("openai_door.listen: whoever reaches 0.0.0.0:80 can spend your credit")
    assert "openai_door.api_keys_env" in notice
    for keys in ('api_keys_env = "KEYS"\n', '[server]\napi_keys_env = "KEYS"\n'):
        assert parse(f"{door}{keys}{LOCAL}{ALPHA}", {"KEYS": "k"}).notices == ()
    assert parse(f"[openai_door]\n{LOCAL}{ALPHA}").openai_door == OpenAiDoorSettings()


def test_without_any_endpoint_the_variables_that_would_help_are_named() -> None:
    """If every key is missing, the fault lists each provider's variables."""
    text = '[providers.far]\nbase_url = "https://a"\napi_key_env = "FAR_KEY"\nheaders_env = { x = "FAR_TEAM" }\n'
    with pytest.raises(ConfigError) as caught:
        parse(f'{text}[[endpoints]]\nmodel = "alpha"\nprovider = "far"\n')
    [violation] = caught.value.violations
    assert violation.field == "endpoints"
    assert violation.description == (
        "none can be called, because no key is in the environment: set at least one of FAR_KEY and FAR_TEAM (for far)"
    )


def test_an_empty_file_says_what_to_add() -> None:
    """A file without endpoints is a fault with two ways out."""
    with pytest.raises(ConfigError, match=re.escape('add [[endpoints]], or include = ["well_known"] to [catalog]')):
        parse("")


def test_without_a_file_every_provider_with_a_key_is_used() -> None:
    """The built-in configuration is the shipped catalog, as far as keys are in the environment."""
    config = load_config(None, {"OPENAI_API_KEY": "k", "GROQ_API_KEY": "k"})
    assert config.catalog.providers == {"openai", "groq"}
    assert "provider anthropic: without ANTHROPIC_API_KEY its 6 endpoints are left out" in config.notices


def test_without_a_file_and_without_a_key_the_error_names_the_variables() -> None:
    """The built-in configuration is not valid in an empty environment, and says what to set."""
    with pytest.raises(
        ConfigError, match=r"the built-in configuration is not valid:(.|\n)*OPENAI_API_KEY \(for openai\)"
    ):
        load_config(None, {})


@pytest.mark.parametrize("key", [{}, {"OPENAI_API_KEY": "k"}])
def test_openai_base_url_moves_the_well_known_provider(key: dict[str, str]) -> None:
    """OPENAI_BASE_URL is called instead of OpenAI, with the key if there is one, and the move is noticed."""
    config = load_config(None, {"OPENAI_BASE_URL": "http://127.0.0.1:8000/v1/"} | key)
    assert config.providers["openai"].base_url == "http://127.0.0.1:8000/v1"
    assert config.providers["openai"].api_key == (Secret("k") if key else None)
    assert "provider openai: OPENAI_BASE_URL is called; prices and limits are still OpenAI's own" in config.notices


def test_openai_base_url_at_openai_itself_moves_nothing() -> None:
    """The variable set to OpenAI's own address leaves everything as it is: the key is still needed."""
    config = load_config(None, {"OPENAI_BASE_URL": "https://api.openai.com/v1/", "GROQ_API_KEY": "k"})
    assert config.catalog.providers == {"groq"}


def test_openai_base_url_leaves_a_declared_provider_alone() -> None:
    """A provider of the user's own goes where the file says, even if it is called openai."""
    text = '[providers.openai]\nbase_url = "https://own.example"\n[[endpoints]]\nmodel = "alpha"\nprovider = "openai"\n'
    config = parse(text, {"OPENAI_BASE_URL": "http://127.0.0.1:8000/v1"})
    assert config.providers["openai"].base_url == "https://own.example"


def test_the_file_wins_over_imported_files_and_these_over_the_shipped_catalog(tmp_path: Path) -> None:
    """Of providers and endpoints with one name the one from the higher layer holds, as a whole."""
    for name, price in (("one.toml", 1), ("two.toml", 2)):
        (tmp_path / name).write_text(
            f'[providers.openai]\nbase_url = "https://{name}"\n'
            f'[[endpoints]]\nmodel = "gpt-4o"\nprovider = "openai"\ninput_price_usd_per_mtok = {price}\n'
            f'[[endpoints]]\nmodel = "alpha"\nprovider = "openai"\ninput_price_usd_per_mtok = {price}\n'
        )
    text = '[catalog]\ninclude = ["well_known"]\nimport_files = ["one.toml", "two.toml"]\n'
    config = parse(text + '[[endpoints]]\nmodel = "alpha"\nprovider = "openai"\n', directory=tmp_path)
    assert config.providers["openai"].base_url == "https://two.toml"
    assert config.catalog.by_name["gpt-4o@openai"].endpoint == Endpoint("gpt-4o", "openai", 2.0)
    assert config.catalog.by_name["alpha@openai"].endpoint == Endpoint("alpha", "openai")
    assert "gpt-4.1@openai" in config.catalog.by_name


def test_the_default_router_can_be_written() -> None:
    """`[routers.default]` replaces the built-in default router."""
    text = f'{LOCAL}{ALPHA}[routers.default]\npolicy = "router@highest-quality|ttft.p95<2000"\n'
    assert str(parse(text).routers["default"].policy) == str(
        parse_router_string("router@highest-quality|ttft.p95<2000")
    )


def test_a_router_has_a_version_that_changes_with_what_it_does() -> None:
    """Equal routers have equal versions; another policy or exploration is another version, another description isn't."""
    router = RouterSettings(name="r")
    assert router.version == RouterSettings(name="r", description="other").version
    assert router.version != dataclasses.replace(router, policy=parse_router_string("router@q:1")).version
    assert router.version != dataclasses.replace(router, exploration=Exploration(rate=0.5)).version


ENDPOINTS = [
    f'[[endpoints]]\nmodel = "m{n}"\nprovider = "local"\ninput_price_usd_per_mtok = {n}\nlabels = {{ a = ["{n}", "x"] }}\n'
    for n in range(8)
]


@given(st.permutations(ENDPOINTS))
def test_the_order_of_endpoints_is_irrelevant(endpoints: list[str]) -> None:
    """Any order of `[[endpoints]]` gives the same configuration and the same version of the catalog."""
    config = parse(LOCAL + "".join(endpoints))
    assert config == parse(LOCAL + "".join(ENDPOINTS))
    assert config.catalog.version == parse(LOCAL + "".join(ENDPOINTS)).catalog.version


def test_the_order_of_providers_is_irrelevant() -> None:
    """Any order of `[providers]` gives the same providers and catalog."""
    blocks = [
        f'[providers.p{n}]\nbase_url = "http://{n}"\n[[endpoints]]\nmodel = "m"\nprovider = "p{n}"\n' for n in range(5)
    ]
    shuffled = random.Random(7).sample(blocks, len(blocks))
    assert parse("".join(shuffled)) == parse("".join(blocks))


def test_published_scores_belong_to_a_quality_model() -> None:
    """Each endpoint of that quality model has them, in the order of their names, and no other endpoint has."""
    twin = '[[endpoints]]\nmodel = "twin"\nprovider = "local"\nquality_model = "alpha"\n'
    other = '[[endpoints]]\nmodel = "other"\nprovider = "local"\n'
    scores = "[models.alpha.benchmark_scores]\nmmlu_pro = 1\ngsm8k = 0.5\n"
    entries = parse(LOCAL + ALPHA + twin + other + scores).catalog.entries
    found = {entry.endpoint.model: entry.benchmark_scores for entry in entries}
    expected = (("gsm8k", 0.5), ("mmlu_pro", 1.0))
    assert found == {"alpha": expected, "twin": expected, "other": ()}


def test_a_files_own_scores_win_over_imported_ones(tmp_path: Path) -> None:
    """As with providers and endpoints, the later table of a model replaces the earlier one as a whole."""
    imported = "[models.alpha.benchmark_scores]\nmmlu_pro = 0.1\ngsm8k = 0.1\n"
    (tmp_path / "scores.toml").write_text(imported, encoding="utf-8")
    own = '[catalog]\nimport_files = ["scores.toml"]\n[models.alpha.benchmark_scores]\nmmlu_pro = 0.9\n'
    (entry,) = parse(LOCAL + ALPHA + own, directory=tmp_path).catalog.entries
    assert entry.benchmark_scores == (("mmlu_pro", 0.9),)


def test_the_example_of_the_documentation_is_sound() -> None:
    """The example in docs/configuration.md parses and holds what it talks about."""
    document = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    config = parse(example)
    assert set(config.routers) == {"default", "private", "cheap"}
    assert config.catalog.by_name["llama-3.3-70b-instruct@basement"].endpoint.labels == {
        ("region", "eu"),
        ("retention", "none"),
    }


def test_the_documentation_names_every_key() -> None:
    """docs/configuration.md has a row for each key of each table, and each default that it states is the real one."""
    document = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", re.MULTILINE)
    rows = dict(row.findall(document))
    for heading, settings in (
        ("[server]", ServerSettings),
        ("[openai_door]", OpenAiDoorSettings),
        ("[decision_log]", DecisionLogSettings),
    ):
        section = dict(row.findall(document.partition(f"### `{heading}`")[2].partition("\n###")[0]))
        defaults = {field.name: field.default for field in dataclasses.fields(settings)}
        for key in defaults.keys() - {"api_keys", "tls", "directory"}:
            stated = section[key].strip("`").strip('"')
            assert stated == ("none" if defaults[key] is None else str(defaults[key]).lower())
    entry_keys = {field.name for field in dataclasses.fields(Endpoint)} - {"name"}
    provider_keys = {"adapter", "base_url", "api_key_env", "headers", "headers_env", "max_tokens_field", "labels"}
    provider_keys |= {"dialect", "api_version", "caches_prompts"}
    provider_keys |= {"connect_timeout_s", "idle_timeout_s", "whole_answer_timeout_s", "connection_count_max"}
    assert (entry_keys | {"upstream_model", "quality_model", "stream"} | provider_keys) <= rows.keys()
    assert {field.name for field in dataclasses.fields(CatalogEntry)} - {"endpoint"} <= rows.keys()
    provider = {field.name: field.default for field in dataclasses.fields(ProviderSettings)}
    for key in ("connect_timeout_s", "idle_timeout_s", "whole_answer_timeout_s", "connection_count_max"):
        assert rows[key].strip("`") == str(provider[key])


def test_the_example_for_deployment_is_sound() -> None:
    """deploy/pointsman.example.toml parses, and parses too with what it leaves in comments."""
    path = ROOT / "deploy/pointsman.example.toml"
    environment = {"POINTSMAN_API_KEYS": "k", "OPENAI_API_KEY": "k"}
    assert load_config(path, environment).server.api_keys == (Secret("k"),)
    lines = path.read_text(encoding="utf-8").splitlines()
    uncommented = [re.sub(r"^# (?=\[providers|\[\[|\w+ = )", "", line) for line in lines if "_file" not in line]
    text = "\n".join(line for line in uncommented if not line.startswith("# [server.tls]"))
    assert "llama-3.3-70b-instruct@basement" in parse(text, environment).catalog.by_name
