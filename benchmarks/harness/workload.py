"""What is asked and answered: prompts of 1 kB, twenty endpoints, and answers of 50 pieces. All of it from the seed."""

from __future__ import annotations

import json
import random

from benchmarks.harness.cases import Case

PROMPT_BYTES = 1000
PROMPT_COUNT = 64
"""Different prompts, so that nothing can be remembered from one to the next."""
ECHO_BYTES = 500
CHUNK_COUNT = 50
PIECES = tuple(f" word{number:02d}" for number in range(CHUNK_COUNT))
"""The answer, a few bytes to a token as real ones have."""
ANSWER = "".join(PIECES)
UPSTREAM_PATH = "/v1/chat/completions"

VOCABULARY = """
the of and to in is that for it as with be by on not this are from at an which or have was its can has if but
one all when what there more about would how time they number function value between result each given write
explain compute show integral matrix string list sort search python sentence summary translate history river
energy force cell market price law proof theorem example step reason answer question short long first second
"""
"""Plain English, so that a prompt has about as many tokens as people's prompts of that length."""

FIRST_PARTY_MODELS = (
    ("gpt-4o", 2.5, 10.0), ("gpt-4o-mini", 0.15, 0.6), ("claude-3-5-sonnet", 3.0, 15.0), ("claude-3-5-haiku", 0.8, 4.0),
    ("gemini-1.5-pro", 1.25, 5.0), ("gemini-1.5-flash", 0.075, 0.3), ("mistral-large", 2.0, 6.0),
)  # fmt: skip
OPEN_MODELS = (
    ("llama-3.1-8b-instruct", 0.05, 0.08, 3), ("llama-3.1-70b-instruct", 0.59, 0.79, 3),
    ("llama-3.1-405b-instruct", 3.0, 3.0, 2), ("qwen2.5-72b-instruct", 0.9, 0.9, 2),
    ("mixtral-8x7b-instruct", 0.5, 0.5, 2), ("gemma-2-9b-it", 0.2, 0.2, 1),
)  # fmt: skip
"""With the number of providers that serve each: 13 models at 20 endpoints in all, about as a mixed catalog has them."""
ENDPOINT_COUNT = len(FIRST_PARTY_MODELS) + sum(provider_count for *_, provider_count in OPEN_MODELS)


def prompts(seed: int) -> tuple[str, ...]:
    """Different prompts of exactly `PROMPT_BYTES`."""
    rng = random.Random(seed)
    return tuple(
        " ".join(rng.choices(VOCABULARY.split(), k=PROMPT_BYTES // 2))[:PROMPT_BYTES] for _ in range(PROMPT_COUNT)
    )


def marked(prompt: str, case: Case) -> str:
    """A prompt of the same length that tells the upstream how to answer."""
    return f"[{case.value}] {prompt}"[:PROMPT_BYTES]


def router_config(upstream_port: int) -> str:
    """The server's configuration, in TOML: every endpoint is served by the upstream at that port."""
    origin = f"http://127.0.0.1:{upstream_port}/v1"
    lines = ['[server]\nlisten = "127.0.0.1:0"\n']
    lines += [
        f'[providers.{name}]\nadapter = "openai_compatible"\nbase_url = "{origin}"\n'
        for name in ("first", "open-1", "open-2", "open-3")
    ]
    lines += [
        _endpoint(model, "first", input_price, output_price) for model, input_price, output_price in FIRST_PARTY_MODELS
    ]
    lines += [
        # Prices differ a little among providers, as they do.
        _endpoint(model, f"open-{number}", input_price * (0.9 + 0.1 * number), output_price * (0.9 + 0.1 * number))
        for model, input_price, output_price, provider_count in OPEN_MODELS
        for number in range(1, provider_count + 1)
    ]
    return "\n".join(lines)


def _endpoint(model: str, provider: str, input_price: float, output_price: float) -> str:
    return (
        f'[[endpoints]]\nmodel = "{model}"\nprovider = "{provider}"\n'
        f"input_price_usd_per_mtok = {input_price:.4f}\noutput_price_usd_per_mtok = {output_price:.4f}\n"
        "context_token_count_max = 128_000\noutput_token_count_max = 8_192\n"
    )


def upstream_request(prompt: str, *, streamed: bool) -> bytes:
    """What the router sends upstream, for callers who do without it."""
    body: dict[str, object] = {"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": streamed}
    if streamed:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body, separators=(",", ":")).encode()
