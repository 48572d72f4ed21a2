"""What requests to Amazon Bedrock say of their size: converse, and each vendor's body of invoke."""

import re
from typing import NamedTuple

from pricing.usage import RequestSize
from proxy.errors import Refusal
from proxy.providers import requests as rq
from proxy.providers.anthropic import messages_facts
from proxy.providers.base import Facts
from proxy.providers.bedrock_meter import REQUESTED_TIER
from proxy.providers.fields import as_count, as_dict, as_list, as_text


class Family(NamedTuple):
    """Bodies of one vendor's models under invoke. Paths are dotted."""

    limits: tuple[str, ...] = ()  # where the output limit may stand; the first is the API's own
    choices: tuple[str, ...] = ()
    inputs: str = ""  # the list of texts of an embedding
    reasons: bool = False


ANTHROPIC = Family(("max_tokens",))
ANTHROPIC_LEGACY = Family(("max_tokens_to_sample",))  # a `prompt` in place of `messages`
NOVA = Family(("inferenceConfig.max_new_tokens", "inferenceConfig.maxTokens"))
TITAN = Family(("textGenerationConfig.maxTokenCount",))
EMBEDDING = Family(inputs="texts")
META = Family(("max_gen_len",))
MISTRAL = Family(("max_tokens",), ("n",))
COHERE = Family(("max_tokens",), ("num_generations",))
AI21 = Family(("max_tokens", "maxTokens"), ("n", "numResults"))
OPENAI = Family(("max_completion_tokens", "max_tokens"), ("n",), reasons=True)

# vendor, then the model's name: the first match decides. What is not here has no meter: images,
# video, speech and reranking are not paid by token.
_FAMILIES: tuple[tuple[str, Family], ...] = (
    (r"anthropic\.", ANTHROPIC),
    (r"amazon\.nova-(?:2-)?(?:micro|lite|pro|premier)", NOVA),
    (r"amazon\.titan-text-", TITAN),
    (r"amazon\.titan-embed-(?:text|g1-text)-", EMBEDDING),
    (r"amazon\.nova-2-multimodal-embeddings", EMBEDDING),
    (r"cohere\.embed-", EMBEDDING),
    (r"cohere\.command-", COHERE),
    (r"meta\.", META),
    (r"mistral\.(?!voxtral)", MISTRAL),
    (r"ai21\.", AI21),
    (
        r"(?:openai|qwen|deepseek|minimax|moonshot|moonshotai|zai|nvidia|google|writer|xai)\.",
        OPENAI,
    ),
)
_REGION = r"(?:(?:us-gov|us|eu|apac|ap|jp|au|ca|in|sa|global)\.)?"
_families = [(re.compile(_REGION + pattern).match, family) for pattern, family in _FAMILIES]

# converse: where an output limit, choices and a budget for thinking may stand. Fields for the
# model itself may hold any vendor's names.
_EXTRA = "additionalModelRequestFields"
_CONVERSE_LIMITS = (
    "inferenceConfig.maxTokens",
    *dict.fromkeys(f"{_EXTRA}.{path}" for _, family in _FAMILIES for path in family.limits),
)
_CONVERSE_CHOICES = tuple(
    dict.fromkeys(f"{_EXTRA}.{path}" for _, family in _FAMILIES for path in family.choices)
)
_THINKING = tuple(
    f"{prefix}{name}.budget_tokens"
    for prefix in ("", f"{_EXTRA}.")
    for name in ("thinking", "reasoning_config")
)
_THINKING_TOKENS_MIN = 1024  # the API's own minimum
# Blocks whose tokens the bytes of the body bound.
_TEXT_BLOCKS = frozenset(
    (
        *("text", "toolUse", "reasoningContent", "cachePoint", "citationsContent", "searchResult"),
        *("json", "type", "cache_control"),
    )
)
_NESTING_BLOCKS = ("toolResult", "guardContent")


def family_of(model: str, body: dict[str, object]) -> Family:
    """How a model's body of invoke is read. Raises Refusal `route_not_metered`."""
    for match, family in _families:
        if match(model):
            legacy = family is ANTHROPIC and "messages" not in body
            return ANTHROPIC_LEGACY if legacy else family
    raise Refusal(
        "route_not_metered",
        f"The body that '{model}' takes under invoke is not known here, so its cost could not be "
        "bounded. Use converse; or, for an inference profile, name the model behind it under "
        "`models` of the provider.",
        {"model": model},
    )


def read(body: dict[str, object], path: str) -> object:
    """The value at a dotted path; None if there is none."""
    value: object = body
    for name in path.split("."):
        value = as_dict(value).get(name)
    return value


def with_value(fields: dict[str, object], path: str, value: object) -> dict[str, object]:
    """A copy with the value at a dotted path."""
    name, dot, rest = path.partition(".")
    return {**fields, name: with_value(as_dict(fields.get(name)), rest, value) if dot else value}


def clamped(body: dict[str, object], limits: tuple[str, ...], clamp: int) -> dict[str, object]:
    """The top-level fields to set so that the output is at most `clamp`: every limit there is,
    else the API's own; and a budget for thinking, which the API wants below the limit."""
    used = [path for path in limits if read(body, path) is not None] or list(limits[:1])
    edited = body
    for path in used:
        edited = with_value(edited, path, clamp)
    for path in _THINKING:
        if as_count(read(body, path)) >= clamp:
            budget = max(_THINKING_TOKENS_MIN, clamp - _THINKING_TOKENS_MIN)
            edited = with_value(edited, path, budget)
    return {name: value for name, value in edited.items() if value is not body.get(name)}


def largest(body: dict[str, object], paths: tuple[str, ...]) -> int | None:
    """The largest count at these paths; None if none is set."""
    found = None
    for path in paths:
        parent, _, name = path.rpartition(".")
        fields = as_dict(read(body, parent)) if parent else body
        value = rq.checked_count(fields, name, least=0)
        if value is not None:
            found = max(found or 0, value)
    return found


# --- converse ------------------------------------------------------------------------------


def converse_facts(facts: Facts, body: dict[str, object]) -> None:
    size = facts.size
    for message in as_list(body.get("messages")):
        scan_blocks(as_dict(message).get("content"), size)
    scan_blocks(body.get("system"), size)
    size.output_limit = largest(body, converse_limits(body))
    extra = as_dict(body.get(_EXTRA))
    if extra:
        _additional_facts(facts, extra)
        size.choices = max(1, largest(body, _CONVERSE_CHOICES) or 1)
    for tool in as_list(as_dict(body.get("toolConfig")).get("tools")):
        if "systemTool" in as_dict(tool):
            raise unpriced("system tools")
    if as_dict(body.get("performanceConfig")).get("latency", "standard") != "standard":
        raise unpriced("latency-optimised inference")
    size.service_tier = as_text(as_dict(body.get("serviceTier")).get("type"))
    facts.provider_options[REQUESTED_TIER] = size.service_tier


def converse_limits(body: dict[str, object]) -> tuple[str, ...]:
    """Where this request may limit its output."""
    return _CONVERSE_LIMITS if body.get(_EXTRA) else _CONVERSE_LIMITS[:1]


def _additional_facts(facts: Facts, extra: dict[str, object]) -> None:
    thinking = as_dict(extra.get("thinking")).get("type", "disabled")
    named = ("reasoning_config", "reasoningConfig", "reasoning_effort", "output_config")
    facts.reasoning = thinking != "disabled" or any(name in extra for name in named)
    for tool in as_list(extra.get("tools")):
        if as_text(as_dict(tool).get("type")).startswith("web_"):
            raise unpriced("web tools")


def unpriced(what: str) -> Refusal:
    """For what is billed besides tokens."""
    return Refusal(
        "route_not_metered",
        f"Bedrock bills {what} at prices the price table does not have, so the cost could not be "
        "known. Send the request without.",
    )


def scan_blocks(blocks: object, size: RequestSize) -> None:
    """Count inline images; what is neither text nor an inline image is bounded by the window.
    Reads converse's blocks, and those of the vendors that are like them."""
    stack = [as_list(blocks)]
    while stack:
        for block in stack.pop():
            if type(block) is not dict:
                continue
            for name, value in block.items():
                if name in _NESTING_BLOCKS:
                    inner = as_dict(value)
                    stack.append(as_list(inner.get("content")))
                    stack.append([{key: inner[key]} for key in ("text", "image") if key in inner])
                elif name not in _TEXT_BLOCKS:
                    _scan_media(name, value, size)


def _scan_media(name: str, value: object, size: RequestSize) -> None:
    fields = as_dict(value)
    source = as_dict(fields.get("source"))
    if name == "image":
        inline = type(source.get("bytes")) is str
    else:
        inline = as_text(fields.get("url"))[:11].lower() == "data:image/"
    if inline:
        size.inline_images += 1
    elif name != "document" or not ("text" in source or "content" in source):
        size.windowed = True
    elif "content" in source:
        scan_blocks(source["content"], size)


# --- invoke --------------------------------------------------------------------------------


def invoke_facts(facts: Facts, body: dict[str, object], family: Family) -> None:
    size = facts.size
    if family is EMBEDDING:
        _embedding_facts(body, size)
        return
    if family is ANTHROPIC:
        messages_facts(facts, body, size)
    else:
        for message in as_list(body.get("messages")):
            scan_blocks(as_dict(message).get("content"), size)
        scan_blocks(body.get("system"), size)
        size.inline_images += len(as_list(body.get("images")))
        facts.reasoning = family.reasons or "reasoningConfig" in body
    size.output_limit = largest(body, family.limits)
    size.choices = largest(body, family.choices) or 1


def _embedding_facts(body: dict[str, object], size: RequestSize) -> None:
    size.generates = False
    size.inputs = max(1, len(as_list(body.get("texts"))), len(as_list(body.get("inputs"))))
    for item in as_list(body.get("inputs")):
        for part in as_list(as_dict(item).get("content")):
            if as_dict(part).get("type") != "text":
                raise unpriced("embeddings of images")
    params = as_dict(body.get("singleEmbeddingParams")) or body
    size.windowed = "source" in as_dict(params.get("text"))  # a text stored elsewhere
    for name in ("images", "inputImage", "image", "video", "audio"):
        if params.get(name):
            raise unpriced(f"embeddings of {name.removeprefix('input').lower()}")
