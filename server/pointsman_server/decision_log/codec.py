"""Records as lines of JSON, and back. Pure.

What decisions share (the catalog and the routers, a table of risks, what was asked for) stands on a line of its own
before the first that needs it, under a digest, and once in each file: so every file can be read by itself, and a decision
takes about 0.7 kB for each of its candidates.

    {"kind":"log", ...}  {"kind":"setting","id":...}  {"kind":"decision", ...}  {"kind":"completion", ...}  {"kind":"report", ...}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pointsman_server.decision.router_string import RouterAlternative, RouterString
from pointsman_server.decision.types import (
    NEVER_OBSERVED,
    Assignment,
    Decision,
    DecisionInput,
    DecisionReason,
    Exploration,
    Policy,
)
from pointsman_server.decision_log.fields import (
    Fields,
    SnapshotWriter,
    alternative_fields,
    candidate_fields,
    candidate_of,
    endpoint_fields,
    endpoint_of,
    exploration_fields,
    facts_fields,
    facts_of,
    policy_of,
    qualities_of,
    relaxation_fields,
    relaxation_of,
    risk_table_fields,
    risk_table_of,
    router_alternative_of,
    router_fields,
    router_of,
    signed_weights,
    snapshot_of,
)
from pointsman_server.decision_log.records import (
    CompletionResult,
    DecisionLogError,
    LoggedAttempt,
    LoggedCompletion,
    LoggedDecision,
    LoggedReport,
    PromptTraits,
    Record,
    Setting,
)
from pointsman_server.errors import UpstreamErrorKind

VERSION = 1
"""Of the lines. A reader refuses another one."""
DIGEST_LENGTH = 12
"""Hexadecimal digits: no two parts of one log will share them."""
CONTEXT_COUNT_MAX = 256
"""Shared parts that a writer remembers; beyond them it begins anew, and writes some again."""
SURFACE_DIGITS = 4
"""Of the features of a prompt: they are for comparing prompts, and nothing is decided by them."""
DECISION_PREFIX = b'{"kind":"decision",'
"""How the line of a decision begins, so that whoever looks for other records need not read it."""
FOREIGN_CONTENT = (KeyError, TypeError, ValueError, AttributeError, AssertionError, RecursionError)
"""What reading a line may end in that was cut off, or was never written here."""


# No part of a record contains itself, and to look for that takes a fifth of the time.
_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)


class DamagedLineError(DecisionLogError):
    """A line that is no record: half-written, or not ours."""


def to_json(fields: Fields) -> bytes:
    """A line, without its end."""
    return _ENCODER.encode(fields).encode("ascii")


def decision_prefix(decision_id: str) -> bytes:
    """How the line of that decision begins."""
    return b'%s"id":%s,' % (DECISION_PREFIX, json.dumps(decision_id).encode("ascii"))


def header_line(surface_names: Iterable[str]) -> bytes:
    """The first line of a file; `surface_names` say what the features of prompts are, for whoever reads it elsewhere."""
    return to_json({"kind": "log", "version": VERSION, "surface": list(surface_names)})


class LineWriter:
    """Turns records into the lines of one file. Memory: what the decisions of late share, and a digest of all else."""

    def __init__(self) -> None:
        self._written: set[str] = set()
        self._snapshots = SnapshotWriter()
        self._known: dict[object, tuple[tuple[object, ...], str, bytes]] = {}

    def begin_file(self) -> None:
        """From here on lines go to another file, which has none of the shared parts yet."""
        self._written.clear()

    def lines(self, record: Record) -> list[bytes]:
        """The lines of a record, without their ends; the last is the record's own."""
        match record:
            case LoggedDecision():
                return self._decision_lines(record)
            case _:
                return [to_json(aftermath_fields(record))]

    def _decision_lines(self, record: LoggedDecision) -> list[bytes]:
        given, table, lines = record.given, record.given.risk_table, list[bytes]()
        asked = (given.alternatives, given.exploration, record.asked, record.overlay)
        shared = {
            # The large ones are the same objects until a reload, and to compare them by value would take long.
            "setting": self._shared("setting", (record.setting,), id(record.setting), lines),
            "routing": self._shared("routing", asked, asked, lines),
            "risk_table": None if table is None else self._shared("risk_table", (table,), id(table), lines),
        }
        line = to_json(decision_line_fields(record, shared))
        snapshot = self._snapshots.text(given.snapshot).encode("ascii")
        lines.append(b'%s,"snapshot":%s}' % (line[:-1], snapshot))
        return lines

    def _shared(self, kind: str, parts: tuple[Any, ...], key: object, lines: list[bytes]) -> str:
        """The digest of a shared part; adds its line where this file does not have it yet."""
        known = self._known.get(key)
        if known is None:
            fields = to_json(_SHARED[kind](*parts))
            digest = hashlib.sha256(fields).hexdigest()[:DIGEST_LENGTH]
            line = b'{"kind":"%s","id":"%s",%s' % (kind.encode(), digest.encode(), fields[1:])
            if len(self._known) >= CONTEXT_COUNT_MAX:
                self._known.clear()
            # Holding the parts keeps their identities from being given to others.
            known = self._known[key] = (parts, digest, line)
        _, digest, line = known
        if digest not in self._written:
            self._written.add(digest)
            lines.append(line)
        return digest


def decision_line_fields(record: LoggedDecision, shared: Mapping[str, str | None]) -> Fields:
    """The line of a decision but for its snapshot; `shared` are the digests of what stands on lines of its own."""
    given, decision, prompt = record.given, record.decision, record.prompt
    chosen = decision.chosen
    fields: Fields = {
        "kind": "decision",
        "id": decision.decision_id,
        "time": record.time_unix_s,
        "endpoint": None if chosen is None else chosen.endpoint.name,
        "propensity": None if chosen is None else chosen.probability,
        "served": record.served,
        "router": given.router_name,
        "router_version": given.router_version,
        "quality_artifact": given.quality_artifact,
        **shared,
        "seed": given.seed,
        "facts": facts_fields(given.facts),
        "prompt": {"characters": prompt.character_count, "surface": [round(x, SURFACE_DIGITS) for x in prompt.surface]},
        "qualities": given.qualities,
    }
    if prompt.text is not None:
        fields["prompt"]["text"] = prompt.text
    if record.caller_seeded:
        fields["caller_seeded"] = True
    if given.cached_input_token_counts:
        fields["cached_input_token_counts"] = dict(given.cached_input_token_counts)
    assigned = given.assignment
    if assigned.split_name or assigned.router_name != given.router_name:
        fields["assignment"] = [assigned.asked_name, assigned.router_name, assigned.probability, assigned.keyed]
    return fields | decision_fields(given, decision)


def decision_fields(given: DecisionInput, decision: Decision) -> Fields:
    """What was decided, as far as it does not repeat what it was decided by."""
    runtimes, qualities = given.snapshot.by_endpoint, given.qualities
    weights = [signed_weights(policy.preference) for policy in given.alternatives]
    fields: Fields = {
        "reason": decision.reason,
        "candidates": [
            candidate_fields(
                candidate,
                runtimes.get(candidate.endpoint.name, NEVER_OBSERVED),
                qualities.get(candidate.endpoint.model),
                weights[candidate.alternative],
            )
            for candidate in decision.candidates
        ],
    }
    if decision.relaxations:
        fields["relaxations"] = [relaxation_fields(relaxation) for relaxation in decision.relaxations]
    if decision.runtime_age_s is not None:
        fields["runtime_age_s"] = decision.runtime_age_s
    return fields


def decision_bytes(given: DecisionInput, decision: Decision) -> bytes:
    """What was decided, in the very bytes that two equal decisions share."""
    return to_json(decision_fields(given, decision))


def _setting_fields(setting: Setting) -> Fields:
    return {
        "endpoints": [endpoint_fields(endpoint) for endpoint in setting.endpoints],
        "quality_names": dict(setting.quality_names),
        "routers": {name: router_fields(router) for name, router in setting.routers.items()},
        "artifacts": dict(setting.artifacts),
    }


def _routing_fields(
    alternatives: tuple[Policy, ...], exploration: Exploration, asked: RouterString, overlay: RouterAlternative
) -> Fields:
    return {
        "alternatives": [alternative_fields(policy) for policy in alternatives],
        "exploration": exploration_fields(exploration),
        "asked": [alternative_fields(alternative) for alternative in asked.alternatives],
        "overlay": alternative_fields(overlay),
    }


_SHARED: Mapping[str, Callable[..., Fields]] = {
    "setting": _setting_fields,
    "routing": _routing_fields,
    "risk_table": risk_table_fields,
}


def _completion_fields(record: LoggedCompletion) -> Fields:
    fields: Fields = {"kind": "completion", "id": record.decision_id, "time": record.time_unix_s}
    known: Fields = {
        "result": record.result,
        "endpoint": record.endpoint_name,
        "ttft_s": record.ttft_s,
        "duration_s": record.duration_s,
        "cost_usd": record.cost_usd,
        "attempt_count": record.attempt_count,
    }
    return fields | _known(known) | {"attempts": [_attempt_fields(attempt) for attempt in record.attempts]}


def _attempt_fields(attempt: LoggedAttempt) -> Fields:
    return _known(
        {
            "number": attempt.number,
            "endpoint": attempt.endpoint_name,
            "failure": attempt.failure,
            "input_token_count": attempt.input_token_count,
            "output_token_count": attempt.output_token_count,
            "cached_input_token_count": attempt.cached_input_token_count,
            "cost_usd": attempt.cost_usd,
        }
    )


def _report_fields(record: LoggedReport) -> Fields:
    fields: Fields = {"kind": "report", "id": record.decision_id, "time": record.time_unix_s}
    known: Fields = {
        "endpoint": record.endpoint_name,
        "ttft_s": record.ttft_s,
        "duration_s": record.duration_s,
        "input_token_count": record.input_token_count,
        "output_token_count": record.output_token_count,
        "failure": record.failure,
        "quality": record.quality,
        "quality_source": record.quality_source or None,
    }
    return fields | _known(known)


def aftermath_fields(record: LoggedCompletion | LoggedReport) -> Fields:
    """What came of a decision, as the log has it."""
    return _completion_fields(record) if isinstance(record, LoggedCompletion) else _report_fields(record)


def _known(fields: Fields) -> Fields:
    return {name: value for name, value in fields.items() if value is not None}


class LineReader:
    """Reads the lines of one file in their order."""

    def __init__(self) -> None:
        self._settings: dict[str, Setting] = {}
        self._risk_tables: dict[str, Any] = {}
        self._routing_parts: dict[str, tuple[tuple[Policy, ...], Exploration, RouterString, RouterAlternative]] = {}

    def read(self, line: bytes) -> Record | None:
        """The record of a line; None when it holds what records share.

        Raises:
            DamagedLineError: it is no line of this log, or refers to one that is missing.
            DecisionLogError: the log is of another version.
        """
        try:
            return self._record(json.loads(line))
        except FOREIGN_CONTENT as error:
            raise DamagedLineError(f"no whole line of a decision log ({type(error).__name__})") from None

    def _record(self, fields: Fields) -> Record | None:
        match fields["kind"]:
            case "decision":
                return self._decision(fields)
            case "completion":
                return _completion_of(fields)
            case "report":
                return _report_of(fields)
            case "log":
                if fields["version"] != VERSION:
                    raise DecisionLogError(f"the log is of version {fields['version']}; version {VERSION} can be read")
            case "setting":
                self._settings[fields["id"]] = _setting_of(fields)
            case "routing":
                self._routing_parts[fields["id"]] = _routing_of(fields)
            case "risk_table":
                self._risk_tables[fields["id"]] = risk_table_of(fields)
            case other:
                raise ValueError(other)
        return None

    def _decision(self, fields: Fields) -> LoggedDecision:
        setting = self._settings[fields["setting"]]
        alternatives, exploration, asked, overlay = self._routing_parts[fields["routing"]]
        router_name = fields["router"]
        assignment = fields.get("assignment", (router_name, router_name, 1.0, False))
        given = DecisionInput(
            decision_id=fields["id"],
            facts=facts_of(fields["facts"]),
            alternatives=alternatives,
            endpoints=setting.endpoints,
            qualities=qualities_of(fields["qualities"]),
            snapshot=snapshot_of(fields["snapshot"]),
            seed=fields["seed"],
            exploration=exploration,
            router_name=router_name,
            router_version=fields["router_version"],
            quality_artifact=fields["quality_artifact"],
            assignment=Assignment(*assignment),
            risk_table=None if fields["risk_table"] is None else self._risk_tables[fields["risk_table"]],
            cached_input_token_counts=fields.get("cached_input_token_counts", {}),
        )
        prompt = fields["prompt"]
        return LoggedDecision(
            time_unix_s=fields["time"],
            given=given,
            decision=_decision_of(fields, given),
            asked=asked,
            overlay=overlay,
            served=fields["served"],
            caller_seeded=fields.get("caller_seeded", False),
            setting=setting,
            prompt=PromptTraits(prompt["characters"], tuple(prompt["surface"]), prompt.get("text")),
        )


def _setting_of(fields: Fields) -> Setting:
    return Setting(
        endpoints=tuple(endpoint_of(endpoint) for endpoint in fields["endpoints"]),
        quality_names=fields["quality_names"],
        routers={name: router_of(name, router) for name, router in fields["routers"].items()},
        artifacts=fields["artifacts"],
    )


def _routing_of(fields: Fields) -> tuple[tuple[Policy, ...], Exploration, RouterString, RouterAlternative]:
    return (
        tuple(policy_of(policy) for policy in fields["alternatives"]),
        Exploration(**fields["exploration"]),
        RouterString(tuple(router_alternative_of(alternative) for alternative in fields["asked"])),
        router_alternative_of(fields["overlay"]),
    )


def _decision_of(fields: Fields, given: DecisionInput) -> Decision:
    endpoints = {endpoint.name: endpoint for endpoint in given.endpoints}
    runtimes, qualities = given.snapshot.by_endpoint, given.qualities
    weights = [signed_weights(policy.preference) for policy in given.alternatives]
    candidates = []
    for candidate in fields["candidates"]:
        endpoint = endpoints[candidate["endpoint"]]
        runtime, quality = runtimes.get(endpoint.name, NEVER_OBSERVED), qualities.get(endpoint.model)
        own = weights[candidate.get("alternative", 0)]
        candidates.append(candidate_of(candidate, endpoint, runtime, quality, own))
    return Decision(
        decision_id=given.decision_id,
        router_name=given.router_name,
        router_version=given.router_version,
        seed=given.seed,
        reason=None if fields["reason"] is None else DecisionReason(fields["reason"]),
        candidates=tuple(candidates),
        relaxations=tuple(relaxation_of(relaxation) for relaxation in fields.get("relaxations", ())),
        runtime_age_s=fields.get("runtime_age_s"),
        quality_artifact=given.quality_artifact,
        assignment=given.assignment,
    )


def _completion_of(fields: Fields) -> LoggedCompletion:
    return LoggedCompletion(
        decision_id=fields["id"],
        time_unix_s=fields["time"],
        result=CompletionResult(fields["result"]),
        endpoint_name=fields.get("endpoint"),
        ttft_s=fields.get("ttft_s"),
        duration_s=fields["duration_s"],
        cost_usd=fields.get("cost_usd"),
        attempt_count=fields["attempt_count"],
        attempts=tuple(_attempt_of(attempt) for attempt in fields["attempts"]),
    )


def _attempt_of(fields: Fields) -> LoggedAttempt:
    return LoggedAttempt(
        number=fields["number"],
        endpoint_name=fields["endpoint"],
        failure=_failure_of(fields),
        input_token_count=fields.get("input_token_count"),
        output_token_count=fields.get("output_token_count"),
        cached_input_token_count=fields.get("cached_input_token_count"),
        cost_usd=fields.get("cost_usd"),
    )


def _report_of(fields: Fields) -> LoggedReport:
    return LoggedReport(
        decision_id=fields["id"],
        time_unix_s=fields["time"],
        endpoint_name=fields["endpoint"],
        ttft_s=fields.get("ttft_s"),
        duration_s=fields.get("duration_s"),
        input_token_count=fields.get("input_token_count"),
        output_token_count=fields.get("output_token_count"),
        failure=_failure_of(fields),
        quality=fields.get("quality"),
        quality_source=fields.get("quality_source", ""),
    )


def _failure_of(fields: Fields) -> UpstreamErrorKind | None:
    return UpstreamErrorKind(fields["failure"]) if "failure" in fields else None
