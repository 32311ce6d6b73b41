"""The reference in docs/ says what the code does: every example, table and sample is checked against it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from itertools import dropwhile, pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from pointsman.v1 import chat_pb2, error_reason_pb2, router_service_pb2, routing_pb2
from pointsman_server.cli.arguments import build_parser
from pointsman_server.decision import router_string
from pointsman_server.decision.decide import decide
from pointsman_server.decision.metrics import METRIC_SPECS, Metric
from pointsman_server.decision.router_string import RouterStringError, parse_router_string
from pointsman_server.decision.types import (
    Bound,
    BreakerState,
    Capability,
    Comparison,
    Decision,
    DecisionInput,
    Endpoint,
    EndpointRuntime,
    Policy,
    RequestFacts,
    RuntimeSnapshot,
)
from pointsman_server.edge import service, validate
from pointsman_server.edge.errors import Failure, failure_of, internal_failure
from pointsman_server.errors import (
    AttemptFailure,
    AttemptsExhaustedError,
    ConfigError,
    DeadlineExceededError,
    EndpointsUnavailableError,
    FieldViolation,
    InvalidRequestError,
    MessageTooLargeError,
    NoEligibleEndpointError,
    OverloadedError,
    PointsmanError,
    StreamBrokenError,
    UnauthenticatedError,
    UndecodableMessageError,
    UnknownDecisionError,
    UpstreamErrorKind,
)
from pointsman_server.training import risk

pytestmark = pytest.mark.tidy

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = [DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
DECISION_ID = "0193a5c4f0e17b3c9d2e4f6081a2b3c4"
PROTO_FILES = (
    chat_pb2.DESCRIPTOR,
    error_reason_pb2.DESCRIPTOR,
    router_service_pb2.DESCRIPTOR,
    routing_pb2.DESCRIPTOR,
)
METHODS = router_service_pb2.DESCRIPTOR.services_by_name["RouterService"].methods_by_name
VALIDATORS: Mapping[str, Callable[[Any], None]] = {
    "RouteRequest": validate.validate_route,
    "CompleteRequest": validate.validate_complete,
    "ReportOutcomeRequest": lambda request: validate.validate_outcome(request.outcome),
    "WatchEndpointsRequest": validate.validate_watch,
}
"""What the server itself checks of each request that the reference shows."""


def page(name: str) -> str:
    """The text of a page of the reference."""
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str, opening: str) -> list[tuple[str, str]]:
    """The fenced blocks that open with a match of `opening`: what follows that on the fence, and the content."""
    return re.findall(rf"^```{opening}([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def rows(text: str, first_heading: str) -> list[list[str]]:
    """The cells of the table whose first column is headed so."""
    table = text[text.index(f"\n| {first_heading} |") :].strip().split("\n\n")[0]
    cells = [re.split(r"(?<!\\)\|", line.strip("|")) for line in table.split("\n")[2:]]
    return [[cell.strip().replace("\\|", "|") for cell in row] for row in cells]


def message(full_name: str, value: object) -> Message:
    """The message that `value` is the proto3 JSON of; an unknown field or a wrong value is an error."""
    pool = router_service_pb2.DESCRIPTOR.pool
    return json_format.Parse(json.dumps(value), GetMessageClass(pool.FindMessageTypeByName(full_name))())


def json_values(text: str) -> list[object]:
    """The JSON values that stand one after the other in `text`."""
    values, rest = [], text.strip()
    while rest:
        value, end = json.JSONDecoder().raw_decode(rest)
        values.append(value)
        rest = rest[end:].strip()
    return values


def shell_commands(text: str) -> list[list[str]]:
    """The words of each command in the shell blocks of a page, variables before it aside, up to a pipe or the like."""
    found, pending = [], ""
    for _, script in blocks(text, "(?:sh|bash|shell)"):
        for line in script.replace("\\\n", " ").splitlines():
            try:
                words = shlex.split(f"{pending}{line}", comments=True)
            except ValueError:  # A quotation that goes on in the next line.
                pending += f"{line}\n"
                continue
            pending = ""
            words = list(dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))
            found.append(list(takewhile(lambda word: word not in {"|", "&", "&&", ">", "<", ";"}, words)))
    assert not pending, "a quotation is never closed"
    return found


def shell_requests(text: str) -> list[tuple[str, Message]]:
    """The method and the request of every `buf curl` line of a page."""
    found = []
    for words in shell_commands(text):
        if words[:2] == ["buf", "curl"]:
            (method,) = [word.rpartition("/")[2] for word in words if f"/{service.SERVICE_NAME}/" in word]
            (data,) = [value for option, value in pairwise(words) if option in {"-d", "--data"}]
            found.append((method, message(METHODS[method].input_type.full_name, json.loads(data))))
    return found


def test_each_call_that_a_page_shows_is_one_that_the_server_takes() -> None:
    """What a reader pastes from README or docs/ names a method, is its request, and passes its validation."""
    shown = {path.name: shell_requests(path.read_text(encoding="utf-8")) for path in PAGES}
    assert [method for method, _ in shown["README.md"]] == ["Route"]
    assert [method for method, _ in shown["protocol.md"]] == ["Route", "Complete", "ReportOutcome", "WatchEndpoints"]
    for requests in shown.values():
        for _, request in requests:
            VALIDATORS[request.DESCRIPTOR.name](request)


def test_each_message_that_the_protocol_page_shows_is_one() -> None:
    """Every JSON sample of docs/protocol.md is of the message that its fence names, and each request is valid."""
    samples = blocks(page("protocol.md"), "json ")
    assert samples
    for full_name, text in samples:
        for value in json_values(text):
            shown = message(full_name, value)
            if full_name.endswith("Request"):
                VALIDATORS[shown.DESCRIPTOR.name](shown)


def test_each_stream_that_the_protocol_page_shows_is_in_order() -> None:
    """Each sample of a stream begins with the decision, ends with `done`, and has each of them once; together they show
    what else there is."""
    samples = blocks(page("protocol.md"), r"json pointsman\.v1\.CompleteResponse")
    assert len(samples) == 2
    shown: set[str] = set()
    for _, text in samples:
        events = [str(message("pointsman.v1.CompleteResponse", v).WhichOneof("event")) for v in json_values(text)]
        assert (events[0], events[-1]) == ("decision", "done")
        assert events.count("decision") == events.count("done") == 1
        shown |= set(events)
    assert {"attempt_started", "attempt_failed", "delta", "usage"} <= shown


def test_the_protocol_page_lists_every_method() -> None:
    """The first table of docs/protocol.md has each RPC once, in the order of the proto."""
    assert [row[0].strip("`") for row in rows(page("protocol.md"), "RPC")] == list(METHODS)


def test_the_protocol_page_states_the_limits_that_are_checked() -> None:
    """Each limit in docs/protocol.md is the constant that the server checks."""
    stated = {what: int(limit.replace(",", "")) for what, limit in rows(page("protocol.md"), "what")}
    assert stated == {
        "messages of a conversation": validate.MESSAGE_COUNT_MAX,
        "parts of a message": validate.PART_COUNT_MAX,
        "tools, or tool calls of a message": validate.TOOL_COUNT_MAX,
        "characters of a tool call's signature": validate.SIGNATURE_LENGTH_MAX,
        "stop texts": validate.STOP_COUNT_MAX,
        "characters of a router string": router_string.LENGTH_MAX,
        "models, in a list": validate.MODEL_COUNT_MAX,
        "providers, in a list": validate.PROVIDER_COUNT_MAX,
        "endpoints, in a list": validate.ENDPOINT_COUNT_MAX,
        "labels": validate.LABEL_COUNT_MAX,
        "attempts of a call": validate.ATTEMPT_COUNT_MAX,
        "characters of a decision's id": validate.DECISION_ID_LENGTH_MAX,
        "characters of an assignment key": validate.ASSIGNMENT_KEY_LENGTH_MAX,
        "entries of a page": validate.PAGE_SIZE_MAX,
        "violations listed in an answer": validate.VIOLATION_COUNT_MAX,
    }


@pytest.mark.parametrize("name", ["protocol.md", "errors.md", "router-strings.md", "configuration.md"])
def test_each_enum_value_that_a_page_names_is_in_the_protocol(name: str) -> None:
    """A name such as ROLE_USER in the reference is an enum value of pointsman.v1."""
    known = {
        value for proto in PROTO_FILES for enum in proto.enum_types_by_name.values() for value in enum.values_by_name
    }
    prefixes = "|".join(
        sorted({re.sub(r"_UNSPECIFIED$", "", value) for value in known if value.endswith("_UNSPECIFIED")})
    )
    named = re.findall(rf"\b(?:{prefixes})_[A-Z][A-Z_]+\b", page(name))
    assert set(named) <= known


def test_every_router_string_of_the_reference_is_read_and_printed_as_shown() -> None:
    """Each line of a text block in docs/router-strings.md is a router; after => stands how it is printed, and without
    that it is printed as it stands."""
    lines = [line for _, text in blocks(page("router-strings.md"), "text") for line in text.splitlines()]
    assert lines
    for line in lines:
        typed, _, printed = line.partition("  =>  ")
        assert str(parse_router_string(typed)) == (printed or typed)


def test_every_router_string_on_quality_floors_is_read() -> None:
    """Each line of a text block in docs/quality-floors.md, and each router or bound that its text names, is one that the
    parser takes."""
    text = page("quality-floors.md")
    shown = [line for _, block in blocks(text, "text") for line in block.splitlines()]
    shown += re.findall(r"`(router@[^`]+)`", text)
    shown += [f"router@{bound}" for bound in re.findall(r"`(r?q(?:\.p\d+)?>=[\d.]+)`", text)]
    assert len(shown) >= 9
    for router in shown:
        parse_router_string(router)


def test_the_page_on_quality_floors_states_what_is_calibrated() -> None:
    """The numbers of models, the shares and the least number of prompts are those of the code."""
    text = " ".join(page("quality-floors.md").split())
    *counts, last_count = risk.MODEL_COUNTS
    *shares, last_share = (f"{share:g}" for share in risk.SHARES)
    assert f"calibrated for {', '.join(map(str, counts))} and {last_count} models" in text
    assert f"More than {last_count} count as {last_count}" in text
    assert f"Shares of {', '.join(shares)} and {last_share} are calibrated" in text
    assert f"fewer than {risk.PROMPT_COUNT_MIN} held-out prompts a quality model has no such table" in text


def test_what_the_page_on_quality_floors_claims_was_measured() -> None:
    """In the results that it links to, the chosen candidate falls short within the stated risk on every set of prompts,
    and three sources were measured that way."""
    results = json.loads((DOCS.parent / "benchmarks/results/risk.json").read_text(encoding="utf-8"))["results"]
    assert {"mmlu_pro", "zeroeval", "llmrouter", "routellm, never seen"} <= {row["pool"] for row in results}
    assert {row["risk"] for row in results} == {0.05, 0.1, 0.2}
    assert [row for row in results if not row["holds"]] == []


def test_every_router_string_of_the_readme_is_read() -> None:
    """Each router in README's table is one that the parser takes."""
    shown = [router for router, _ in rows((DOCS.parent / "README.md").read_text(encoding="utf-8"), "router")]
    assert shown
    for router in shown:
        parse_router_string(router.strip("`"))


def test_the_grammar_states_the_limits_that_are_checked() -> None:
    """The numbers in docs/router-strings.md are those of the parser, and its lists name what the parser knows."""
    text = page("router-strings.md")
    assert f"at most {router_string.LENGTH_MAX:,} characters" in text
    assert f"at most {router_string.ALTERNATIVE_COUNT_MAX};" in text
    assert f"at most {router_string.ITEM_COUNT_MAX} items" in text
    for rule, names in (("list", router_string.SPACE_LISTS), ("capability", tuple(Capability))):
        ((_, grammar),) = blocks(text, "ebnf")
        (line,) = [line for line in grammar.splitlines() if re.match(rf"{rule} +=", line)]
        assert re.findall(r'"([a-z_]+)"', line) == list(names)


def test_the_table_of_metrics_is_the_one_that_the_server_goes_by() -> None:
    """Names, short names, milliseconds, direction, weight and quantile of each metric stand in docs/router-strings.md
    as the code has them."""
    units = {Metric.REQUEST_COST: "USD", Metric.OUTPUT_TOKENS_PER_SECOND: "tokens per second"}
    expected = [
        [
            f"`{metric.value}`",
            ", ".join(f"`{alias}`" for alias in spec.aliases),
            "ms" if spec.text_exponent else units.get(metric, "0 to 1" if spec.value_max else "USD per million tokens"),
            "high" if spec.higher_is_better else "low",
            "yes" if spec.weighable else "no",
            "yes" if spec.has_quantile else "no",
        ]
        for metric, spec in METRIC_SPECS.items()
    ]
    assert rows(page("router-strings.md"), "metric") == expected


def test_each_unreadable_router_string_is_answered_as_shown() -> None:
    """What docs/router-strings.md says of a text that can't be read is what the parser says; ... leaves some out."""
    for text, answer in rows(page("router-strings.md"), "text"):
        with pytest.raises(RouterStringError) as caught:
            parse_router_string(text.strip("`"))
        pattern = ".*".join(re.escape(piece) for piece in answer.split("..."))
        assert re.fullmatch(pattern, str(caught.value)) is not None


def decision_without_choice(runtime: EndpointRuntime, *bounds: Bound) -> Decision:
    """A decision over one endpoint at a fixed price, in this state and under these bounds."""
    return decide(
        DecisionInput(
            decision_id=DECISION_ID,
            facts=RequestFacts(input_token_count=100),
            alternatives=(Policy(bounds=bounds),),
            endpoints=(Endpoint("gpt-4o", "openai", input_price_usd_per_mtok=2.5, output_price_usd_per_mtok=10.0),),
            qualities={},
            snapshot=RuntimeSnapshot({"gpt-4o@openai": runtime}),
            seed=7,
        )
    )


def attempt_failure(kind: UpstreamErrorKind, text: str) -> AttemptFailure:
    """An attempt that failed so, after a quarter of a second."""
    return AttemptFailure(1, "gpt-4o@openai", kind, text, 0.25)


def answered(error: PointsmanError) -> Failure:
    """The status of an error that has one."""
    failure = failure_of(error)
    assert failure is not None, error
    return failure


def sample_failures() -> dict[str, Failure]:
    """Each reason with the status of a sample error; the very errors whose answers docs/errors.md shows."""
    too_dear = Bound(Metric.INPUT_PRICE, Comparison.LESS, 1.0)
    down = decision_without_choice(EndpointRuntime(breaker=BreakerState.OPEN, breaker_open_s=2.5))
    limited = decision_without_choice(EndpointRuntime(retry_after_s=7.0))
    server_error = attempt_failure(UpstreamErrorKind.SERVER_ERROR, "the provider answered HTTP 503")
    silent = attempt_failure(UpstreamErrorKind.TIMEOUT, "silent for 30 s")
    violations = (
        FieldViolation("conversation.messages", "is empty; expected at least one message"),
        FieldViolation("routing.constraints.ttft", "contradicts itself: min 2 is above max 1"),
    )
    failures = (
        answered(InvalidRequestError(violations)),
        answered(MessageTooLargeError(actual_bytes=9_000_000, limit_bytes=8_388_608)),
        answered(UndecodableMessageError("RouteRequest")),
        answered(NoEligibleEndpointError(decision_without_choice(EndpointRuntime(), too_dear))),
        answered(EndpointsUnavailableError(down, waiting=down.candidates, retry_after_s=2.5, rate_limited=False)),
        answered(EndpointsUnavailableError(limited, waiting=limited.candidates, retry_after_s=7.0, rate_limited=True)),
        answered(AttemptsExhaustedError((server_error,), decision_id=DECISION_ID, retry_after_s=1.0)),
        answered(StreamBrokenError(silent, delta_count=17, character_count=311)),
        answered(OverloadedError(limit=1000, retry_after_s=0.5)),
        answered(UnauthenticatedError()),
        answered(UnknownDecisionError(DECISION_ID)),
        answered(DeadlineExceededError(delta_count=17)),
        internal_failure("5f2c8e0a1b3d4c6f"),
    )
    return {failure.reason: failure for failure in failures}


def as_json(failure: Failure) -> dict[str, Any]:
    """The google.rpc.Status that travels, as proto3 JSON."""
    ((_, serialised),) = failure.trailing_metadata()
    value: dict[str, Any] = json_format.MessageToDict(status_pb2.Status.FromString(serialised))
    return value


def test_every_reason_has_a_sample_error() -> None:
    """The samples below cover ErrorReason: a new reason can't be forgotten."""
    assert list(sample_failures()) == list(error_reason_pb2.ErrorReason.keys())[1:]


def test_the_page_on_errors_shows_each_status_as_it_is_sent() -> None:
    """For every ErrorReason docs/errors.md has a section with the code and, but for the words of its message, the very
    status with all details that the server answers the sample error with."""
    _, *sections = re.split(r"^## (?=ERROR_REASON_)", page("errors.md"), flags=re.MULTILINE)
    shown = {section.split("\n")[0]: section for section in sections}
    failures = sample_failures()
    assert list(shown) == list(failures)
    for reason, failure in failures.items():
        assert f"\n**{failure.code.name}**" in shown[reason]
        ((_, sample),) = blocks(shown[reason], "json")
        documented, sent = json.loads(sample), as_json(failure)
        assert documented.pop("message")
        assert sent.pop("message")
        assert documented == sent


@pytest.mark.parametrize(
    ("kinds", "code", "details"),
    [
        (("rate_limited", "rate_limited"), "RESOURCE_EXHAUSTED", ["AttemptsExhausted", "QuotaFailure", "RetryInfo"]),
        (("rejected", "authentication"), "FAILED_PRECONDITION", ["AttemptsExhausted"]),
        (("rejected", "server_error"), "UNAVAILABLE", ["AttemptsExhausted", "RetryInfo"]),
        (("rate_limited", "timeout"), "UNAVAILABLE", ["AttemptsExhausted", "RetryInfo"]),
    ],
)
def test_exhausted_attempts_have_the_status_that_they_have_in_common(
    kinds: tuple[str, ...], code: str, details: list[str]
) -> None:
    """All rate limited: RESOURCE_EXHAUSTED. All refused: FAILED_PRECONDITION, without a time to come back. Anything
    else: UNAVAILABLE."""
    failures = tuple(attempt_failure(UpstreamErrorKind(kind), "it failed") for kind in kinds)
    failure = answered(AttemptsExhaustedError(failures, decision_id=DECISION_ID, retry_after_s=1.0))
    assert failure.code.name == code
    assert [detail.DESCRIPTOR.name for detail in failure.details] == ["ErrorInfo", *details]


def test_an_error_that_no_caller_should_see_has_no_status() -> None:
    """A wrong configuration is not an answer to a request: it has none, and the edge answers as to any bug."""
    error = ConfigError("pointsman.toml", (FieldViolation("server.listen", "is wrong"),))
    assert failure_of(error) is None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_that_a_page_shows_can_be_typed(path: Path) -> None:
    """The command line takes each `pointsman` line of README and docs/ with all its options, and has each command that
    the text names."""
    parser = build_parser({})
    text = path.read_text(encoding="utf-8")
    for words in shell_commands(text):
        if words and words[0].rpartition("/")[2] == "pointsman":
            parser.parse_args(words[1:])
    commands = {action.dest: action for action in parser._actions if action.choices}
    known = {name for action in commands.values() for name in action.choices or ()}
    assert set(re.findall(r"`pointsman ([a-z]+)", text)) <= known


def test_the_image_starts_and_probes_with_commands_that_exist() -> None:
    """The Dockerfile's CMD, and its HEALTHCHECK, are command lines that `pointsman` takes."""
    dockerfile = (DOCS.parent / "Dockerfile").read_text(encoding="utf-8")
    lists = [json.loads(found) for found in re.findall(r"^\s*CMD (\[.*\])$", dockerfile, re.MULTILINE)]
    assert len(lists) == 2
    for words in lists:
        build_parser({}).parse_args(words[1:] if words[0] == "pointsman" else words)
