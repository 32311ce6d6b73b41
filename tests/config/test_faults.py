"""What is wrong with a configuration is told completely: every fault, with its path and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.config import Config, load_config, parse_config
from pointsman_server.errors import ConfigError

LOCAL = """
[providers.local]
base_url = "http://127.0.0.1:8000/v1"
"""
SOUND = f"""{LOCAL}
[[endpoints]]
model = "alpha"
provider = "local"
"""
ONE_MORE = '[[endpoints]]\nmodel = "beta"\nprovider = "local"\n'
NAME_RULE = "1 to 128 letters, digits or any of . _ / : - with a letter or digit first, and not `router`"
PROVIDER_NAME_RULE = (
    "1 to 128 letters, digits or any of . _ / - with a letter or digit first, not starting with `lowest-` or `highest-`"
)
VARIABLE_FAULT = (
    "must be the name of an environment variable in upper case, such as OPENAI_API_KEY (never the key itself)"
)
URL_FAULT = "must be an http or https URL, such as https://api.example.com/v1"
KEY_FAULT = "a key must not stand in this file: name the environment variable with it in `api_key_env`"
LISTEN_FAULT = "must be host:port with a port from 0 to 65535, such as 127.0.0.1:50061 or [::1]:50061"
SECRET = "sk-live-5up3r53cr3t"


def parse(text: str, environment: dict[str, str] | None = None, directory: Path = Path()) -> Config:
    """The configuration of a text."""
    return parse_config(text, source="test.toml", directory=directory, environment=environment or {})


def faults_of(text: str, environment: dict[str, str] | None = None, directory: Path = Path()) -> list[tuple[str, str]]:
    """The faults of a text, as paths and descriptions; none of them quotes the secret."""
    with pytest.raises(ConfigError) as caught:
        parse(text, environment, directory)
    assert caught.value.source == "test.toml"
    assert SECRET not in str(caught.value)
    return [(violation.field, violation.description) for violation in caught.value.violations]


FAULTS = [
    # the server
    ('[server]\nlisten = "nowhere"', "server.listen", LISTEN_FAULT),
    ('[server]\nlisten = "127.0.0.1:65536"', "server.listen", LISTEN_FAULT),
    ("[server]\nlisten = 50061", "server.listen", "must be text, not a number"),
    ('[server]\nlisten = ""', "server.listen", "must not be empty"),
    ('[server]\nlistn = "x"', "server.listn", "is unknown; did you mean listen?"),
    ("[server]\nzzz = 1", "server.zzz", "is unknown"),
    ("server = 1", "server", "must be a table, not a number"),
    # the OpenAI-compatible door
    ('[openai_door]\nlisten = "8080"', "openai_door.listen", LISTEN_FAULT.replace("50061 or", "50062 or")),
    ('[openai_door]\nlistn = "x"', "openai_door.listn", "is unknown; did you mean listen?"),
    ("openai_door = true", "openai_door", "must be a table, not true or false"),
    (
        "[openai_door]\nbody_bytes_max = 1",
        "openai_door.body_bytes_max",
        "must be a whole number from 1024 to 268435456, not 1",
    ),
    (
        "[openai_door]\nheader_bytes_max = 1",
        "openai_door.header_bytes_max",
        "must be a whole number from 1024 to 262144, not 1",
    ),
    (
        "[openai_door]\nconnection_count_max = 0",
        "openai_door.connection_count_max",
        "must be a whole number from 1 to 100000, not 0",
    ),
    (
        "[openai_door]\napi_keys = ['k']",
        "openai_door.api_keys",
        "keys must not stand in this file: name the environment variable with them in `api_keys_env`",
    ),
    (
        "[server]\nrequest_count_max = 0",
        "server.request_count_max",
        "must be a whole number from 1 to 100000, not 0",
    ),
    (
        "[server]\nrequest_count_max = 1.5",
        "server.request_count_max",
        "must be a whole number, not a number with a fraction",
    ),
    ("[server]\nrequest_count_max = true", "server.request_count_max", "must be a whole number, not true or false"),
    (
        "[server]\nmessage_bytes_max = 1000000000000000000000000",
        "server.message_bytes_max",
        "must be a whole number from 1024 to 268435456, not a number of more than 18 digits",
    ),
    ("[server]\nshutdown_grace_s = -1", "server.shutdown_grace_s", "must be a number from 0 to 3600, not -1"),
    (
        "[server]\nttft_timeout_s = 0",
        "server.ttft_timeout_s",
        "must be a number above 0 and at most 3600, not 0",
    ),
    (
        "[server]\nttft_timeout_s = nan",
        "server.ttft_timeout_s",
        "must be a number above 0 and at most 3600, not nan",
    ),
    ('[server]\nttft_timeout_s = "1"', "server.ttft_timeout_s", "must be a number, not text"),
    ("[server]\nshutdown_grace_s = 2026-01-01", "server.shutdown_grace_s", "must be a number, not a date or time"),
    (
        '[server]\nruntime_state_file = "nowhere/runtime.json"',
        "server.runtime_state_file",
        "there is no folder nowhere",
    ),
    ('[server]\nruntime_state_file = ".."', "server.runtime_state_file", "must be a file; .. is a folder"),
    (
        "[server]\nruntime_state_interval_s = 0",
        "server.runtime_state_interval_s",
        "must be a number from 1 to 3600, not 0",
    ),
    ("[decision_log]", "decision_log.directory", "is required"),
    ('[decision_log]\ndirectory = "nowhere/log"', "decision_log.directory", "there is no folder nowhere"),
    (
        '[decision_log]\ndirectory = "log"\nflush_interval_s = 0',
        "decision_log.flush_interval_s",
        "must be a number above 0 and at most 60, not 0",
    ),
    (
        '[decision_log]\ndirectory = "log"\nfile_bytes_max = 1',
        "decision_log.file_bytes_max",
        "must be a whole number from 65536 to 1099511627776, not 1",
    ),
    (
        '[decision_log]\ndirectory = "log"\ntotal_bytes_max = 70000',
        "decision_log.total_bytes_max",
        "must have room for two files, 134217728, not 70000",
    ),
    (
        '[decision_log]\ndirectory = "log"\nprompts = true',
        "decision_log.prompts",
        "is unknown; did you mean keep_prompts?",
    ),
    (
        "[server]\nreplica_count = 0",
        "server.replica_count",
        "must be a whole number from 1 to 1000, not 0",
    ),
    (
        "[server]\nattempt_count_max = 17",
        "server.attempt_count_max",
        "must be a whole number from 1 to 10, not 17",
    ),
    (
        f'[server]\napi_keys = ["{SECRET}"]',
        "server.api_keys",
        "keys must not stand in this file: name the environment variable with them in `api_keys_env`",
    ),
    (f'[server]\napi_keys_env = "{SECRET}"', "server.api_keys_env", VARIABLE_FAULT),
    (
        '[server]\napi_keys_env = "ABSENT"',
        "server.api_keys_env",
        "ABSENT is not set or empty, so no client could be admitted",
    ),
    (
        '[server]\napi_keys_env = "UNPRINTABLE"',
        "server.api_keys_env",
        "UNPRINTABLE must hold keys of printable ASCII, separated by commas",
    ),
    # its certificate
    ("[server.tls]\ncertificate_file = '/absent/crt'\nkey_file = '/'", "server.tls.key_file", "there is no file /"),
    ("[server.tls]\ncertificate_file = '/absent/crt'", "server.tls.key_file", "is required"),
    ("[server.tls]\nkey_file = '/absent/key'", "server.tls.key_file", "there is no file /absent/key"),
    # telemetry, quality, catalog
    ('[telemetry]\notlp_endpoint = "localhost:4317"', "telemetry.otlp_endpoint", URL_FAULT),
    ("[telemetry]\nsample_ratio = 1.1", "telemetry.sample_ratio", "must be a number from 0 to 1, not 1.1"),
    ("[telemetry]\nsample_ratio = inf", "telemetry.sample_ratio", "must be a number from 0 to 1, not inf"),
    ('[telemetry]\nservice_name = "a\\nb"', "telemetry.service_name", "must be at most 1024 characters on one line"),
    (
        '[quality]\nartifact = "absent"',
        "quality.artifact",
        "there is no directory absent",
    ),
    ('[catalog]\ninclude = ["wellknown"]', "catalog.include", "`wellknown` is not shipped, only `well_known` is"),
    ('[catalog]\ninclude = "well_known"', "catalog.include", "must be an array of texts, not text"),
    ('[catalog]\ninclude = ["well_known", "well_known"]', "catalog.include[1]", "is listed twice"),
    (
        '[catalog]\nimport_files = ["absent.toml"]',
        "catalog.import_files[0]",
        "absent.toml can't be read: No such file or directory",
    ),
    (
        f"[catalog]\nimport_files = {[f'{n}.toml' for n in range(17)]}",
        "catalog.import_files",
        "must hold at most 16 files, not 17",
    ),
    # probes
    (
        '[providers.a]\nbase_url = "http://a"\nprobes = { after_s = 1 }',
        "providers.a.probes.after_s",
        "must be a number from 5 to 86400, not 1",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nprobes = { tokens_per_hour_max = 23 }',
        "providers.a.probes.tokens_per_hour_max",
        "must be a whole number from 24 to 1000000, not 23",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nprobes = { usd_per_day_max = -1 }',
        "providers.a.probes.usd_per_day_max",
        "must be a number from 0 to 1000, not -1",
    ),
    # providers
    ("[providers.a]", "providers.a.base_url", "is required"),
    ('[providers.a]\nbase_url = "ftp://a.example"', "providers.a.base_url", URL_FAULT),
    ('[providers.a]\nbase_url = "https://"', "providers.a.base_url", URL_FAULT),
    ('[providers.a]\nbase_url = "https://a.example:x/v1"', "providers.a.base_url", URL_FAULT),
    ('[providers.a]\nbase_url = "https://[::1/v1"', "providers.a.base_url", URL_FAULT),
    ('[providers.a]\nbase_url = "https://a.example/ü"', "providers.a.base_url", URL_FAULT),
    (
        f'[providers.a]\nbase_url = "https://me:{SECRET}@a.example/v1"',
        "providers.a.base_url",
        "must not hold a user name or password: name environment variables in `api_key_env` or `headers_env`",
    ),
    (
        f'[providers.a]\nbase_url = "https://a.example/v1?key={SECRET}"',
        "providers.a.base_url",
        "must have neither a query (?) nor a fragment (#)",
    ),
    (f'[providers.a]\nbase_url = "http://a"\napi_key = "{SECRET}"', "providers.a.api_key", KEY_FAULT),
    (f'[providers.a]\nbase_url = "http://a"\ntoken = "{SECRET}"', "providers.a.token", KEY_FAULT),
    (f'[providers.a]\nbase_url = "http://a"\napi_key_env = "{SECRET}"', "providers.a.api_key_env", VARIABLE_FAULT),
    (
        '[providers.a]\nbase_url = "http://a"\napi_key_env = "gsk_0123456789abcdef"',
        "providers.a.api_key_env",
        VARIABLE_FAULT,
    ),
    (
        '[providers.a]\nbase_url = "http://a"\napi_key_env = "UNPRINTABLE"',
        "providers.a.api_key_env",
        "the value of UNPRINTABLE must be printable ASCII without blanks at its ends",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nheaders_env = { x = "UNPRINTABLE" }',
        "providers.a.headers_env.x",
        "the value of UNPRINTABLE must be printable ASCII without blanks at its ends",
    ),
    (
        f'[providers.a]\nbase_url = "http://a"\nheaders = {{ Authorization = "{SECRET}" }}',
        "providers.a.headers.Authorization",
        "looks like a secret: name the environment variable with it in `headers_env`",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nheaders = { Host = "b" }',
        "providers.a.headers.Host",
        "is sent by Pointsman itself and can't be set",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nheaders = { "a b" = "c" }',
        'providers.a.headers."a b"',
        "is no name of an HTTP header",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nheaders = { X = "b" }\nheaders_env = { x = "B" }',
        "providers.a.headers_env.x",
        "is set twice",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\napi_key_env = "A"\nheaders_env = { authorization = "B" }',
        "providers.a.headers_env.authorization",
        "is set from `api_key_env` already",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nheaders = { x = "b\\r\\nc: d" }',
        "providers.a.headers.x",
        "must be printable ASCII without blanks at its ends",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nadapter = "openai_compatibel"',
        "providers.a.adapter",
        "`openai_compatibel` is not an adapter; did you mean openai_compatible?",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nadapter = "zzz"',
        "providers.a.adapter",
        "`zzz` is not an adapter; known are anthropic, gemini, openai_compatible",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\ndialect = "open_ai"',
        "providers.a.dialect",
        "`open_ai` is not a dialect; did you mean openai?",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nadapter = "gemini"\ndialect = "openai"',
        "providers.a.dialect",
        "is for providers that speak OpenAI's format; `gemini` has no dialects",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\ndialect = "azure"',
        "providers.a.api_version",
        "is required with the dialect azure, such as 2024-10-21",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\napi_version = "2024-10-21"',
        "providers.a.api_version",
        "is sent only where the dialect is azure",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\ndialect = "azure"\napi_version = "a b"',
        "providers.a.api_version",
        "must be 1 to 64 letters, digits or any of . _ -",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\ncaches_prompts = true',
        "providers.a.caches_prompts",
        "is for the adapter anthropic; others cache without being asked, or not at all",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nadapter = "anthropic"\n[[endpoints]]\nmodel = "m"\nprovider = "a"',
        "endpoints[1].output_token_count_max",
        "is required, because anthropic wants a limit with every request",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\n[[endpoints]]\nmodel = "m"\nprovider = "a"\nlacks = ["seeds"]',
        "endpoints[1].lacks",
        "`seeds` is not something that a request can ask for; did you mean seed?",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\n[[endpoints]]\nmodel = "m"\nprovider = "a"\nreasoning_control = "x"',
        "endpoints[1].reasoning_control",
        "must be effort or budget",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nmax_tokens_field = "n"',
        "providers.a.max_tokens_field",
        "must be max_tokens or max_completion_tokens",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nconnect_timeout_s = inf',
        "providers.a.connect_timeout_s",
        "must be a number above 0 and at most 3600, not inf",
    ),
    # published scores
    ("[models.alpha]", "models.alpha.benchmark_scores", "is required"),
    (
        "[models.alpha]\nbenchmark_scores = { mmlu_pro = 72.0 }",
        "models.alpha.benchmark_scores.mmlu_pro",
        "must be a number from 0 to 1, not 72.0",
    ),
    (
        '[models.alpha]\nbenchmark_scores = { "mmlu_pro/law" = "high" }',
        'models.alpha.benchmark_scores."mmlu_pro/law"',
        "must be a number, not text",
    ),
    (
        "[models.alpha]\nbenchmark_score = { mmlu_pro = 0.7 }\nbenchmark_scores = {}",
        "models.alpha.benchmark_score",
        "is unknown; did you mean benchmark_scores?",
    ),
    (
        "[models.alpah]\nbenchmark_scores = { mmlu_pro = 0.7 }",
        "models.alpah",
        "is the quality_model of no endpoint; did you mean alpha?",
    ),
    (
        "[models.alpha.benchmark_scores]\n" + "".join(f"b{index} = 0.5\n" for index in range(65)),
        "models.alpha.benchmark_scores",
        "must hold at most 64 scores, not 65",
    ),
    (
        '[providers."q:1"]\nbase_url = "http://a"',
        'providers."q:1"',
        f"is no name of a provider: it must be {PROVIDER_NAME_RULE}",
    ),
    (
        '[providers.lowest-cost]\nbase_url = "http://a"',
        "providers.lowest-cost",
        f"is no name of a provider: it must be {PROVIDER_NAME_RULE}",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nlabels = { region = ["e u"] }',
        "providers.a.labels.region[0]",
        "must be 1 to 63 letters, digits or any of . _ / - with a letter or digit first",
    ),
    (
        '[providers.a]\nbase_url = "http://a"\nlabels = { "a,b" = "c" }',
        'providers.a.labels."a,b"',
        "is no key of a label: it must be 1 to 63 letters, digits or any of . _ / - with a letter or digit first",
    ),
    # endpoints
    ('[[endpoints]]\nprovider = "local"', "endpoints[1].model", "is required"),
    ('[[endpoints]]\nmodel = "beta"', "endpoints[1].provider", "is required"),
    (
        '[[endpoints]]\nmodel = "beta"\nprovider = "locale"',
        "endpoints[1].provider",
        "`locale` is not a declared provider; did you mean local?",
    ),
    (
        '[[endpoints]]\nmodel = "beta"\nprovider = "zzz"',
        "endpoints[1].provider",
        "`zzz` is not a declared provider; [providers.NAME] declares one",
    ),
    (
        '[[endpoints]]\nmodel = "alpha"\nprovider = "local"',
        "endpoints[1]",
        "alpha@local is endpoints[0] already; remove one of them",
    ),
    ('[[endpoints]]\nmodel = "a@b"\nprovider = "local"', "endpoints[1].model", f"must be {NAME_RULE}"),
    ('[[endpoints]]\nmodel = "a->b"\nprovider = "local"', "endpoints[1].model", f"must be {NAME_RULE}"),
    ('[[endpoints]]\nmodel = "router"\nprovider = "local"', "endpoints[1].model", f"must be {NAME_RULE}"),
    (
        f'[[endpoints]]\nmodel = "{"a" * 129}"\nprovider = "local"',
        "endpoints[1].model",
        f"must be {NAME_RULE}",
    ),
    (
        f'{ONE_MORE}upstream_model = "a b"',
        "endpoints[1].upstream_model",
        "must be 1 to 512 printable ASCII characters without blanks",
    ),
    *(
        (
            f"{ONE_MORE}{key} = {value}",
            f"endpoints[1].{key}",
            f"must be a number from 0 to 10000, not {value}",
        )
        for key in ("input_price_usd_per_mtok", "output_price_usd_per_mtok", "cached_input_price_usd_per_mtok")
        for value in ("nan", "inf", "-inf", "-0.01", "10000.5")
    ),
    (
        f"{ONE_MORE}input_price = 1",
        "endpoints[1].input_price",
        "is unknown; did you mean input_price_usd_per_mtok?",
    ),
    (
        f"{ONE_MORE}context_token_count_max = 0",
        "endpoints[1].context_token_count_max",
        "must be a whole number from 1 to 1000000000, not 0",
    ),
    (
        f"{ONE_MORE}context_token_count_max = 10\noutput_token_count_max = 11",
        "endpoints[1].output_token_count_max",
        "must be at most context_token_count_max, which counts input and output",
    ),
    (
        f'{ONE_MORE}capabilities = ["tool"]',
        "endpoints[1].capabilities",
        "`tool` is not a capability; did you mean tools?",
    ),
    (
        f'{ONE_MORE}capabilities = ["zzz"]',
        "endpoints[1].capabilities",
        "`zzz` is not a capability; known are tools, image_input, json_object, json_schema, reasoning",
    ),
    (f"{ONE_MORE}capabilities = [1]", "endpoints[1].capabilities[0]", "must be text, not a number"),
    (f'{ONE_MORE}stream = "yes"', "endpoints[1].stream", "must be true or false, not text"),
    # routers
    (
        '[routers.r]\npolicy = "alphb"',
        "routers.r.policy",
        "`alphb` is neither `router` nor a model of the catalog; did you mean alpha?",
    ),
    (
        '[routers.r]\npolicy = "router@models:alphq"',
        "routers.r.policy",
        "the catalog has no model `alphq`; did you mean alpha?",
    ),
    (
        '[routers.r]\npolicy = "router@skip_providers:zzz"',
        "routers.r.policy",
        "the catalog has no provider `zzz`",
    ),
    (
        '[routers.r]\npolicy = "router@endpoints:alpha@locall"',
        "routers.r.policy",
        "the catalog has no endpoint `alpha@locall`; did you mean alpha@local?",
    ),
    (
        '[routers.r]\ndescribtion = "x"',
        "routers.r.describtion",
        "is unknown; did you mean description?",
    ),
    ("[routers.r]\nexploration_rate = 2", "routers.r.exploration_rate", "must be a number from 0 to 1, not 2"),
    ("[routers.r]\nnear_tie_width = -1", "routers.r.near_tie_width", "must be a number from 0 to 1, not -1"),
    (
        '[routers.r]\nartifact = "absent"',
        "routers.r.artifact",
        "there is no directory absent",
    ),
    (
        "[routers.alpha]",
        "routers.alpha",
        "is the name of a model too, so a router string could mean either: rename it",
    ),
    ('[routers."a b"]', 'routers."a b"', f"is no name of a router: it must be {NAME_RULE}"),
    ("[routers.router]", "routers.router", f"is no name of a router: it must be {NAME_RULE}"),
    # their splits and shadows
    ("[[routers.r.split]]\nshare = 0.1", "routers.r.split[0].router", "is required"),
    ('[[routers.r.split]]\nrouter = "default"', "routers.r.split[0].share", "is required"),
    (
        '[[routers.r.split]]\nrouter = "defualt"\nshare = 0.1',
        "routers.r.split[0].router",
        "there is no router `defualt`; did you mean default?",
    ),
    (
        '[[routers.r.split]]\nrouter = "r"\nshare = 0.1',
        "routers.r.split[0].router",
        "is the router itself; name another one",
    ),
    (
        '[[routers.r.split]]\nrouter = "default"\nshare = 0.1\n[[routers.r.split]]\nrouter = "default"\nshare = 0.2',
        "routers.r.split[1].router",
        "`default` is listed twice; add its shares up",
    ),
    *(
        (
            f'[[routers.r.split]]\nrouter = "default"\nshare = {share}',
            "routers.r.split[0].share",
            f"must be a number above 0 and at most 1, not {share}",
        )
        for share in ("0", "1.5", "nan")
    ),
    (
        """[routers.s]
[[routers.r.split]]
router = "default"
share = 0.7
[[routers.r.split]]
router = "s"
share = 0.4""",
        "routers.r.split",
        "the shares add up to 1.1, which is more than 1",
    ),
    (
        '[[routers.r.split]]\nrouter = "s"\nshare = 0.1\n[[routers.s.split]]\nrouter = "r"\nshare = 0.1',
        "routers.r.split[0].router",
        "`s` has a split itself: name its arms here instead",
    ),
    (
        '[[routers.r.split]]\nrouter = "s"\nshare = 0.1\n[[routers.s.split]]\nrouter = "default"\nshare = 0.1',
        "routers.r.split[0].router",
        "`s` has a split itself: name its arms here instead",
    ),
    (
        '[[routers.r.split]]\nrouter = "default"\nshare = 0.1\nchare = 0.1',
        "routers.r.split[0].chare",
        "is unknown; did you mean share?",
    ),
    ('[routers.r]\nsplit = "default"', "routers.r.split", "must be an array of tables ([[split]]), not text"),
    (
        "".join(f'[routers.a{n}]\n[[routers.r.split]]\nrouter = "a{n}"\nshare = 0.1\n' for n in range(9)),
        "routers.r.split",
        "must hold at most 8 tables, not 9",
    ),
    ('[routers.r]\nshadow = "default"', "routers.r.shadow", "must be an array of texts, not text"),
    ('[routers.r]\nshadow = ["r"]', "routers.r.shadow", "is the router itself; name another one"),
    (
        '[routers.r]\nshadow = ["defualt"]',
        "routers.r.shadow",
        "there is no router `defualt`; did you mean default?",
    ),
    ('[routers.r]\nshadow = ["default", "default"]', "routers.r.shadow[1]", "is listed twice"),
    (
        f"[routers.r]\nshadow = {[f'a{n}' for n in range(5)]}\n" + "".join(f"[routers.a{n}]\n" for n in range(5)),
        "routers.r.shadow",
        "must hold at most 4 routers, not 5",
    ),
    # the file as a whole
    ("[serverr]", "serverr", "is unknown; did you mean server?"),
    ("[[routers]]", "routers", "must be a table, not an array"),
]


@pytest.mark.parametrize(("text", "path", "description"), FAULTS, ids=[f"{path}: {why}" for _, path, why in FAULTS])
def test_each_fault_has_its_path_and_says_what_would_be_right(text: str, path: str, description: str) -> None:
    """Each class of fault is told with the path of its value and what is wanted there, and no secret is quoted."""
    environment = {"A": "a", "B": "b", "UNPRINTABLE": "a\x00b"}
    assert (path, description) in faults_of(f"{SOUND}\n{text}" if "[" in text else f"{text}\n{SOUND}", environment)


def test_a_path_that_cannot_be_looked_up_does_not_exist() -> None:
    """A name longer than the file system allows is told like any other file that is not there."""
    name = "x" * 300
    assert faults_of(f'{SOUND}\n[quality]\nartifact = "{name}"') == [
        ("quality.artifact", f"there is no directory {name}")
    ]


def test_a_fault_shows_an_endless_name_in_part() -> None:
    """A name of the file's own is cut where no name may go on, and an empty one is still seen."""
    long = "x" * 1000
    assert faults_of(f'{long} = 1\n"" = 1\n{SOUND}') == [
        (f"{long[:128]}...", "is unknown"),
        ('""', "is unknown"),
    ]


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("endpoints = 1", "must be an array of tables ([[endpoints]]), not a number"),
        ("[endpoints]", "must be an array of tables ([[endpoints]]), not a table"),
        ("endpoints = [1]", "must be a table, not a number"),
    ],
)
def test_endpoints_are_an_array_of_tables(text: str, description: str) -> None:
    """Endpoints that are written as something else are a fault that shows the right form."""
    assert faults_of(text)[0][1] == description


def test_a_policy_that_cannot_be_read_says_where() -> None:
    """A fault in a router string is told with its position in the text."""
    [(path, description)] = faults_of(f'{SOUND}\n[routers.r]\npolicy = "router@zzz:1"')
    assert path == "routers.r.policy"
    assert "zzz" in description
    assert description.endswith("(at character 7)")


def test_all_faults_are_told_at_once() -> None:
    """One reading lists the faults of every table."""
    text = """
    [server]
    listen = "x"
    [telemetry]
    sample_ratio = 7
    [providers.a]
    [[endpoints]]
    provider = "b"
    [routers.r]
    policy = "nothing"
    """
    assert [path for path, _ in faults_of(text)] == [
        "server.listen",
        "telemetry.sample_ratio",
        "providers.a.base_url",
        "endpoints[0].model",
        "endpoints[0].provider",
        "routers.r.policy",
    ]


def test_the_list_of_faults_has_an_end() -> None:
    """Of very many faults the first hundred are told, and the number of the others."""
    faults = faults_of("\n".join(f"unknown_{n} = 1" for n in range(130)))
    assert len(faults) == 101
    assert faults[-1] == ("...", "and 30 more faults")


def test_the_error_reads_as_a_list() -> None:
    """The text of the error names the file and gives each fault a line."""
    with pytest.raises(ConfigError) as caught:
        parse(f"{SOUND}\n[telemetry]\nsample_ratio = 2\nservice_nam = 'x'")
    assert str(caught.value).splitlines() == [
        "test.toml is not valid:",
        "  telemetry.sample_ratio: must be a number from 0 to 1, not 2",
        "  telemetry.service_nam: is unknown; did you mean service_name?",
    ]


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("a = ", "is no TOML: Invalid value (at end of document)"),
        ("a = 1\na = 2", "is no TOML: Cannot overwrite a value (at end of document)"),
        ("a = " + "[" * 100_000, "nests its values too deeply"),
    ],
)
def test_a_text_that_is_no_toml_is_one_fault(text: str, description: str) -> None:
    """What can't be parsed is told as one fault of the file, however it fails."""
    assert faults_of(text) == [("file", description)]


def test_more_endpoints_than_a_catalog_holds_are_a_fault() -> None:
    """The catalog is bounded, and the fault says by what."""
    endpoints = "\n".join(f'[[endpoints]]\nmodel = "m{n}"\nprovider = "local"' for n in range(4097))
    assert faults_of(LOCAL + endpoints) == [("endpoints", "must hold at most 4096 tables, not 4097")]


def test_more_providers_or_routers_than_the_limit_are_faults() -> None:
    """Providers and routers are bounded likewise."""
    providers = "\n".join(f'[providers.p{n}]\nbase_url = "http://a"' for n in range(257))
    routers = "\n".join(f"[routers.r{n}]" for n in range(257))
    assert ("providers", "must hold at most 256 tables, not 257") in faults_of(providers)
    assert ("routers", "must hold at most 256 tables, not 257") in faults_of(SOUND + routers)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    """A path that leads nowhere is a configuration error, not an OSError."""
    with pytest.raises(ConfigError, match=r"file: can't be read: No such file or directory"):
        load_config(tmp_path / "absent.toml", {})


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    """At most 4 MiB are read."""
    path = tmp_path / "large.toml"
    path.write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(ConfigError, match=r"file: must be at most 4194304 bytes long"):
        load_config(path, {})


def test_a_file_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    """TOML is UTF-8; the fault says which byte is not."""
    path = tmp_path / "latin.toml"
    path.write_bytes(b"a = '\xfc'")
    with pytest.raises(ConfigError, match=r"file: must be UTF-8 text; byte 5 is not"):
        load_config(path, {})


def test_a_fault_in_an_imported_file_names_that_file(tmp_path: Path) -> None:
    """The path of a fault begins with the file that holds it, if that is not the main one."""
    (tmp_path / "prices.toml").write_text('[[endpoints]]\nmodel = "m"\nprovider = "local"\nstream = 1\n[server]\n')
    (tmp_path / "broken.toml").write_text("= 1")
    text = f'{SOUND}\n[catalog]\nimport_files = ["prices.toml", "broken.toml"]'
    assert faults_of(text, directory=tmp_path) == [
        ("catalog.import_files[1]", "broken.toml is no TOML: Invalid statement (at line 1, column 1)"),
        ("prices.toml:endpoints[0].stream", "must be true or false, not a number"),
        ("prices.toml:server", "is unknown"),
    ]


def test_a_base_url_from_the_environment_is_checked_too() -> None:
    """A wrong OPENAI_BASE_URL is a fault of the environment, and isn't quoted."""
    environment = {"OPENAI_BASE_URL": f"https://me:{SECRET}@a.example", "OPENAI_API_KEY": "k"}
    assert faults_of('[catalog]\ninclude = ["well_known"]', environment) == [
        (
            "environment.OPENAI_BASE_URL",
            "must not hold a user name or password: name environment variables in `api_key_env` or `headers_env`",
        )
    ]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
KEYS = st.sampled_from(
    ["model", "provider", "base_url", "labels", "headers", "policy", "listen", "tls", "local", "x y"]
)
TREES = st.recursive(
    SCALARS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=4),
    max_leaves=12,
)
TABLES = ["server", "openai_door", "telemetry", "quality", "catalog", "providers", "endpoints", "routers", "other"]


def toml_value(value: object) -> str:
    """TOML of a value; whatever TOML lacks becomes text."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case list():
            return f"[{', '.join(toml_value(item) for item in value)}]"
        case dict():
            pairs = ", ".join(f"'{key}' = {toml_value(item)}" for key, item in value.items())
            return f"{{{pairs}}}"
        case _:
            return f"'''{''.join(c for c in str(value) if c.isalnum())}'''"


@given(st.dictionaries(st.sampled_from(TABLES), TREES, max_size=4))
def test_whatever_the_file_holds_the_outcome_is_a_config_or_a_list_of_faults(content: dict[str, object]) -> None:
    """No value in any place makes the reader fail in another way than with a ConfigError."""
    text = "\n".join(f"{key} = {toml_value(value)}" for key, value in content.items())
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.violations
