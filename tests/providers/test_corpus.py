"""The recorded shapes of every provider's answers: what comes of each, however it is cut."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from pointsman_server.chat import Conversation, Message, Role, TextPart, UpstreamEvent
from pointsman_server.errors import UpstreamError, UpstreamStatusError
from pointsman_server.providers.base import UpstreamCall
from pointsman_server.providers.sse import SseEvent, SseParser
from providers.corpus import FOLDER, PROVIDERS, Sample, golden, samples, written

CALL = UpstreamCall(
    upstream_model="m",
    conversation=Conversation((Message(Role.USER, (TextPart("hi"),)),)),
    output_token_count_max=100,
)
STREAMS = [sample for sample in samples() if sample.is_stream]
WHOLE = [sample for sample in samples() if not sample.is_stream and sample.error_status is None]
ERRORS = [sample for sample in samples() if sample.error_status is not None]


def named(sample: Sample) -> str:
    """For the test's id."""
    return sample.name


def parsed(pieces: Iterable[bytes]) -> list[SseEvent]:
    """The server-sent events of a stream that arrives in these pieces."""
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def decoded(sample: Sample, events: Iterable[SseEvent]) -> str:
    """What comes of a stream of these events that then ends."""
    decoder, given = sample.wire.decoder(CALL), list[UpstreamEvent]()
    try:
        for event in events:
            given += decoder.events_of(event.data)
            if decoder.ended:
                return written(given, None)
        given += decoder.end()
    except UpstreamError as failure:
        return written(given, failure)
    return written(given, None)


@pytest.mark.parametrize("sample", STREAMS, ids=named)
def test_a_stream_gives_its_events(sample: Sample) -> None:
    """Each documented event becomes ours: text, reasoning, calls with their signatures, usage, and the end or failure."""
    content = decoded(sample, parsed([sample.body]))
    assert golden(sample.events_path, content) == content


@pytest.mark.parametrize("sample", STREAMS, ids=named)
def test_a_stream_that_is_cut_anywhere_gives_the_same(sample: Sample) -> None:
    """Cut in two at every byte, and byte by byte, it is the same events."""
    body = sample.body
    whole = parsed([body])
    for cut in range(len(body)):
        assert parsed([body[:cut], body[cut:]]) == whole
    bytewise = parsed(bytes([byte]) for byte in body)
    assert decoded(sample, bytewise) == decoded(sample, whole)


@pytest.mark.parametrize("sample", WHOLE, ids=named)
def test_a_whole_answer_gives_its_events(sample: Sample) -> None:
    """The same kinds of events as of a stream, `Finished` last; or the error that stands in its place."""
    try:
        content = written(sample.wire.answer_events(CALL, sample.body), None)
    except UpstreamError as failure:
        content = written((), failure)
    assert golden(sample.events_path, content) == content


@pytest.mark.parametrize("sample", ERRORS, ids=named)
def test_an_error_answer_tells_its_code_and_when_to_come_back(sample: Sample) -> None:
    """And nothing of what it says in words, which may quote the prompt."""
    assert sample.error_status is not None
    said = sample.wire.error_answer(sample.body)
    failure = UpstreamStatusError(
        sample.error_status, retry_after_s=said.retry_after_s, detail=said.code, kind=said.kind
    )
    content = written((), failure)
    assert golden(sample.events_path, content) == content
    assert "diary" not in content


@pytest.mark.parametrize("sample", [*STREAMS, *WHOLE], ids=named)
def test_no_failure_quotes_the_provider(sample: Sample) -> None:
    """What a provider says in words stays with it."""
    assert "diary" not in sample.events_path.read_text(encoding="utf-8")


def test_every_provider_has_a_corpus_and_every_file_a_use() -> None:
    """Each dialect and each format of its own; each expectation belongs to an answer."""
    assert set(PROVIDERS) == {"anthropic", "gemini", "openai", "azure", "vllm", "openrouter", "groq", "mistral"} | {
        "deepseek",
        "together",
        "ollama",
    }
    used = {path for sample in samples() for path in (sample.path, sample.events_path, sample.request_path)}
    greetings = {"greeting.request", "greeting_whole.request"}
    assert [path for path in FOLDER.rglob("*.*") if path not in used and path.name not in greetings] == []
