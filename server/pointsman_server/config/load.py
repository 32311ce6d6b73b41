"""From a file and the environment to a `Config`, or to the list of all that is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from pointsman_server.catalog.catalog import Catalog, CatalogEntry
from pointsman_server.catalog.entry_table import (
    ENDPOINT_COUNT_MAX,
    PRICES_DATE_RULE,
    PROVIDER_COUNT_MAX,
    read_benchmark_scores,
    read_entry,
)
from pointsman_server.catalog.toml_table import Faults, Hint, Table, parse_toml, read_text, shortened
from pointsman_server.catalog.well_known import well_known_text
from pointsman_server.config.provider_table import (
    OPENAI_BASE_URL,
    Provider,
    ProviderDeclaration,
    complete_provider,
    read_provider,
)
from pointsman_server.config.router_table import read_artifact, read_routers
from pointsman_server.config.settings import Config, OpenAiDoorSettings, ServerSettings, TelemetrySettings, TlsSettings
from pointsman_server.config.text_rules import (
    LINE_RULE,
    LOOPBACK_ADDRESS,
    TIMEOUT_S_MAX,
    VARIABLE_RULE,
    read_path,
    read_timeout_s,
    read_url,
)
from pointsman_server.decision_log.settings import DecisionLogSettings
from pointsman_server.errors import ConfigError
from pointsman_server.providers.base import Secret
from pointsman_server.providers.traits import ADAPTER_TRAITS, AdapterTraits

FILE_BYTES_MAX = 4 * 1024 * 1024
"""Room for the largest catalog twice over: an endpoint takes about 400 bytes."""
IMPORT_FILE_COUNT_MAX = 16
"""One per source of prices, and then some."""

LOG_FILE_BYTES_MIN = 64 * 1024
"""Of the decision log: a few decisions, with what they share."""
LOG_BYTES_MAX = 1024**4
"""A terabyte is ten million decisions and more."""
LOG_FLUSH_S_MAX = 60.0
"""What waits is held in memory, and lost with the server."""
REPLICA_COUNT_MAX = 1000
"""More is a slip: each of them would be held responsible for all the others."""

WELL_KNOWN = "well_known"
"""Name of the shipped catalog in `catalog.include`."""
DEFAULTS_SOURCE = "the built-in configuration"
DEFAULTS_TEXT = f'[catalog]\ninclude = ["{WELL_KNOWN}"]\n'
"""What holds without a file."""
KEYS_FORBIDDEN = "keys must not stand in this file: name the environment variable with them in `api_keys_env`"

_LISTEN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    """What reading a configuration depends on beside its text."""

    directory: Path
    environment: Mapping[str, str]
    adapters: Mapping[str, AdapterTraits]
    faults: Faults


@dataclass(frozen=True, slots=True)
class _Layer:
    """One source of providers and endpoints. A later layer's win over an earlier one's of the same name, as a whole."""

    table: Table
    well_known: bool = False


def load_config(
    path: Path | None, environment: Mapping[str, str], *, adapters: Mapping[str, AdapterTraits] = ADAPTER_TRAITS
) -> Config:
    """The configuration of a file; without one, every well-known endpoint whose provider's key is in the environment.

    Raises:
        ConfigError: The file can't be read or has faults; every fault is listed.
    """
    if path is None:
        return parse_config(
            DEFAULTS_TEXT, source=DEFAULTS_SOURCE, directory=Path(), environment=environment, adapters=adapters
        )
    text = read_text(path, bytes_max=FILE_BYTES_MAX)
    return parse_config(text, source=str(path), directory=path.parent, environment=environment, adapters=adapters)


def parse_config(
    text: str,
    *,
    source: str,
    directory: Path,
    environment: Mapping[str, str],
    adapters: Mapping[str, AdapterTraits] = ADAPTER_TRAITS,
) -> Config:
    """The configuration of a text.

    Args:
        text: TOML as docs/configuration.md describes it.
        source: What to call it in errors.
        directory: What relative paths in it are relative to.
        environment: Where the variables that it names are looked up.
        adapters: The wire formats that a provider may speak, by name.

    Raises:
        ConfigError: It has faults; every fault is listed.
    """
    faults = Faults()
    context = _Context(directory=directory, environment=environment, adapters=adapters, faults=faults)
    root = Table(parse_toml(text, source), "", faults)
    server = _read_server(root.table("server"), context)
    openai_door = _read_openai_door(root.table("openai_door"), context) if "openai_door" in root else None
    telemetry = _read_telemetry(root.table("telemetry"))
    decision_log = _read_decision_log(root.table("decision_log"), directory) if "decision_log" in root else None
    quality_artifact = _read_quality(root.table("quality"), directory)
    layers = _read_layers(root, context)
    declarations = _read_providers(layers, context)
    entries = _read_entries(layers, declarations, context)
    routers = read_routers(root, [entry.endpoint for entry in entries], directory)
    for layer in layers:
        layer.table.finish()
    providers = {name: complete_provider(declared, environment, faults) for name, declared in declarations.items()}
    faults.raise_if_any(source)
    catalog = Catalog.of(entry for entry in entries if providers[entry.endpoint.provider].settings is not None)
    if not catalog.entries:
        faults.add("endpoints", _no_endpoint_advice(entries, providers))
        faults.raise_if_any(source)
    usable = {
        name: provider.settings
        for name, provider in providers.items()
        if provider.settings is not None and name in catalog.providers
    }
    return Config(
        server=server,
        openai_door=openai_door,
        telemetry=telemetry,
        decision_log=decision_log,
        quality_artifact=quality_artifact,
        catalog=catalog,
        providers=MappingProxyType(usable),
        adapters=MappingProxyType({name: declarations[name].adapter for name in usable}),
        probes=MappingProxyType({name: probes for name in usable if (probes := declarations[name].probes) is not None}),
        routers=MappingProxyType(routers),
        notices=_notices(server, openai_door, telemetry, providers.values(), entries),
    )


def _read_quality(table: Table, directory: Path) -> Path | None:
    artifact = read_artifact(table, directory)
    table.finish()
    return artifact


def _notices(
    server: ServerSettings,
    openai_door: OpenAiDoorSettings | None,
    telemetry: TelemetrySettings,
    providers: Iterable[Provider],
    entries: Iterable[CatalogEntry],
) -> tuple[str, ...]:
    return (
        *_server_notices(server, openai_door),
        *_telemetry_notices(telemetry),
        *_provider_notices(providers, entries),
    )


def _read_server(table: Table, context: _Context) -> ServerSettings:
    default = ServerSettings()
    settings = ServerSettings(
        listen=_read_listen(table, default.listen),
        request_count_max=table.whole_number(
            "request_count_max", default.request_count_max, minimum=1, maximum=100_000
        ),
        message_bytes_max=table.whole_number(
            "message_bytes_max", default.message_bytes_max, minimum=1024, maximum=256 * 1024 * 1024
        ),
        shutdown_grace_s=table.number("shutdown_grace_s", default.shutdown_grace_s, minimum=0.0, maximum=TIMEOUT_S_MAX),
        decision_memory_count=table.whole_number(
            "decision_memory_count", default.decision_memory_count, minimum=1, maximum=10_000_000
        ),
        attempt_count_max=table.whole_number("attempt_count_max", default.attempt_count_max, minimum=1, maximum=10),
        ttft_timeout_s=read_timeout_s(table, "ttft_timeout_s", default.ttft_timeout_s),
        replica_count=table.whole_number("replica_count", default.replica_count, minimum=1, maximum=REPLICA_COUNT_MAX),
        runtime_state_file=_read_runtime_state_file(table, context.directory),
        runtime_state_interval_s=table.number(
            "runtime_state_interval_s", default.runtime_state_interval_s, minimum=1.0, maximum=TIMEOUT_S_MAX
        ),
        api_keys=_read_api_keys(table, context.environment),
        tls=_read_tls(table.table("tls"), context.directory) if "tls" in table else None,
    )
    table.forbid("api_keys", KEYS_FORBIDDEN)
    table.finish()
    return settings


def _read_openai_door(table: Table, context: _Context) -> OpenAiDoorSettings:
    default = OpenAiDoorSettings()
    settings = OpenAiDoorSettings(
        listen=_read_listen(table, default.listen),
        body_bytes_max=table.whole_number(
            "body_bytes_max", default.body_bytes_max, minimum=1024, maximum=256 * 1024 * 1024
        ),
        header_bytes_max=table.whole_number(
            "header_bytes_max", default.header_bytes_max, minimum=1024, maximum=256 * 1024
        ),
        connection_count_max=table.whole_number(
            "connection_count_max", default.connection_count_max, minimum=1, maximum=100_000
        ),
        api_keys=_read_api_keys(table, context.environment),
    )
    table.forbid("api_keys", KEYS_FORBIDDEN)
    table.finish()
    return settings


def _read_listen(table: Table, default: str) -> str:
    listen = table.text("listen") or default
    address = _LISTEN.fullmatch(listen)
    if address is None or int(address[2]) > 65535:
        table.fault("listen", f"must be host:port with a port from 0 to 65535, such as {default} or [::1]:50061")
    return listen


def _read_runtime_state_file(table: Table, directory: Path) -> Path | None:
    """A file that need not exist yet, in a folder that must."""
    text = table.text("runtime_state_file", LINE_RULE)
    if text is None:
        return None
    path = directory / text
    if not path.parent.is_dir():
        table.fault("runtime_state_file", f"there is no folder {path.parent}")
        return None
    if path.is_dir():
        table.fault("runtime_state_file", f"must be a file; {path} is a folder")
        return None
    return path


def _read_api_keys(table: Table, environment: Mapping[str, str]) -> tuple[Secret, ...]:
    variable = table.text("api_keys_env", VARIABLE_RULE)
    if variable is None:
        return ()
    keys = [key.strip() for key in environment.get(variable, "").split(",") if key.strip()]
    if not keys:
        table.fault("api_keys_env", f"{variable} is not set or empty, so no client could be admitted")
    try:
        return tuple(Secret(key) for key in keys)
    except ValueError:
        table.fault("api_keys_env", f"{variable} must hold keys of printable ASCII, separated by commas")
        return ()


def _read_tls(table: Table, directory: Path) -> TlsSettings | None:
    table.require("certificate_file", "key_file")
    certificate_file = read_path(table, "certificate_file", directory, kind="file")
    key_file = read_path(table, "key_file", directory, kind="file")
    client_ca_file = read_path(table, "client_ca_file", directory, kind="file")
    table.finish()
    if certificate_file is None or key_file is None:
        return None
    return TlsSettings(certificate_file=certificate_file, key_file=key_file, client_ca_file=client_ca_file)


def _read_telemetry(table: Table) -> TelemetrySettings:
    default = TelemetrySettings()
    settings = TelemetrySettings(
        otlp_endpoint=read_url(table, "otlp_endpoint"),
        otlp_metrics=table.flag("otlp_metrics", default.otlp_metrics),
        sample_ratio=table.number("sample_ratio", default.sample_ratio, minimum=0.0, maximum=1.0),
        service_name=table.text("service_name", LINE_RULE) or default.service_name,
        prometheus_listen=_read_prometheus_listen(table),
    )
    table.finish()
    return settings


def _read_decision_log(table: Table, directory: Path) -> DecisionLogSettings | None:
    table.require("directory")
    default = DecisionLogSettings(directory=directory)
    file_bytes_max = table.whole_number(
        "file_bytes_max", default.file_bytes_max, minimum=LOG_FILE_BYTES_MIN, maximum=LOG_BYTES_MAX
    )
    total_bytes_max = table.whole_number(
        "total_bytes_max", default.total_bytes_max, minimum=LOG_FILE_BYTES_MIN, maximum=LOG_BYTES_MAX
    )
    if total_bytes_max < 2 * file_bytes_max:
        table.fault("total_bytes_max", f"must have room for two files, {2 * file_bytes_max}, not {total_bytes_max}")
    settings = DecisionLogSettings(
        directory=_read_log_directory(table, directory) or directory,
        file_bytes_max=file_bytes_max,
        total_bytes_max=total_bytes_max,
        flush_interval_s=table.number(
            "flush_interval_s", default.flush_interval_s, minimum=0.0, maximum=LOG_FLUSH_S_MAX, above_minimum=True
        ),
        keep_prompts=table.flag("keep_prompts", default.keep_prompts),
    )
    table.finish()
    return settings


def _read_log_directory(table: Table, directory: Path) -> Path | None:
    """A folder that need not exist yet, in one that must."""
    text = table.text("directory", LINE_RULE)
    if text is None:
        return None
    path = directory / text
    if not path.parent.is_dir():
        table.fault("directory", f"there is no folder {path.parent}")
    elif path.exists() and not path.is_dir():
        table.fault("directory", f"must be a folder; {path} is a file")
    return path


def _read_prometheus_listen(table: Table) -> str | None:
    """An address; without a host it is one of this machine alone."""
    text = table.text("prometheus_listen")
    if text is None:
        return None
    listen = f"127.0.0.1{text}" if text.startswith(":") else text
    address = _LISTEN.fullmatch(listen)
    if address is None or int(address[2]) > 65535:
        table.fault("prometheus_listen", "must be host:port or :port, such as 127.0.0.1:9464 or :9464")
        return None
    return listen


def _read_layers(root: Table, context: _Context) -> tuple[_Layer, ...]:
    """The shipped catalog if it is included, the imported files in their order, and at last the file itself."""
    table = root.table("catalog")
    layers: list[_Layer] = []
    for name in table.texts("include"):
        if name != WELL_KNOWN:
            table.fault("include", f"`{shortened(name)}` is not shipped, only `{WELL_KNOWN}` is")
            continue
        values = parse_toml(well_known_text(), WELL_KNOWN)
        layers.append(_Layer(Table(values, f"{WELL_KNOWN}:", context.faults), well_known=True))
    names = table.texts("import_files", LINE_RULE)
    if len(names) > IMPORT_FILE_COUNT_MAX:
        table.fault("import_files", f"must hold at most {IMPORT_FILE_COUNT_MAX} files, not {len(names)}")
    for index, name in enumerate(names[:IMPORT_FILE_COUNT_MAX]):
        try:
            values = parse_toml(read_text(context.directory / name, bytes_max=FILE_BYTES_MAX), name)
        except ConfigError as error:
            reason = error.violations[0].description
            context.faults.add(f"catalog.import_files[{index}]", f"{shortened(name)} {reason}")
        else:
            layers.append(_Layer(Table(values, f"{name}:", context.faults)))
    table.finish()
    return (*layers, _Layer(root))


def _read_providers(layers: Iterable[_Layer], context: _Context) -> dict[str, ProviderDeclaration]:
    declarations: dict[str, ProviderDeclaration] = {}
    for layer in layers:
        for name, table in layer.table.tables("providers", count_max=PROVIDER_COUNT_MAX):
            declarations[name] = read_provider(name, table, adapters=context.adapters, well_known=layer.well_known)
    return declarations


def _read_entries(
    layers: Iterable[_Layer], declarations: Mapping[str, ProviderDeclaration], context: _Context
) -> tuple[CatalogEntry, ...]:
    faults = context.faults
    labels = {name: declaration.labels for name, declaration in declarations.items()}
    entries: dict[str, CatalogEntry] = {}
    for layer in layers:
        layer.table.text("prices_as_of", PRICES_DATE_RULE)
        paths: dict[str, str] = {}
        for table in layer.table.array_of_tables("endpoints", count_max=ENDPOINT_COUNT_MAX):
            entry = read_entry(table, labels)
            if entry is None:
                continue
            if (declared := declarations.get(entry.endpoint.provider)) is not None:
                entry = _spoken_to(entry, declared, table, context.adapters)
            name = entry.endpoint.name
            if name in paths:
                faults.add(table.path, f"{name} is {paths[name]} already; remove one of them")
            paths.setdefault(name, table.path)
            entries[name] = entry
    if len(entries) > ENDPOINT_COUNT_MAX:
        faults.add("endpoints", f"must be at most {ENDPOINT_COUNT_MAX} in all files together, not {len(entries)}")
    scores = _read_scores(layers, frozenset(entry.quality_model for entry in entries.values()))
    return tuple(replace(entry, benchmark_scores=scores.get(entry.quality_model, ())) for entry in entries.values())


def _spoken_to(
    entry: CatalogEntry, declared: ProviderDeclaration, table: Table, adapters: Mapping[str, AdapterTraits]
) -> CatalogEntry:
    """The entry with what its provider's wire format can't say among what it lacks."""
    traits = adapters.get(declared.adapter, AdapterTraits())
    if traits.wants_output_limit and entry.endpoint.output_token_count_max is None:
        table.fault(
            "output_token_count_max", f"is required, because {declared.adapter} wants a limit with every request"
        )
    lacks = entry.endpoint.lacks | traits.lacks | declared.dialect.lacks
    return replace(entry, endpoint=replace(entry.endpoint, lacks=lacks))


def _read_scores(layers: Iterable[_Layer], quality_models: frozenset[str]) -> dict[str, tuple[tuple[str, float], ...]]:
    """The published scores of each quality model that has any."""
    scores: dict[str, tuple[tuple[str, float], ...]] = {}
    for layer in layers:
        for name, table in layer.table.tables("models", count_max=ENDPOINT_COUNT_MAX):
            if name not in quality_models and not layer.well_known:
                table.fault(None, "is the quality_model of no endpoint", Hint(name, quality_models))
            scores[name] = read_benchmark_scores(table)
    return scores


def _no_endpoint_advice(entries: Iterable[CatalogEntry], providers: Mapping[str, Provider]) -> str:
    names = sorted({entry.endpoint.provider for entry in entries})
    if not names:
        return f'there is none: add [[endpoints]], or include = ["{WELL_KNOWN}"] to [catalog]'
    needs = ", ".join(f"{' and '.join(providers[name].missing_variables)} (for {name})" for name in names)
    return f"none can be called, because no key is in the environment: set at least one of {needs}"


def _server_notices(server: ServerSettings, door: OpenAiDoorSettings | None) -> tuple[str, ...]:
    """Whom a door lets in that anyone can reach."""
    certified = server.tls is not None and server.tls.client_ca_file is not None
    doors = [("server", server.listen, server.api_keys)]
    if door is not None:
        doors.append(("openai_door", door.listen, door.api_keys or server.api_keys))
    return tuple(
        f"{name}.listen: whoever reaches {listen} can spend your credit with the providers;"
        f" {name}.api_keys_env or server.tls.client_ca_file would ask who it is"
        for name, listen, api_keys in doors
        if not (api_keys or certified or LOOPBACK_ADDRESS.fullmatch(listen))
    )


def _telemetry_notices(telemetry: TelemetrySettings) -> tuple[str, ...]:
    listen = telemetry.prometheus_listen
    if listen is None or LOOPBACK_ADDRESS.fullmatch(listen):
        return ()
    return (f"telemetry.prometheus_listen: whoever reaches {listen} can read what is called, how often, and its cost",)


def _provider_notices(providers: Iterable[Provider], entries: Iterable[CatalogEntry]) -> tuple[str, ...]:
    """What is left out, and what is not as it is written."""
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.endpoint.provider] = counts.get(entry.endpoint.provider, 0) + 1
    notices: list[str] = []
    for provider in providers:
        name = provider.declaration.name
        if name not in counts:
            if not provider.declaration.well_known:
                notices.append(f"provider {name}: it has no endpoints")
        elif provider.missing_variables:
            variables = " and ".join(provider.missing_variables)
            notices.append(f"provider {name}: without {variables} its {counts[name]} endpoints are left out")
        elif provider.moved:
            notices.append(f"provider {name}: {OPENAI_BASE_URL} is called; prices and limits are still OpenAI's own")
    return tuple(notices)
