"""The composition root: puts the parts together, and is the only reader of clock, chance and environment."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pointsman_server.artifacts import HeldArtifact, renewed_artifacts
from pointsman_server.config.load import load_config
from pointsman_server.config.settings import Config, OpenAiDoorSettings, RouterSettings, ServerSettings
from pointsman_server.decision.resolve import (
    DEFAULT_ROUTER_NAME,
    KnownNames,
    NamedRouter,
    effective_router_string,
    resolve,
)
from pointsman_server.decision.router_string import RouterAlternative
from pointsman_server.decision_log.keeper import DecisionLog
from pointsman_server.decision_log.settings import DecisionLogSettings
from pointsman_server.edge.interceptors import Guard
from pointsman_server.edge.service import SERVICE_NAME, RouterServicer
from pointsman_server.errors import ArtifactError, ConfigError, FieldViolation
from pointsman_server.execution.probing import ProbeSchedule
from pointsman_server.memory import DecisionMemory
from pointsman_server.prober import Prober
from pointsman_server.providers.base import ChatProvider
from pointsman_server.providers.http_client import default_tls
from pointsman_server.providers.registry import create_provider
from pointsman_server.providers.simulated import SimulatedProviders
from pointsman_server.providers.weather import demo_weather
from pointsman_server.published import check_benchmarks, with_catalog_scores
from pointsman_server.quality.artifact import builtin_artifact_path
from pointsman_server.quality.model import QualityModel
from pointsman_server.router import Router
from pointsman_server.runtime.summary import RuntimeStateError
from pointsman_server.runtime.tracker import RuntimeTracker
from pointsman_server.runtime_state import read_state, write_state
from pointsman_server.simulation import simulated_config
from pointsman_server.telemetry.loop_reading import read_in_loop
from pointsman_server.telemetry.metrics import ServerState
from pointsman_server.telemetry.scrape import ScrapeServer
from pointsman_server.telemetry.setup import Telemetry, TelemetrySettings, configure_telemetry
from pointsman_server.watch import Watch
from pointsman_server.world import ServedRouter, World

if TYPE_CHECKING:
    from pointsman_server.openai_door.listener import Listener

logger = logging.getLogger("pointsman")

MESSAGE_BYTES_SLACK = 2
"""gRPC itself refuses messages only above this multiple of our limit, so that ours can say what the limit is."""
RESPONSE_BYTES_MAX = 64 * 1024 * 1024
"""A decision over the largest catalog has about 4 MiB."""
PENDING_REQUEST_COUNT_MAX = 20_000
"""Requests that gRPC may hold before our own admission sees them; its default ends bursts in CANCELLED."""
PENDING_REQUEST_S_MAX = 600
"""How long gRPC may hold them: after its default of 30 s a burst that takes longer to be taken in ends in CANCELLED. Whoever
has no patience has a deadline."""
KEEPALIVE_TIME_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 10_000
"""A client that vanished without a word is noticed within 40 s."""
CLIENT_PING_INTERVAL_MIN_MS = 5_000
"""Clients may ping this often; gRPC's default of five minutes ends the connections of careful ones."""
COLLECTOR_THRESHOLDS = (10_000, 20, 100)
"""New objects before a search for cycles among them, and searches before the next older generation is searched. gRPC leaves
five objects in a cycle with each call, so that this is every thousand calls: half a millisecond, and a megabyte that waits."""
PROVIDER_RETIREMENT_S = 900.0
"""A provider that a reload replaced keeps its connections until its last answers must have ended."""
SIMULATION_SEED = 7
PROBE_LOOK_INTERVAL_S = 1.0
"""How often it is looked for an endpoint to probe; probes themselves are minutes apart."""
PROBE_COUNT_MAX = 3
"""Probes under way at one time: one that hangs holds up nobody else's."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line says of `serve`."""

    config_path: Path | None = None
    """None takes the embedded defaults: the well-known endpoints whose keys are in the environment."""
    listen: str | None = None
    """Overrides the configuration's address."""
    openai_listen: str | None = None
    """Opens the OpenAI-compatible door there, whatever the configuration says of its address."""
    simulate: bool = False
    """Serve simulated providers on loopback; no configuration is read."""


@dataclass(frozen=True, slots=True)
class Chance:
    """Clock and chance, as one may want them fixed in a test."""

    clock_s: Callable[[], float] = time.monotonic
    unix_s: Callable[[], float] = time.time
    random: random.Random = field(default_factory=random.SystemRandom)

    def decision_id(self) -> str:
        """A new id: 32 hexadecimal digits that sort by time, as UUIDv7 (RFC 9562) does."""
        return f"{int(self.unix_s() * 1000):012x}{self.random.getrandbits(80):020x}"

    def seed(self) -> int:
        """A new seed, within the range of int64."""
        return self.random.getrandbits(63)


class Application:
    """A running server. `async with` starts and drains it."""

    def __init__(self, config: Config, *, chance: Chance | None = None, telemetry: Telemetry | None = None) -> None:
        self._chance = chance or Chance()
        self._tls = default_tls()
        self._config = config
        self._started_with = _lasting(config)
        self._artifacts = renewed_artifacts(artifact_paths(config), {})
        _check_scores(config, self._artifacts)
        self._reloading = asyncio.Lock()
        self._telemetry = telemetry or configure_telemetry(_telemetry_settings(config))
        self._saving: asyncio.Task[None] | None = None
        self._logging: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        self._retirements: set[asyncio.Task[None]] = set()
        self._providers: dict[str, ChatProvider] = {}
        for path in self._artifacts:
            self._telemetry.metrics.artifact_read(str(path), refused=False)
        self._log = None if config.decision_log is None else self._opened_log(config.decision_log)
        self.router = Router(
            self._world(config),
            tracker=self._restored_tracker(config),
            memory=DecisionMemory(config.server.decision_memory_count),
            metrics=self._telemetry.metrics,
            clock_s=self._chance.clock_s,
            sleep=asyncio.sleep,
            new_decision_id=self._chance.decision_id,
            new_seed=self._chance.seed,
            log=self._log,
        )
        self._servicer = RouterServicer(
            self.router, config.server, clock_s=self._chance.clock_s, unix_s=self._chance.unix_s
        )
        self._guard = Guard(
            tracing=self._telemetry.tracing,
            metrics=self._telemetry.metrics,
            clock_s=self._chance.clock_s,
            api_keys=config.server.api_keys,
            request_count_max=config.server.request_count_max,
            message_bytes_max=config.server.message_bytes_max,
        )
        self._prober = Prober(
            ProbeSchedule(self._chance.random.random),
            tracker=self.router.tracker,
            metrics=self._telemetry.metrics,
            tracing=self._telemetry.tracing,
            traffic=self.router.traffic,
            clock_s=self._chance.clock_s,
        )
        self._health = health.aio.HealthServicer()
        self._openai_door: Listener | None = None
        self.port = 0
        """The TCP port it listens on, once started."""
        self.openai_port = 0
        """The TCP port of the OpenAI-compatible door, once started; 0 when there is none."""
        self.metrics_port = 0
        """The TCP port on which Prometheus finds the metrics, once started; 0 where it finds none."""
        self._scrapes = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings = self._config.server
        self._server = grpc.aio.server(options=server_options(settings))
        self._guard.register(self._servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.port = _bind(self._server, settings)
        if self._config.openai_door is not None:
            await self._open_openai_door(self._config.openai_door)
        await self._open_metrics()
        await self._server.start()
        if settings.runtime_state_file is not None:
            self._saving = asyncio.create_task(
                self._save_regularly(settings.runtime_state_file, settings.runtime_state_interval_s)
            )
        if self._log is not None:
            self._logging = asyncio.create_task(self._log.run(), name="decision log")
            self._logging.add_done_callback(_tell_bug)
        self._probing = asyncio.create_task(self._probe(), name="probes")
        self._probing.add_done_callback(_tell_bug)
        for name in ("", SERVICE_NAME):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._health.enter_graceful_shutdown()
        self._servicer.stop_watching()
        self._probing.cancel()
        grace_s = self._config.server.shutdown_grace_s
        if self._openai_door is not None:
            self._openai_door.stop_accepting()
        stopping = asyncio.create_task(self._server.stop(grace_s))
        # From its first step on no call is accepted any more.
        await asyncio.sleep(0)
        if self._guard.in_flight_count:
            logger.info("stopping: %d calls under way have %g s to end", self._guard.in_flight_count, grace_s)
        # Streams of the health service never end by themselves; only the calls of our own are waited for.
        idle = asyncio.create_task(self._guard.idle.wait())
        await asyncio.wait({idle}, timeout=grace_s)
        idle.cancel()
        if self._openai_door is not None:
            await self._openai_door.aclose()
        await self._server.stop(None)
        await stopping
        retirements = tuple(self._retirements)
        for task in retirements:
            task.cancel()
        await asyncio.gather(self._probing, *retirements, return_exceptions=True)
        for provider in self._providers.values():
            await provider.aclose()
        self._stopped.set()
        if self._saving is not None:
            await self._saving
        if self._log is not None and self._logging is not None:
            self._log.close()
            await asyncio.gather(self._logging, return_exceptions=True)
        await self._scrapes.aclose()
        await asyncio.to_thread(self._telemetry.shutdown)

    async def _open_openai_door(self, settings: OpenAiDoorSettings) -> None:
        # Its HTTP server takes a tenth of a second to load, which nobody should wait for who has no such door.
        from pointsman_server.openai_door.door import Door  # noqa: PLC0415
        from pointsman_server.openai_door.listener import Listener  # noqa: PLC0415

        door = Door(
            self.router,
            self._guard,
            settings,
            self._config.server,
            clock_s=self._chance.clock_s,
            unix_s=self._chance.unix_s,
        )
        self._openai_door = Listener(door, settings, self._config.server.tls)
        self.openai_port = await self._openai_door.start()

    async def _open_metrics(self) -> None:
        """Lets metrics be read, and what the server is doing with them."""
        loop = asyncio.get_running_loop()
        self._telemetry.metrics.watch(lambda: read_in_loop(loop, self._state))
        listen = self._config.telemetry.prometheus_listen
        if listen is None:
            return
        host, _, port = listen.rpartition(":")
        scrapes = ScrapeServer(host.strip("[]"), int(port), self._telemetry.collect)
        try:
            await self._scrapes.enter_async_context(scrapes)
        except OSError:
            raise _cannot_listen("telemetry.prometheus_listen", listen) from None
        self.metrics_port = scrapes.port
        logger.info("metrics are on http://%s:%d/metrics", host, self.metrics_port)

    def _state(self) -> ServerState:
        return ServerState(
            request_count=self._guard.in_flight_count,
            endpoint_names=tuple(self.router.world.catalog.by_name),
            snapshot=self.router.tracker.snapshot(self._chance.clock_s()),
        )

    def _opened_log(self, settings: DecisionLogSettings) -> DecisionLog:
        """The decision log, in a directory that can be written to.

        Raises:
            ConfigError: it can't be.
        """
        try:
            return DecisionLog(settings, unix_s=self._chance.unix_s, on_drop=self._telemetry.metrics.log_dropped)
        except OSError as error:
            description = f"can't write to {settings.directory}: {error.strerror}"
            raise ConfigError("the configuration", (FieldViolation("decision_log.directory", description),)) from None

    def _restored_tracker(self, config: Config) -> RuntimeTracker:
        """The runtime aggregator, with what was saved of it."""
        now_s = self._chance.clock_s()
        self._unix_offset_s = self._chance.unix_s() - now_s
        replica_count, path = config.server.replica_count, config.server.runtime_state_file
        tracker = RuntimeTracker(unix_offset_s=self._unix_offset_s, replica_count=replica_count)
        try:
            saved = None if path is None else read_state(path)
        except RuntimeStateError as error:
            logger.warning("runtime state %s refused, latencies are learned afresh: %s", path, error)
            saved = None
        if saved is not None:
            tracker.restore(saved, now_s=now_s, unix_offset_s=self._unix_offset_s)
            tracker.retain(frozenset(config.catalog.by_name))
            logger.info("runtime state of %d endpoints restored from %s", len(saved.endpoints), path)
        return tracker

    async def _save_regularly(self, path: Path, interval_s: float) -> None:
        """Saves what is known of latencies every so often, and at the end. If that fails, it is told and tried again."""
        while not self._stopped.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), interval_s)
            summary = self.router.tracker.summary(unix_offset_s=self._unix_offset_s)
            try:
                await asyncio.to_thread(write_state, path, summary)
            except RuntimeStateError as error:
                logger.warning("runtime state %s not saved: %s", path, error)

    async def probe(self) -> None:
        """Makes the probe that is due now, if there is one."""
        await self._prober.look(self.router.world, self._config.probes)

    async def _probe(self) -> None:
        """Probes until it is cancelled."""
        async with asyncio.TaskGroup() as probing:
            for _ in range(PROBE_COUNT_MAX):
                probing.create_task(self._probe_one_by_one(), name="probes")

    async def _probe_one_by_one(self) -> None:
        while True:
            await asyncio.sleep(PROBE_LOOK_INTERVAL_S)
            await self.probe()

    async def reload(self, config: Config) -> None:
        """Serves further requests by a new configuration, and by the quality artifacts as they are now; requests under
        way end by the old ones. An artifact that can't be used is refused, and its old model stays.

        What the server was started with (address, limits, keys, TLS, telemetry) takes a restart.

        Raises:
            ArtifactError: a directory that had no artifact in force holds none that can be used; all stays as it was.
            ConfigError: a published score is of a benchmark that no artifact knows; likewise.
        """
        async with self._reloading:
            artifacts = await asyncio.to_thread(renewed_artifacts, artifact_paths(config), self._artifacts)
            _check_scores(config, artifacts)
            self._tell_renewed(artifacts)
            self._artifacts = artifacts
            self.router.world = self._world(config)
            self.router.tracker.retain(frozenset(config.catalog.by_name))
            self.router.prompt_caches.retain(frozenset(config.catalog.by_name))
        if _lasting(config) != self._started_with:
            tables = "[server], [openai_door], [telemetry] or [decision_log]"
            logger.warning("%s have changed; they take effect at the next start", tables)

    def _tell_renewed(self, artifacts: Mapping[Path, HeldArtifact]) -> None:
        """Logs and counts what has become of each artifact since the last time."""
        for path, now in artifacts.items():
            before = self._artifacts.get(path)
            if now is before:
                continue
            self._telemetry.metrics.artifact_read(str(path), refused=bool(now.refusal))
            if now.refusal:
                logger.warning("artifact %s refused, %s stays in force: %s", path, now.name, now.refusal)
            else:
                logger.info("artifact %s: %s is in force%s", path, now.name, f", after {before.name}" if before else "")

    def _world(self, config: Config) -> World:
        return World.of(
            config.catalog,
            served_routers(config, self._artifacts),
            providers=self._renewed_providers(config),
            server_addresses={
                name: urlsplit(settings.base_url).hostname or "" for name, settings in config.providers.items()
            },
        )

    def _renewed_providers(self, config: Config) -> dict[str, ChatProvider]:
        """The providers of `config`; those whose settings are unchanged keep their connections."""
        renewed: dict[str, ChatProvider] = {}
        for name, settings in config.providers.items():
            unchanged = self._config.providers.get(name) == settings
            if unchanged and name in self._providers:
                renewed[name] = self._providers[name]
            else:
                renewed[name] = create_provider(
                    config.adapters[name], settings, unix_s=self._chance.unix_s, tls=self._tls
                )
        for name, provider in self._providers.items():
            if renewed.get(name) is not provider:
                task = asyncio.create_task(_retire(provider))
                self._retirements.add(task)
                task.add_done_callback(self._retirements.discard)
        self._providers = renewed
        self._config = config
        return renewed


def served_routers(config: Config, artifacts: Mapping[Path, HeldArtifact]) -> dict[str, ServedRouter]:
    """The routers of a configuration by name; `artifacts` holds each of `artifact_paths`."""
    scored: dict[Path, QualityModel] = {}
    routers = {}
    for name, settings in config.routers.items():
        path = _artifact_path(settings, config)
        held = artifacts[path]
        named = _named_router(settings, config)
        model = scored[path] = scored.get(path) or with_catalog_scores(held.model, config.catalog)
        routers[name] = ServedRouter(
            router=named,
            version=_hash(config.catalog.version, held.digest, settings.version),
            quality=model,
            quality_artifact=held.name,
            refused_update=held.refusal,
            text=str(effective_router_string(named.alternatives)),
        )
    return routers


def _lasting(config: Config) -> tuple[object, ...]:
    """What of a configuration a server keeps to its end."""
    return config.server, config.openai_door, config.telemetry, config.decision_log


def artifact_paths(config: Config) -> tuple[Path, ...]:
    """The directory of every quality artifact that the routers predict by."""
    return tuple(dict.fromkeys(_artifact_path(settings, config) for settings in config.routers.values()))


def _artifact_path(settings: RouterSettings, config: Config) -> Path:
    return settings.artifact or config.quality_artifact or builtin_artifact_path()


def _check_scores(config: Config, artifacts: Mapping[Path, HeldArtifact]) -> None:
    """Raises ConfigError for a published score that no artifact can make use of."""
    check_benchmarks(config.catalog, {name for held in artifacts.values() for name in held.model.joining.benchmarks})


def _named_router(settings: RouterSettings, config: Config) -> NamedRouter:
    """A configured router, its text resolved against the built-in default and the catalog's models."""
    base = {DEFAULT_ROUTER_NAME: NamedRouter(DEFAULT_ROUTER_NAME)}
    known = KnownNames.of(config.catalog.endpoints)
    resolved = resolve(settings.policy, RouterAlternative(""), routers=base, known=known)
    return NamedRouter(
        settings.name,
        resolved.alternatives,
        settings.exploration,
        settings.description,
        split=settings.split,
        shadow_names=settings.shadows,
    )


def _hash(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:12]


def _tell_bug(task: asyncio.Task[None]) -> None:
    """Logs how a task ended that never should. Not the exception's text: it may quote anything."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("the task %s has ended by a bug: type=%s\n%s", task.get_name(), type(error).__name__, frames)


async def _retire(provider: ChatProvider) -> None:
    try:
        await asyncio.sleep(PROVIDER_RETIREMENT_S)
    finally:
        await provider.aclose()


def server_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """The options of the gRPC server; the overhead benchmark gives a bare one the same."""
    return [
        ("grpc.max_receive_message_length", settings.message_bytes_max * MESSAGE_BYTES_SLACK),
        ("grpc.max_send_message_length", RESPONSE_BYTES_MAX),
        ("grpc.server.max_pending_requests", PENDING_REQUEST_COUNT_MAX),
        ("grpc.server.max_pending_requests_hard_limit", PENDING_REQUEST_COUNT_MAX),
        ("grpc.server_max_unrequested_time_in_server", PENDING_REQUEST_S_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", CLIENT_PING_INTERVAL_MIN_MS),
        ("grpc.so_reuseport", 0),  # Two servers that silently share a port are a mistake, not a feature.
    ]


def _bind(server: grpc.aio.Server, settings: ServerSettings) -> int:
    """Opens the port that the settings name, and returns its number."""
    credentials = _credentials(settings)
    try:
        if credentials is None:
            return server.add_insecure_port(settings.listen)
        return server.add_secure_port(settings.listen, credentials)
    except RuntimeError:
        raise _cannot_listen("server.listen", settings.listen) from None


def _telemetry_settings(config: Config) -> TelemetrySettings:
    return TelemetrySettings(
        otlp_endpoint=config.telemetry.otlp_endpoint,
        sends_metrics=config.telemetry.otlp_metrics,
        sample_ratio=config.telemetry.sample_ratio,
        service_name=config.telemetry.service_name,
        service_version=_own_version(),
        is_scraped=config.telemetry.prometheus_listen is not None,
    )


def _own_version() -> str:
    """Of the installed distribution; empty where it runs from its sources."""
    try:
        return version("pointsman")
    except PackageNotFoundError:
        return ""


def _cannot_listen(field: str, address: str) -> ConfigError:
    description = f"can't listen on {address}: the port is taken, or the address is not of this machine"
    return ConfigError("the configuration", (FieldViolation(field, description),))


def _credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    tls = settings.tls
    if tls is None:
        return None
    client_ca = None if tls.client_ca_file is None else tls.client_ca_file.read_bytes()
    return grpc.ssl_server_credentials(
        [(tls.key_file.read_bytes(), tls.certificate_file.read_bytes())],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


def run(options: ServeOptions) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        ConfigError, ArtifactError: it can't start as configured.
    """
    uvloop.run(serve(options))


def settle_memory() -> None:
    """Takes what was loaded at the start out of the garbage collector's sight, and has it look less often.

    What a request makes is freed by its reference counts. By default Python would search for cycles every 700 objects,
    which is a third of one decision: 5 % of its time (make bench-overhead).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


async def serve(options: ServeOptions, environment: Mapping[str, str] = os.environ) -> None:
    """The same within a running loop."""
    stop = asyncio.Event()
    # What changes from here on is noticed, also while the server starts.
    watch = Watch(() if options.config_path is None else (options.config_path,))
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    async with AsyncExitStack() as stack:
        if options.simulate:
            simulated = SimulatedProviders(
                demo_weather(), seed=SIMULATION_SEED, clock_s=time.monotonic, sleep=asyncio.sleep
            )
            await stack.enter_async_context(simulated)
            config = simulated_config(f"http://127.0.0.1:{simulated.port}", environment)
        else:
            config = load_config(options.config_path, environment)
        config = _overridden(config, options)
        watch.follow((*watch.paths, *artifact_paths(config)))
        application = await stack.enter_async_context(Application(config))
        settle_memory()
        for notice in config.notices:
            logger.warning("%s", notice)
        address = config.server.listen.rpartition(":")[0]
        logger.info("serving %d endpoints on %s:%d", len(config.catalog.entries), address, application.port)
        if config.openai_door is not None:
            address = config.openai_door.listen.rpartition(":")[0]
            logger.info("the OpenAI-compatible door is open at %s:%d", address, application.openai_port)
        if options.config_path is not None and not options.simulate:
            reloads = asyncio.create_task(_reload_on_change(application, options, environment, watch))
            stack.callback(reloads.cancel)
        await stop.wait()


def _overridden(config: Config, options: ServeOptions) -> Config:
    """The configuration with what the command line says instead."""
    if options.listen is not None:
        config = replace(config, server=replace(config.server, listen=options.listen))
    if options.openai_listen is not None:
        door = replace(config.openai_door or OpenAiDoorSettings(), listen=options.openai_listen)
        config = replace(config, openai_door=door)
    return config


async def _reload_on_change(
    application: Application, options: ServeOptions, environment: Mapping[str, str], watch: Watch
) -> None:
    """Reloads whenever the configuration's file or a quality artifact changes, and on SIGHUP whatever has changed."""
    path = options.config_path
    assert path is not None, "only a file can change"
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(_ask_on_change(watch, asked))
        while True:
            await asked.wait()
            asked.clear()
            try:
                config = await asyncio.to_thread(load_config, path, environment)
                # Also of a configuration that is then refused for its artifact: it is tried again once that is mended.
                watch.follow((path, *artifact_paths(config)))
                await application.reload(_overridden(config, options))
            except (ConfigError, ArtifactError) as error:
                logger.warning("not reloaded, the configuration in force stays: %s", error)
            else:
                logger.info("reloaded: %d endpoints", len(config.catalog.entries))


async def _ask_on_change(watch: Watch, asked: asyncio.Event) -> None:
    async with aclosing(watch.changes()) as changes:
        async for _ in changes:
            asked.set()
