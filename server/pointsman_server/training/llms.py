"""Which names lead to which trained profile: a table to read and to argue with, not a guess.

`members` are the (source, model) pairs whose outcomes are fitted together, because they are the same weights; `aliases`
are other names of that same LLM; `stand_ins` are newer relatives without training data, which borrow its profile with a
wider interval. A pair that no entry names becomes a profile of its own under its normalised name.
"""

from __future__ import annotations

from dataclasses import dataclass

from pointsman_server.quality.model import normalised

Endpoint = tuple[str, str]


@dataclass(frozen=True, slots=True)
class KnownLlm:
    """One LLM, its measured endpoints and its names, all normalised."""

    model: str
    members: tuple[Endpoint, ...]
    aliases: tuple[str, ...] = ()
    stand_ins: tuple[str, ...] = ()


def _zero(*models: str) -> tuple[Endpoint, ...]:
    return tuple(("zeroeval", model) for model in models)


def _pro(*models: str) -> tuple[Endpoint, ...]:
    return tuple(("mmlu_pro", model) for model in models)


def _router(*models: str) -> tuple[Endpoint, ...]:
    return tuple(("llmrouter", model) for model in models)


KNOWN_LLMS: tuple[KnownLlm, ...] = (
    KnownLlm(
        "gpt-4o-2024-08-06",
        _zero("gpt-4o-2024-08-06"),
        aliases=("gpt-4o", "gpt-4o-latest"),
        stand_ins=("gpt-4o-2024-11-20", "gpt-4.1", "gpt-4.1-2025-04-14"),
    ),
    KnownLlm("chatgpt-4o-latest-24-09-07", _zero("chatgpt-4o-latest-24-09-07"), aliases=("chatgpt-4o-latest",)),
    KnownLlm(
        "gpt-4o-mini-2024-07-18",
        _zero("gpt-4o-mini-2024-07-18"),
        aliases=("gpt-4o-mini",),
        stand_ins=("gpt-4.1-mini", "gpt-4.1-nano", "gpt-5-nano"),
    ),
    KnownLlm("gpt-4-turbo-2024-04-09", _zero("gpt-4-turbo-2024-04-09"), aliases=("gpt-4-turbo",), stand_ins=("gpt-4-1106-preview",)),
    KnownLlm("gpt-4-0314", _zero("gpt-4-0314"), stand_ins=("gpt-4", "gpt-4-0613")),
    KnownLlm("gpt-3.5-turbo-0125", _zero("gpt-3.5-turbo-0125"), aliases=("gpt-3.5-turbo",)),
    KnownLlm(
        "o1-mini-2024-09-12",
        _zero("o1-mini-2024-09-12"),
        aliases=("o1-mini",),
        stand_ins=("o3-mini", "o4-mini", "gpt-5-mini", "gpt-oss-120b", "gemini-2.5-flash", "qwq-32b"),
    ),
    KnownLlm(
        "o1-preview-2024-09-12",
        _zero("o1-preview-2024-09-12"),
        aliases=("o1-preview",),
        stand_ins=(
            "o1", "o3", "gpt-5", "gpt-5.1", "gpt-5.2", "gemini-2.5-pro", "gemini-3-pro-preview", "deepseek-reasoner",
            "deepseek-r1", "claude-opus-4", "claude-opus-4-1", "claude-opus-4-5", "claude-sonnet-4-5", "grok-4",
        ),
    ),
    KnownLlm(
        "claude-3-5-sonnet-20241022",
        _zero("claude-3-5-sonnet-20241022"),
        aliases=("claude-3-5-sonnet", "claude-3-5-sonnet-latest", "claude-3.5-sonnet"),
        stand_ins=(
            "claude-3-7-sonnet", "claude-3-7-sonnet-20250219", "claude-3-7-sonnet-latest", "claude-3.7-sonnet",
            "claude-sonnet-4", "claude-sonnet-4-0", "claude-sonnet-4-20250514", "gpt-5-chat-latest",
        ),
    ),
    KnownLlm("claude-3-5-sonnet-20240620", _zero("claude-3-5-sonnet-20240620")),
    KnownLlm(
        "claude-3-5-haiku-20241022",
        _zero("claude-3-5-haiku-20241022"),
        aliases=("claude-3-5-haiku", "claude-3-5-haiku-latest", "claude-3.5-haiku"),
        stand_ins=("claude-haiku-4-5", "claude-haiku-4.5"),
    ),
    KnownLlm("claude-3-opus-20240229", _zero("claude-3-opus-20240229"), aliases=("claude-3-opus",)),
    KnownLlm("claude-3-sonnet-20240229", _zero("claude-3-sonnet-20240229"), aliases=("claude-3-sonnet",)),
    KnownLlm("claude-3-haiku-20240307", _zero("claude-3-haiku-20240307"), aliases=("claude-3-haiku",)),
    KnownLlm(
        "gemini-1.5-pro-002",
        _pro("gemini-1.5-pro-002"),
        stand_ins=("gemini-2.0-pro",),
    ),
    KnownLlm("gemini-1.5-pro-001", _zero("gemini-1.5-pro"), aliases=("gemini-1.5-pro",)),
    KnownLlm(
        "gemini-1.5-flash-002",
        _pro("gemini-1.5-flash-002"),
        stand_ins=("gemini-2.0-flash", "gemini-2.0-flash-001", "gemini-2.0-flash-lite", "gemini-2.5-flash-lite"),
    ),
    KnownLlm("gemini-1.5-flash-001", _zero("gemini-1.5-flash"), aliases=("gemini-1.5-flash",)),
    KnownLlm(
        "llama-3.1-8b-instruct",
        _pro("Meta-Llama-3_1-8B-Instruct") + _zero("Meta-Llama-3.1-8B-Instruct") + _router("llama-3.1-8b-instruct"),
        aliases=(
            "llama-3.1-8b", "meta-llama-3.1-8b-instruct", "meta-llama-3.1-8b-instruct-turbo", "llama-3.1-8b-instant",
            "llama-3-1-8b-instruct", "llama-v3p1-8b-instruct",
        ),
    ),
    KnownLlm(
        "llama-3.1-70b-instruct",
        _pro("Meta-Llama-3_1-70B-Instruct")
        + _zero("Meta-Llama-3.1-70B-Instruct", "Meta-Llama-3.1-70B-Instruct@hyperbolic"),
        aliases=(
            "llama-3.1-70b", "meta-llama-3.1-70b-instruct", "meta-llama-3.1-70b-instruct-turbo",
            "llama-3.1-70b-versatile", "llama-3-1-70b-instruct", "llama-v3p1-70b-instruct",
        ),
        stand_ins=(
            "llama-3.3-70b", "llama-3.3-70b-instruct", "llama-3.3-70b-instruct-turbo", "llama-3.3-70b-versatile",
            "llama-3-3-70b-instruct", "llama-v3p3-70b-instruct", "llama-4-scout", "llama-4-scout-17b-16e-instruct",
        ),
    ),
    KnownLlm(
        "llama-3.1-405b-instruct",
        _zero(
            "Llama-3.1-405B-Inst-fp8", "Llama-3.1-405B-Inst@sambanova", "Llama-3.1-405B-Instruct-Turbo",
            "Meta-Llama-3.1-405B-Instruct@hyperbolic",
        ),
        aliases=(
            "llama-3.1-405b", "meta-llama-3.1-405b-instruct", "meta-llama-3.1-405b-instruct-turbo",
            "llama-3-1-405b-instruct", "llama-v3p1-405b-instruct",
        ),
        stand_ins=("llama-4-maverick", "llama-4-maverick-17b-128e-instruct"),
    ),
    KnownLlm(
        "llama-3-70b-instruct",
        _zero("Meta-Llama-3-70B-Instruct"),
        aliases=("llama-3-70b", "meta-llama-3-70b-instruct", "llama3-70b-8192", "llama-3-70b-chat-hf"),
    ),
    KnownLlm(
        "llama-3-8b-instruct",
        _zero("Meta-Llama-3-8B-Instruct"),
        aliases=("llama-3-8b", "meta-llama-3-8b-instruct", "llama3-8b-8192", "llama-3-8b-chat-hf"),
        stand_ins=("llama-3.2-3b-instruct", "llama-3-2-3b-instruct"),
    ),
    KnownLlm(
        "mixtral-8x7b-instruct-v0.1",
        _pro("Mixtral-8x7B-Instruct-v0.1") + _zero("Mixtral-8x7B-Instruct-v0.1"),
        aliases=("mixtral-8x7b", "mixtral-8x7b-instruct", "open-mixtral-8x7b", "mixtral-8x7b-32768"),
    ),
    KnownLlm(
        "mistral-7b-instruct-v0.3",
        _router("mistral-7b-instruct-v0.3"),
        aliases=("mistral-7b", "mistral-7b-instruct", "open-mistral-7b"),
    ),
    KnownLlm(
        "mistral-large-2407",
        _zero("Mistral-Large-2"),
        aliases=("mistral-large-2", "mistral-large"),
        stand_ins=("mistral-large-2411", "mistral-large-latest", "mistral-medium-latest", "mistral-medium-3"),
    ),
    KnownLlm(
        "gemma-2-9b-it",
        _zero("gemma-2-9b-it") + _router("gemma-2-9b-it"),
        aliases=("gemma-2-9b", "gemma2-9b-it"),
        stand_ins=("mistral-small-latest",),
    ),
    KnownLlm(
        "gemma-2-27b-it",
        _zero("gemma-2-27b-it", "gemma-2-27b-it@together"),
        aliases=("gemma-2-27b",),
        stand_ins=("gemma-3-27b-it",),
    ),
    KnownLlm(
        "qwen2.5-7b-instruct",
        _zero("Qwen2.5-7B-Instruct") + _router("qwen2.5-7b-instruct"),
        aliases=("qwen2.5-7b", "qwen-2.5-7b-instruct", "qwen2.5-7b-instruct-turbo"),
    ),
    KnownLlm(
        "qwen2.5-72b-instruct",
        _zero("Qwen2.5-72B-Instruct"),
        aliases=("qwen2.5-72b", "qwen-2.5-72b-instruct", "qwen2.5-72b-instruct-turbo"),
        stand_ins=("qwen3-235b-a22b", "qwen3-235b-a22b-2507", "qwen3-32b", "qwen3-next-80b-a3b-instruct"),
    ),
    KnownLlm(
        "qwen2.5-32b-instruct",
        _zero("Qwen2.5-32B-Instruct"),
        aliases=("qwen2.5-32b", "qwen-2.5-32b-instruct"),
        stand_ins=("qwen2.5-coder-32b-instruct", "qwen-2.5-coder-32b-instruct"),
    ),
    KnownLlm("qwen2-72b-instruct", _zero("Qwen2-72B-Instruct"), aliases=("qwen2-72b", "qwen-2-72b-instruct")),
    KnownLlm(
        "phi-3-mini-4k-instruct",
        _pro("Phi-3-mini-4k-instruct") + _zero("Phi-3-mini-4k-instruct"),
        aliases=("phi-3-mini",),
    ),
    KnownLlm("phi-3.5-mini-instruct", _zero("Phi-3.5-mini-instruct"), aliases=("phi-3.5-mini",)),
    KnownLlm(
        "deepseek-v2.5-0908",
        _zero("deepseek-v2.5-0908"),
        aliases=("deepseek-v2.5",),
        stand_ins=("deepseek-chat", "deepseek-v3", "deepseek-v3.1", "deepseek-v3.2", "deepseek-chat-v3-0324"),
    ),
    KnownLlm(
        "deepseek-coder-v2-0724",
        _zero("DeepSeek-Coder-V2-0724", "deepseek-v2-coder-0724"),
        stand_ins=("deepseek-coder", "codestral-latest"),
    ),
    KnownLlm("deepseek-coder-v2", _pro("DeepSeek-Coder-V2"), aliases=("deepseek-coder-v2-instruct",)),
    KnownLlm("grok-2-1212", _zero("grok-2-1212"), aliases=("grok-2",), stand_ins=("grok-3", "grok-3-mini")),
    KnownLlm("command-r-v01", _pro("c4ai-command-r-v01"), aliases=("command-r", "command-r-03-2024")),
    KnownLlm("jamba-1.5-large", _pro("jamba-1.5-large")),
    KnownLlm(
        "llama-3.3-nemotron-super-49b-v1",
        _router("llama-3.3-nemotron-super-49b-v1"),
        aliases=("llama-3.3-nemotron-super-49b",),
    ),
)  # fmt: skip


def llm_of(endpoint: Endpoint) -> KnownLlm:
    """The entry of the table that names this endpoint, or one made of its normalised name.

    Where that name is taken already by an entry, the source is added, so that two LLMs never share a name.
    """
    for llm in KNOWN_LLMS:
        if endpoint in llm.members:
            return llm
    source, model = endpoint
    name = normalised(model)
    return KnownLlm(f"{name}.{source}" if name in _TAKEN else name, (endpoint,))


_TAKEN = frozenset(name for llm in KNOWN_LLMS for name in (llm.model, *llm.aliases, *llm.stand_ins))
