"""What is read off a conversation, and what its tokens cost: estimates that only ever grow with what is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.chat import (
    Conversation,
    ImageDetail,
    ImagePart,
    Message,
    Part,
    ReasoningEffort,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    SamplingOptions,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)
from pointsman_server.decision.cost import cost_usd, expected_costs_usd
from pointsman_server.decision.estimate import drafts_of
from pointsman_server.decision.facts import (
    IMAGE_TOKEN_COUNT,
    MESSAGE_TOKEN_COUNT,
    estimated_token_count,
    request_facts,
    request_features,
)
from pointsman_server.decision.types import (
    Capability,
    Endpoint,
    QualityPrediction,
    RequestFacts,
    RequestFeature,
    RuntimeSnapshot,
)

WEATHER = Tool("weather", "The weather at a place", '{"type": "object"}')
IMAGE = ImagePart(url="https://example.org/harbour.jpg")

parts: st.SearchStrategy[Part] = st.builds(TextPart, st.text(max_size=60)) | st.just(IMAGE)
messages = st.builds(
    Message,
    role=st.sampled_from(list(Role)),
    parts=st.lists(parts, max_size=3).map(tuple),
    tool_calls=st.lists(
        st.builds(ToolCall, id=st.just("1"), name=st.just("f"), arguments_json=st.text()), max_size=2
    ).map(tuple),
)
conversations = st.builds(
    Conversation,
    messages=st.lists(messages, min_size=1, max_size=5).map(tuple),
    tools=st.lists(st.builds(Tool, name=st.just("f"), description=st.text(max_size=40)), max_size=2).map(tuple),
)

token_counts = st.floats(0.0, 1e6)
prices = st.floats(0.0, 1e4)
ROUNDING = 1.0 + 1e-12
"""Room for the last bits: sums of products may round either way."""


def priced(input_price: float | None, output_price: float | None, cached_price: float | None = None) -> Endpoint:
    """An endpoint with these list prices, USD per million tokens."""
    return Endpoint("m", "p", input_price, output_price, cached_price)


endpoints_with_cheaper_cache = st.builds(
    lambda input_price, output_price, share: priced(input_price, output_price, share * input_price),
    prices,
    prices,
    st.floats(0.0, 1.0),
)


def ask(*content: Part) -> Conversation:
    """A conversation of one turn of the user."""
    return Conversation((Message(Role.USER, content),))


def token_count(conversation: Conversation) -> int:
    """The estimated tokens of a conversation."""
    return request_facts(conversation).input_token_count


@pytest.mark.parametrize(
    ("text", "text_token_count"),
    [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("x" * 4000, 1000), ("日本語です", 4), ("😀", 1)],
)
def test_four_bytes_are_a_token_and_a_turn_costs_its_frame(text: str, text_token_count: int) -> None:
    """Text counts by its UTF-8 bytes, whatever the language, rounded up; each turn adds what chat templates add."""
    assert token_count(ask(TextPart(text))) == MESSAGE_TOKEN_COUNT + text_token_count


@given(conversations, messages)
def test_a_further_turn_never_lowers_the_estimate(conversation: Conversation, message: Message) -> None:
    """A longer conversation has more tokens: at least those of the turn's frame."""
    longer = replace(conversation, messages=(*conversation.messages, message))
    assert token_count(longer) >= token_count(conversation) + MESSAGE_TOKEN_COUNT


@given(conversations, st.text(), st.text())
def test_more_text_never_lowers_the_estimate(conversation: Conversation, text: str, more: str) -> None:
    """A text that goes on counts at least as much as its beginning."""
    shorter = Message(Role.USER, (TextPart(text),))
    longer = Message(Role.USER, (TextPart(text + more),))
    assert token_count(replace(conversation, messages=(*conversation.messages, shorter))) <= token_count(
        replace(conversation, messages=(*conversation.messages, longer))
    )


@given(conversations)
def test_an_image_counts_and_needs_an_endpoint_that_can_look(conversation: Conversation) -> None:
    """Each image adds its tokens, and makes image input a capability that the request needs."""
    shown = replace(conversation, messages=(*conversation.messages, Message(Role.USER, (IMAGE,))))
    facts = request_facts(shown)
    assert facts.input_token_count == token_count(conversation) + MESSAGE_TOKEN_COUNT + IMAGE_TOKEN_COUNT
    assert Capability.IMAGE_INPUT in facts.capabilities


@pytest.mark.parametrize("mode", list(ToolChoiceMode))
def test_tools_count_and_need_an_endpoint_that_can_call_them_unless_none_may_be_called(mode: ToolChoiceMode) -> None:
    """The definitions are part of the prompt in any mode; the capability is needed only where a call is allowed."""
    plain = ask(TextPart("Is it raining?"))
    facts = request_facts(replace(plain, tools=(WEATHER,), tool_choice=ToolChoice(mode)))
    assert facts.input_token_count > token_count(plain)
    assert facts.capabilities == (frozenset() if mode is ToolChoiceMode.NONE else {Capability.TOOLS})


def test_calls_of_tools_in_the_conversation_count() -> None:
    """The arguments of earlier calls are sent again, so they cost again."""
    call = ToolCall("1", "weather", '{"place": "the harbour of Hamburg"}')
    assert token_count(Conversation((Message(Role.ASSISTANT, tool_calls=(call,)),))) > MESSAGE_TOKEN_COUNT


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ResponseFormatKind.TEXT, frozenset()),
        (ResponseFormatKind.JSON_OBJECT, frozenset({Capability.JSON_OBJECT})),
        (ResponseFormatKind.JSON_SCHEMA, frozenset({Capability.JSON_SCHEMA})),
    ],
)
def test_a_response_format_needs_an_endpoint_that_promises_it(
    kind: ResponseFormatKind, expected: frozenset[Capability]
) -> None:
    """Text needs nothing, each kind of JSON its own capability."""
    conversation = replace(ask(TextPart("List them.")), response_format=ResponseFormat(kind))
    assert request_facts(conversation).capabilities == expected


@given(conversations, st.none() | st.integers(1, 100_000))
def test_the_limit_on_the_answer_is_the_callers_own(conversation: Conversation, limit: int | None) -> None:
    """What the caller allows is passed on as it is, absence included."""
    sampling = SamplingOptions(output_token_count_max=limit)
    assert request_facts(replace(conversation, sampling=sampling)).output_token_count_max == limit


@given(conversations)
def test_the_order_of_turns_does_not_matter(conversation: Conversation) -> None:
    """The facts are sums and unions: turned around, the conversation has the same, but for whether the system speaks late."""
    turned = replace(conversation, messages=conversation.messages[::-1], tools=conversation.tools[::-1])
    late = frozenset({RequestFeature.LATE_SYSTEM_TURNS})
    facts, facts_turned = request_facts(conversation), request_facts(turned)
    assert replace(facts_turned, features=facts.features) == facts
    assert facts_turned.features - late == facts.features - late


def test_facts_keep_nothing_of_the_prompt() -> None:
    """What a decision is made of, and may log, holds numbers and capabilities only."""
    conversation = replace(ask(TextPart("a secret"), IMAGE), tools=(WEATHER,))
    assert repr(request_facts(conversation)) == repr(
        RequestFacts(
            input_token_count=token_count(conversation),
            capabilities=request_facts(conversation).capabilities,
            features=frozenset({RequestFeature.IMAGE_URLS}),
        )
    )


SYSTEM = Message(Role.SYSTEM, (TextPart("Be brief."),))
USER = Message(Role.USER, (TextPart("hi"),))
FEATURES: list[tuple[Conversation, RequestFeature]] = [
    (Conversation((USER,), sampling=SamplingOptions(top_k=1)), RequestFeature.TOP_K),
    (Conversation((USER,), sampling=SamplingOptions(seed=0)), RequestFeature.SEED),
    (Conversation((USER,), sampling=SamplingOptions(presence_penalty=-0.5)), RequestFeature.PENALTIES),
    (Conversation((USER,), sampling=SamplingOptions(frequency_penalty=0.5)), RequestFeature.PENALTIES),
    (Conversation((USER,), sampling=SamplingOptions(temperature=0.0)), RequestFeature.TEMPERATURE),
    (Conversation((USER,), sampling=SamplingOptions(top_p=0.9)), RequestFeature.TOP_P),
    (
        Conversation((USER,), sampling=SamplingOptions(reasoning_effort=ReasoningEffort.MINIMAL)),
        RequestFeature.MINIMAL_REASONING,
    ),
    (
        Conversation((USER,), tools=(WEATHER,), tool_choice=ToolChoice(ToolChoiceMode.NONE)),
        RequestFeature.FORBIDDEN_TOOL_CALL,
    ),
    (
        Conversation((USER,), tools=(WEATHER,), tool_choice=ToolChoice(ToolChoiceMode.REQUIRED)),
        RequestFeature.FORCED_TOOL_CALL,
    ),
    (
        Conversation((USER,), tools=(WEATHER,), tool_choice=ToolChoice(ToolChoiceMode.NAMED, "weather")),
        RequestFeature.FORCED_TOOL_CALL,
    ),
    (
        Conversation((USER,), tools=(WEATHER,), sampling=SamplingOptions(parallel_tool_calls=False)),
        RequestFeature.SINGLE_TOOL_CALL,
    ),
    (Conversation((USER,), tools=(replace(WEATHER, strict=True),)), RequestFeature.STRICT_TOOLS),
    (
        Conversation((USER,), response_format=ResponseFormat(ResponseFormatKind.JSON_OBJECT)),
        RequestFeature.JSON_OBJECT,
    ),
    (Conversation((replace(USER, name="Ann"),)), RequestFeature.SPEAKER_NAMES),
    (Conversation((USER, SYSTEM)), RequestFeature.LATE_SYSTEM_TURNS),
    (ask(IMAGE), RequestFeature.IMAGE_URLS),
    (ask(ImagePart(content=b"x", media_type="image/png", detail=ImageDetail.LOW)), RequestFeature.IMAGE_DETAIL),
    (
        Conversation((Message(Role.SYSTEM, (ImagePart(content=b"x", media_type="image/png"),)), USER)),
        RequestFeature.SYSTEM_IMAGES,
    ),
    (
        Conversation((Message(Role.TOOL, (ImagePart(content=b"x", media_type="image/png"),), tool_call_id="1"),)),
        RequestFeature.TOOL_RESULT_IMAGES,
    ),
]


@pytest.mark.parametrize(("conversation", "feature"), FEATURES)
def test_each_thing_that_not_everyone_can_do_is_a_feature(conversation: Conversation, feature: RequestFeature) -> None:
    """What asks for one thing has that feature alone."""
    assert request_features(conversation) == {feature}
    assert request_facts(conversation).features == {feature}


def test_every_feature_is_found_in_some_request() -> None:
    """No feature is a word without meaning."""
    assert {feature for _, feature in FEATURES} | {RequestFeature.TEMPERATURE_ABOVE_ONE} == set(RequestFeature)
    hot = Conversation((USER,), sampling=SamplingOptions(temperature=1.01))
    assert request_features(hot) == {RequestFeature.TEMPERATURE, RequestFeature.TEMPERATURE_ABOVE_ONE}


def test_what_everyone_can_do_is_no_feature() -> None:
    """The usual options, zero penalties, parallel calls and options of tools that are not there ask nothing of anyone."""
    usual = SamplingOptions(
        temperature=1.0,
        top_p=1.0,
        output_token_count_max=7,
        stop=("a",),
        presence_penalty=0.0,
        frequency_penalty=0.0,
        parallel_tool_calls=True,
    )
    assert request_features(Conversation((SYSTEM, SYSTEM, USER), tools=(WEATHER,), sampling=usual)) == frozenset()
    alone = SamplingOptions(parallel_tool_calls=False)
    assert request_features(Conversation((USER,), sampling=alone)) == frozenset()


def test_an_effort_of_reasoning_needs_an_endpoint_that_reasons() -> None:
    """Without one the effort would mean nothing."""
    conversation = replace(ask(TextPart("Why?")), sampling=SamplingOptions(reasoning_effort=ReasoningEffort.HIGH))
    assert request_facts(conversation).capabilities == {Capability.REASONING}


@given(st.integers(0, 10**7), st.integers(0, 10**4))
def test_a_longer_answer_never_has_fewer_tokens(character_count: int, more: int) -> None:
    """The estimate of an uncounted answer grows with it, and is 0 for nothing alone."""
    assert estimated_token_count(character_count + more) >= estimated_token_count(character_count)
    assert (estimated_token_count(character_count) == 0) == (character_count == 0)


def test_a_call_costs_its_tokens_at_list_price() -> None:
    """A million tokens of each kind cost their prices together."""
    endpoint = priced(2.0, 8.0, 0.5)
    assert cost_usd(endpoint, input_token_count=2e6, output_token_count=1e6) == 12.0
    assert cost_usd(endpoint, input_token_count=2e6, output_token_count=1e6, cached_input_token_count=1e6) == 10.5


@pytest.mark.parametrize("endpoint", [priced(None, 8.0, 0.5), priced(2.0, None, 0.5), priced(None, None)])
def test_an_unknown_price_makes_an_unknown_cost(endpoint: Endpoint) -> None:
    """A cost that lacks a price is unknown: neither zero nor the sum of what is known."""
    assert cost_usd(endpoint, input_token_count=10, output_token_count=10, cached_input_token_count=10) is None


@given(endpoints_with_cheaper_cache, token_counts, token_counts, token_counts)
def test_cached_tokens_never_cost_more_than_uncached_ones(
    endpoint: Endpoint, input_count: float, output_count: float, cached_count: float
) -> None:
    """Where the cache is at most as dear as input, reading from it only saves, and never below nothing."""
    uncached = cost_usd(endpoint, input_token_count=input_count, output_token_count=output_count)
    cached = cost_usd(
        endpoint,
        input_token_count=input_count,
        output_token_count=output_count,
        cached_input_token_count=cached_count,
    )
    assert uncached is not None
    assert cached is not None
    assert 0.0 <= cached <= uncached * ROUNDING


@given(token_counts, token_counts, prices, prices)
def test_an_unpriced_cache_costs_what_input_costs(
    input_count: float, cached_count: float, input_price: float, output_price: float
) -> None:
    """Without a price of its own, a cached token is an input token."""
    endpoint = priced(input_price, output_price)
    plain = cost_usd(endpoint, input_token_count=input_count, output_token_count=7)
    cached = cost_usd(
        endpoint, input_token_count=input_count, output_token_count=7, cached_input_token_count=cached_count
    )
    assert cached == pytest.approx(plain)


@given(endpoints_with_cheaper_cache, token_counts, token_counts, token_counts)
def test_more_tokens_never_cost_less(endpoint: Endpoint, input_count: float, output_count: float, more: float) -> None:
    """Cost grows with input and with output."""
    cost = cost_usd(endpoint, input_token_count=input_count, output_token_count=output_count)
    dearer = cost_usd(endpoint, input_token_count=input_count + more, output_token_count=output_count + more)
    assert cost is not None
    assert dearer is not None
    assert cost <= dearer * ROUNDING


@given(endpoints_with_cheaper_cache, token_counts, token_counts)
def test_no_more_than_the_input_can_be_cached(endpoint: Endpoint, input_count: float, more: float) -> None:
    """A provider that reports more cached tokens than input is read as having cached all of it."""
    all_cached = cost_usd(
        endpoint, input_token_count=input_count, output_token_count=7, cached_input_token_count=input_count
    )
    assert all_cached == cost_usd(
        endpoint, input_token_count=input_count, output_token_count=7, cached_input_token_count=input_count + more
    )


@given(
    st.lists(st.tuples(prices, prices, prices, st.none() | st.floats(0.0, 1e6), st.floats(0.0, 1e6)), max_size=5),
    st.floats(0.0, 1e6),
)
def test_what_many_calls_are_expected_to_cost_is_what_each_would_cost(
    calls: list[tuple[float | None, float | None, float | None, float | None, float]], input_count: float
) -> None:
    """The costs of all candidates at once are those of each by itself, cached input included; unknown where its length
    is."""
    endpoints = [Endpoint("m", f"p{number}", *of_call[:3]) for number, of_call in enumerate(calls)]
    counts = [count for *_, count, _ in calls]
    cached = [count for *_, count in calls]
    one_by_one = [
        None
        if count is None
        else cost_usd(
            endpoint, input_token_count=input_count, output_token_count=count, cached_input_token_count=cached_count
        )
        for endpoint, count, cached_count in zip(endpoints, counts, cached, strict=True)
    ]
    at_once = expected_costs_usd(
        endpoints, input_token_count=input_count, output_token_counts=counts, cached_input_token_counts=cached
    )
    assert at_once == one_by_one


def test_what_is_written_to_a_cache_has_a_price_of_its_own() -> None:
    """Of 100 tokens 40 are read from the cache and 50 written to it: each at its price, the other 10 at that of input."""
    endpoint = replace(priced(1.0, 2.0, 0.1), cache_write_price_usd_per_mtok=1.25)
    cost = cost_usd(
        endpoint,
        input_token_count=100,
        output_token_count=5,
        cached_input_token_count=40,
        cache_write_input_token_count=50,
    )
    assert cost == pytest.approx((40 * 0.1 + 50 * 1.25 + 10 * 1.0 + 5 * 2.0) / 1e6)


def test_without_a_price_of_its_own_a_cache_write_costs_what_input_costs() -> None:
    """It is a part of the input, however much of it a provider claims."""
    endpoint = priced(1.0, 2.0, 0.1)
    plain = cost_usd(endpoint, input_token_count=100, output_token_count=5)
    assert plain == pytest.approx(
        cost_usd(endpoint, input_token_count=100, output_token_count=5, cache_write_input_token_count=10**6)
    )


@pytest.mark.parametrize(("wanted", "first", "second"), [(None, 300.0, 100.0), (200, 200.0, 100.0), (50, 50.0, 50.0)])
def test_an_answer_is_expected_to_be_no_longer_than_it_may_be(wanted: int | None, first: float, second: float) -> None:
    """Of 300 expected tokens each endpoint gives as many as the caller wants and it can give, and that is what it costs."""
    endpoints = (Endpoint("m", "p", 1.0, 2.0), Endpoint("m", "q", 1.0, 2.0, output_token_count_max=100))
    facts = RequestFacts(input_token_count=10, output_token_count_max=wanted)
    drafts = drafts_of(endpoints, {"m": QualityPrediction(0.8, 0.1, 300.0)}, RuntimeSnapshot(), facts, {})
    assert drafts.output_token_counts == [first, second]
    assert drafts.costs_usd == pytest.approx([(10.0 + 2.0 * first) / 1e6, (10.0 + 2.0 * second) / 1e6])
