"""Every answer of the corpus through the whole server: the exact request goes out, and what comes back reaches the caller."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from e2e.harness import Running, config_of, running
from pointsman import (
    AttemptsExhaustedError,
    Delta,
    Done,
    StreamBrokenError,
    ToolCallDelta,
    Usage,
    assistant,
    conversation,
    image,
    json_schema,
    system,
    tool,
    tool_result,
    user,
)
from pointsman.v1 import chat_pb2
from pointsman.v1.chat_pb2 import Conversation, SamplingOptions, ToolCall
from pointsman_server.chat import FinishReason
from pointsman_server.providers.scripted import (
    LAST_CHUNK,
    Close,
    ReadRequest,
    RecordedRequest,
    Script,
    ScriptedUpstream,
    Send,
    chunk,
    stream_head,
    whole_answer,
)
from providers.corpus import FOLDER, KEY, PROVIDERS, UPDATE, Sample, samples

CLOSING = ("connection", "close")
"""Each answer on a connection of its own, so that the n-th sample meets the n-th script."""
UNSTABLE = ("host:", "traceparent:", "content-length:")
"""Headers that differ from run to run, or follow from the body."""

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
GREETING = conversation([system("Be brief."), user("Where is the harbour?")])
THOUGHT = json.dumps([{"type": "thinking", "thinking": "Two places.", "signature": "EqQB"}]).encode()
SIGNATURES = {
    "anthropic": f"anthropic:{base64.b64encode(THOUGHT).decode()}",
    "gemini": "gemini/m:CpMD",
    "deepseek": "reasoning_content:Two places.",
    "openai": "gemini/another-model:CpMD",
}


def asked_with_tools(signature: str, *, parallel: bool | None = None, choice: str | None = "required") -> Conversation:
    """A conversation in which two tools were called at once, and some must be called again."""
    calls = [
        ToolCall(id="t1", name="weather", arguments_json='{"city":"Oslo"}', signature=signature),
        ToolCall(id="t2", name="now"),
    ]
    asked = conversation(
        [
            system("Be brief."),
            system("Use the tools."),
            user("What is the weather in Oslo?"),
            assistant("I shall look.", tool_calls=calls),
            tool_result("t1", "rain, 4 °C"),
            tool_result("t2", "12:00"),
            user("And in Bergen?"),
        ],
        tools=[tool("weather", "The weather at a place", parameters=CITY), tool("now")],
        sampling=SamplingOptions(parallel_tool_calls=parallel),
    )
    if choice is not None:
        asked.tool_choice.mode = chat_pb2.ToolChoiceMode.Value(f"TOOL_CHOICE_MODE_{choice.upper()}")
    return asked


def asked_for_schema(**sampling: float) -> Conversation:
    """A conversation with every option that most providers have, and those that are given."""
    options = SamplingOptions(
        temperature=0.5,
        top_p=0.75,
        max_output_token_count=2048,
        stop=["END", "\n\n"],
        reasoning_effort=chat_pb2.REASONING_EFFORT_MEDIUM,
    )
    for name, value in sampling.items():
        setattr(options, name, value)
    return conversation(
        "Where is the harbour?", response_format=json_schema("place", CITY, strict=True), sampling=options
    )


PENALTIES = {"presence_penalty": 0.5, "frequency_penalty": -0.5}
PICTURE = image(b"\x89PNG", media_type="image/png")
ASKED = {
    "anthropic/thinking_and_parallel_tools.sse": asked_with_tools(SIGNATURES["anthropic"], parallel=False),
    "anthropic/thinking_and_parallel_tools.json": asked_with_tools(SIGNATURES["gemini"], choice=None),
    "anthropic/schema.sse": asked_for_schema(top_k=40),
    "anthropic/text.json": conversation(user("What is this?", PICTURE, image("https://example.org/a.jpg"))),
    "anthropic/text.sse": conversation([user("Hi."), assistant("Hello."), system("Be brief."), user("Where?")]),
    "gemini/parallel_tools.sse": asked_with_tools(SIGNATURES["gemini"]),
    "gemini/parallel_tools.json": asked_with_tools(SIGNATURES["anthropic"], choice="none"),
    "gemini/schema.sse": asked_for_schema(top_k=40, seed=7, **PENALTIES),
    "gemini/text.json": conversation(
        user("What is this?", PICTURE, image("https://example.org/a.JPG?x=1", detail="low"), image("http://b.de"))
    ),
    "openai/parallel_tools.sse": asked_with_tools(SIGNATURES["openai"], parallel=False),
    "openai/limit.sse": asked_for_schema(seed=7, **PENALTIES),
    "azure/text.sse": asked_for_schema(seed=7),
    "vllm/reasoning.sse": asked_for_schema(seed=7, top_k=40, **PENALTIES),
    "openrouter/reasoning.sse": asked_for_schema(seed=7, top_k=40),
    "groq/text.sse": asked_for_schema(seed=7),
    "mistral/thinking.sse": asked_for_schema(seed=7, **PENALTIES),
    "deepseek/reasoning_and_tools.sse": asked_with_tools(SIGNATURES["deepseek"]),
    "together/text.sse": asked_for_schema(seed=7, top_k=40),
    "ollama/reasoning_and_tools.sse": asked_with_tools("", choice=None),
}


@dataclass(slots=True)
class Told:
    """What a caller has of an answer, be it told by the server or by the corpus."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    """Id, name, arguments and signature of each."""
    usage: dict[str, object] = field(default_factory=dict)
    finish_reason: str | None = None
    response_model: str | None = None
    failure: str | None = None


def by_the_corpus(sample: Sample) -> Told:
    """What comes of a sample, as it stands beside it."""
    told = Told()
    for line in sample.events_path.read_text(encoding="utf-8").splitlines():
        ((kind, event),) = json.loads(line).items()
        match kind:
            case "TextDelta":
                told.text += event["text"]
            case "ReasoningDelta":
                told.reasoning += event["text"]
            case "ToolCallDelta":
                call = told.calls.setdefault(event["index"], ["", "", "", ""])
                pieces = (event["id"], event["name"], event["arguments_json_fragment"], event["signature"])
                told.calls[event["index"]] = [had + (more or "") for had, more in zip(call, pieces, strict=True)]
            case "UsageReported":
                told.usage = {name: count for name, count in event["usage"].items() if count is not None}
            case "Finished":
                told.finish_reason, told.response_model = event["reason"], event["response_model"]
            case _:
                told.failure = event["message"]
    return told


async def by_the_server(server: Running, provider: str, asked: Conversation) -> tuple[Told, list[Usage]]:
    """What a caller gets of one completion, and the usage that was told."""
    told, usages = Told(), list[Usage]()
    try:
        async for event in server.client.complete(asked, router=f"model@{provider}"):
            match event:
                case Delta():
                    told.text += event.text
                    told.reasoning += event.reasoning
                case ToolCallDelta():
                    call = told.calls.setdefault(event.index, ["", "", "", ""])
                    pieces = (event.id, event.name, event.arguments_json_fragment, event.signature)
                    told.calls[event.index] = [had + more for had, more in zip(call, pieces, strict=True)]
                case Usage():
                    usages.append(event)
                case Done():
                    reason = chat_pb2.FinishReason.Name(event.finish_reason).removeprefix("FINISH_REASON_")
                    told.finish_reason = FinishReason(reason.lower())
                    told.response_model = event.response_model or None
                    assert event.cost_usd == pytest.approx(sum(usage.cost_usd for usage in usages))
                    assert event.cost_estimated == any(usage.estimated for usage in usages)
                case _:
                    pass
    except (StreamBrokenError, AttemptsExhaustedError) as error:
        told.failure = str(error)
    return told, usages


def script_of(sample: Sample) -> Script:
    """Answers one request with the sample, and closes."""
    if sample.is_stream:
        return (ReadRequest(), Send(stream_head(CLOSING) + chunk(sample.body) + LAST_CHUNK), Close())
    body = sample.body.decode()
    return (ReadRequest(), Send(whole_answer(body, status=sample.error_status or 200, headers=(CLOSING,))), Close())


def toml_of(number: int, sample: Sample, url: str) -> str:
    """A provider and an endpoint for one sample alone, so that no failure of another tells against it."""
    whole = "" if sample.is_stream or sample.error_status else "stream = false"
    return f"""
        [providers.p{number}]
        {sample.provider_toml}
        base_url = "{url}"
        api_key_env = "KEY"
        [[endpoints]]
        model = "model"
        upstream_model = "m"
        provider = "p{number}"
        input_price_usd_per_mtok = 1.0
        output_price_usd_per_mtok = 2.0
        cached_input_price_usd_per_mtok = 0.1
        cache_write_price_usd_per_mtok = 1.25
        output_token_count_max = 4096
        context_token_count_max = 100_000
        capabilities = ["tools", "image_input", "json_object", "json_schema", "reasoning"]
        {whole}
    """


def as_sent(request: RecordedRequest) -> str:
    """The request line, the headers that matter, and the body, byte for byte."""
    lines = request.head.decode().rstrip("\r\n").split("\r\n")
    return "\n".join([*(line for line in lines if not line.lower().startswith(UNSTABLE)), "", request.body.decode()])


def check_request(sample: Sample, request: RecordedRequest) -> None:
    """It is the expected one: of the sample, or the provider's greeting."""
    kind = "greeting" if sample.is_stream or sample.error_status else "greeting_whole"
    path = sample.request_path if sample.name in ASKED else FOLDER / sample.provider / f"{kind}.request"
    content = as_sent(request)
    if UPDATE:
        path.write_text(content, encoding="utf-8")
    assert content == path.read_text(encoding="utf-8"), sample.name


def cost_usd(usage: Usage) -> float:
    """By the prices of `toml_of`."""
    read, wrote = usage.cached_input_token_count, usage.cache_write_input_token_count
    plain = usage.input_token_count - read - wrote
    return (plain * 1.0 + read * 0.1 + wrote * 1.25 + usage.output_token_count * 2.0) / 1e6


def check_usages(expected: Told, usages: Iterable[Usage], *, name: str) -> None:
    """The provider's own counts, each at its price; an estimate is marked as one."""
    for usage in usages:
        for key, count in expected.usage.items():
            assert getattr(usage, key) == count, (name, key)
        complete = {"input_token_count", "output_token_count"} <= expected.usage.keys()
        assert usage.estimated == (not complete or expected.failure is not None), name
        assert usage.cost_usd == pytest.approx(cost_usd(usage)), name


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_each_answer_reaches_the_caller_as_it_is(provider: str) -> None:
    """The request is exactly the expected one; text, reasoning, calls, usage, cost and end are those of the corpus."""
    chosen = [sample for sample in samples() if sample.provider == provider]
    async with ScriptedUpstream(*(script_of(sample) for sample in chosen)) as upstream:
        toml = "\n".join(toml_of(number, sample, upstream.base_url) for number, sample in enumerate(chosen))
        async with running(config_of(toml, {"KEY": KEY})) as server:
            for number, sample in enumerate(chosen):
                told, usages = await by_the_server(server, f"p{number}", ASKED.get(sample.name, GREETING))
                expected = by_the_corpus(sample)
                check_request(sample, upstream.connections[number].requests[0])
                assert (expected.failure or "") in (told.failure or ""), sample.name
                assert (expected.failure is None) == (told.failure is None), sample.name
                check_usages(expected, usages, name=sample.name)
                assert bool(usages) == bool(expected.usage or expected.text or expected.calls), sample.name
                told.failure, told.usage = expected.failure, expected.usage
                assert told == expected, sample.name
