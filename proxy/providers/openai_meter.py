"""Readers of OpenAI's replies and those of compatible hosts: chat, completions, responses,
embeddings. Where hosts differ the arithmetic of `total_tokens` decides, not the host's name.
"""

import re

from pricing.money import nano_from_atto
from pricing.usage import Usage
from proxy.providers.base import Reading
from proxy.providers.fields import (
    COUNT_MAX,
    MODEL_CHARS_MAX,
    as_count,
    as_dict,
    as_list,
    as_text,
    consistent,
    error_name,
    first_count,
    first_dict,
    nano_from_json,
)
from proxy.providers.image_tool import model_drawn_with
from proxy.providers.meters import (
    KEEP,
    PARSE,
    SKIP,
    decode,
    text_bytes,
)
from proxy.sse import event_data

ATTO_PER_TICK = 10**8  # xAI's cost_in_usd_ticks are 1e-10 USD

search_usage = re.compile(rb'"usage"\s*:\s*\{\s*"').search
_search_error = re.compile(rb'"error"\s*(?:[,}]|:\s*[{"])').search
_search_terminal = re.compile(rb"response\.(?:completed|incomplete|failed)").search
_search_item_done = re.compile(rb"response\.output_item\.done").search

_INPUT_DETAILS = (
    *("prompt_tokens_details", "input_tokens_details"),
    *("prompt_token_details", "input_token_details"),
)
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_INPUT_PARTS = {
    "cached_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "audio_tokens": "input_audio_tokens",
    "image_tokens": "input_image_tokens",
    "video_tokens": "input_video_tokens",
}
_OUTPUT_PARTS = {
    "reasoning_tokens": "reasoning_tokens",
    "audio_tokens": "output_audio_tokens",
    "image_tokens": "output_image_tokens",
}

# The usage block nearly every reply has: these keys and no others.
_STANDARD_KEYS = frozenset(
    (
        *("prompt_tokens", "completion_tokens", "total_tokens"),
        *("prompt_tokens_details", "completion_tokens_details"),
    )
)
_NO_DETAILS: dict[str, object] = {}
_SEARCH_KEYS = frozenset(
    (
        *("server_tool_use_details", "server_tool_use"),
        *("num_search_queries", "search_context_size", "citation_tokens"),
    )
)
_SEARCH_SIZES = frozenset(("low", "medium", "high"))

STANDARD_TIERS = frozenset(("", "auto", "default", "standard", "on_demand"))


def service_tier(value: object) -> str:
    """The echoed tier; "" for the standard one under any of its names."""
    if value is None or value == "default":
        return ""
    tier = as_text(value).lower()
    return "" if tier in STANDARD_TIERS else tier


def usage_from(block: dict[str, object]) -> Usage | None:
    """A `usage` object; None if it has no token count."""
    if _STANDARD_KEYS.issuperset(block):
        usage = _standard_usage(block)
        if usage is not None:
            return usage
    return _any_usage(block)


def _standard_usage(block: dict[str, object]) -> Usage | None:
    """The short way through `_any_usage`, for a block of `_STANDARD_KEYS` whose counts agree and
    whose only details are cached and reasoning tokens. None: it takes the long way."""
    prompt, completion = block.get("prompt_tokens"), block.get("completion_tokens")
    inputs = block.get("prompt_tokens_details") or _NO_DETAILS
    outputs = block.get("completion_tokens_details") or _NO_DETAILS
    if not (
        type(prompt) is int
        and type(completion) is int
        and prompt + completion == block.get("total_tokens")
        and type(inputs) is dict
        and type(outputs) is dict
    ):
        return None
    cached = reasoning = 0
    for name, value in inputs.items():
        if value:
            if name != "cached_tokens" or type(value) is not int:
                return None
            cached = value
    for name, value in outputs.items():
        if value:
            if name != "reasoning_tokens" or type(value) is not int:
                return None
            reasoning = value
    if 0 <= cached <= prompt <= COUNT_MAX and 0 <= reasoning <= completion <= COUNT_MAX:
        return Usage(prompt, completion, cached, reasoning_tokens=reasoning)
    return None


def _any_usage(block: dict[str, object]) -> Usage | None:
    prompt = first_count(block, "prompt_tokens", "input_tokens")
    completion = first_count(block, "completion_tokens", "output_tokens")
    total = first_count(block, "total_tokens")
    if prompt is None:  # embeddings of hosts that report a total only
        if completion is None and total is None:
            return None
        prompt = max(0, (total or 0) - (completion or 0))
        total = None
    usage = Usage(prompt, completion or 0, provider_cost_nano=_provider_cost(block))
    inputs = first_dict(block, *_INPUT_DETAILS)
    _set_parts(usage, inputs, _INPUT_PARTS)
    _set_parts(usage, first_dict(block, *_OUTPUT_DETAILS), _OUTPUT_PARTS)
    if "cached_tokens" not in inputs:  # DeepSeek, Mistral, Together
        cached = first_count(block, "prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens")
        usage.cache_read_tokens = cached or 0
    if "cached_tokens_details" in inputs:
        cached_parts = as_dict(inputs["cached_tokens_details"])
        usage.cache_read_audio_tokens = as_count(cached_parts.get("audio_tokens"))
        usage.cache_read_image_tokens = as_count(cached_parts.get("image_tokens"))
    if "reasoning_tokens" in block and not usage.reasoning_tokens:  # Perplexity
        usage.reasoning_tokens = as_count(block["reasoning_tokens"])
    if total is not None and completion is not None and total > prompt + completion:
        _add_hidden(usage, total - prompt - completion)
    return consistent(usage)


def _set_parts(usage: Usage, details: dict[str, object], parts: dict[str, str]) -> None:
    for name, value in details.items():
        if value and name in parts:
            setattr(usage, parts[name], as_count(value))


def _add_hidden(usage: Usage, hidden: int) -> None:
    """Tokens only `total_tokens` shows. Mistral leaves audio out of prompt_tokens, xAI reasoning
    out of completion_tokens; Gemini's compatible endpoint tells thoughts nowhere else."""
    if usage.input_audio_tokens == hidden:
        usage.input_tokens += hidden
        return
    usage.output_tokens += hidden
    if usage.reasoning_tokens != hidden:
        usage.reasoning_tokens += hidden


def _provider_cost(block: dict[str, object]) -> int | None:
    """The provider's own figure. 0 is one only from OpenRouter, and not where the caller's own
    upstream key pays; Azure's Grok says 0 ticks on paid calls."""
    cost = block.get("cost")
    if type(cost) is dict:
        return nano_from_json(cost.get("total_cost"))
    if cost is not None:
        nano = nano_from_json(cost)
        return None if nano == 0 and block.get("is_byok") is True else nano
    ticks = as_count(block.get("cost_in_usd_ticks"))
    return nano_from_atto(ticks * ATTO_PER_TICK) or None


class ChatReader:
    """chat.completions, completions and embeddings: the last usage anywhere in the reply wins."""

    usage_key = b"usage"

    def __init__(self, *, choices: int = 1, searches: bool = False) -> None:
        self.finished = False
        self._choices = choices
        self._searches = searches  # the request always searches the web, unreported
        self._usage: Usage | None = None
        self._model = self._id = self._tier = self._error = ""

    def needs(self, block: bytes) -> int:
        if _search_error(block):
            return PARSE
        if search_usage(block):
            return KEEP
        return SKIP

    def ends(self, block: bytes) -> bool:
        return b"[DONE]" in block and event_data(block)[-1:] == [b"[DONE]"]

    def document(self, document: dict[str, object]) -> None:
        get = document.get
        block = get("usage")
        if not block:
            block = as_dict(get("x_groq")).get("usage")
        self._model = as_text(get("model"))[:MODEL_CHARS_MAX] or self._model
        self._id = as_text(get("id")) or self._id
        error = get("error")
        if error:
            self._error = error_name(error)
        choices = as_list(get("choices"))
        if type(block) is dict:
            usage = usage_from(block)
            if usage is not None:
                self._usage = usage
                self._tier = as_text(block.get("service_tier")) or self._tier
                if self._searches or not _SEARCH_KEYS.isdisjoint(block):
                    usage.units = self._units(block)
                self.finished = self.finished or not choices
        self._tier = as_text(get("service_tier")) or self._tier
        if self._choices == 1 and choices and as_dict(choices[0]).get("finish_reason"):
            self.finished = True

    def _units(self, block: dict[str, object]) -> dict[str, int]:
        reported = first_dict(block, "server_tool_use_details", "server_tool_use")
        searches = first_count(reported, "web_search_requests")
        if searches is None:  # Perplexity
            searches = first_count(block, "num_search_queries")
        if searches is None:
            searches = int(self._searches or "search_context_size" in block)
        units = {}
        if searches:
            size = as_text(block.get("search_context_size")).lower()
            units[f"web_search@{size}" if size in _SEARCH_SIZES else "web_search"] = searches
        citations = as_count(block.get("citation_tokens"))
        if citations:
            units["citation_tokens"] = citations
        return units

    def marker(self, data: bytes) -> None:
        if data.strip() == b"[DONE]":
            self.finished = True

    def fragment(self, usage: dict[str, object], model: str) -> None:
        self._usage = usage_from(usage) or self._usage
        self._model = model or self._model

    def text_bytes(self, document: dict[str, object]) -> int:
        return text_bytes(document.get("choices"))

    def reading(self) -> Reading:
        usage, finished = self._usage, self.finished
        if usage is not None:
            usage.service_tier = service_tier(self._tier)
        partial = usage is not None and not finished
        return Reading(usage, self._model, self._id, finished, self._error, partial)


_TERMINAL = frozenset(("response.completed", "response.incomplete", "response.failed"))


class ResponsesReader:
    """responses and responses/compact: usage stands in the terminal event, tools in the items."""

    usage_key = b"usage"

    def __init__(self) -> None:
        self.finished = False
        self._usage: Usage | None = None
        self._model = self._id = self._error = ""
        self._items: dict[str, dict[str, object]] = {}

    def needs(self, block: bytes) -> int:
        if search_usage(block) or _search_error(block) or _search_item_done(block):
            return PARSE
        return SKIP

    def ends(self, block: bytes) -> bool:
        return _search_terminal(block) is not None and any(
            as_dict(decode(data)).get("type") in _TERMINAL for data in event_data(block)
        )

    def document(self, document: dict[str, object]) -> None:
        kind = as_text(document.get("type"))
        if kind == "response.output_item.done":
            self._item(document.get("item"))
        self._error = error_name(document.get("error")) or self._error
        if kind == "error":
            self._error = self._error or as_text(document.get("code"))[:64] or "error"
        body = as_dict(document.get("response")) or document
        self._model = as_text(body.get("model"))[:MODEL_CHARS_MAX] or self._model
        if not kind or kind.startswith("response."):
            self._id = as_text(body.get("id")) or self._id
        self._error = error_name(body.get("error")) or self._error
        for item in as_list(body.get("output")):
            self._item(item)
        block = body.get("usage")
        if type(block) is dict:
            self._read_usage(block, body)
        if kind in _TERMINAL:
            self.finished = True

    def _read_usage(self, block: dict[str, object], body: dict[str, object]) -> None:
        usage = usage_from(block)
        if usage is None:
            return
        usage.service_tier = service_tier(body.get("service_tier"))
        images = as_dict(as_dict(body.get("tool_usage")).get("image_gen"))
        drawn = usage_from(images)
        if drawn is not None and drawn.total_tokens:
            usage.passes = ((model_drawn_with(body), drawn),)
        self._usage = usage

    def _item(self, item: object) -> None:
        item = as_dict(item)
        kind = as_text(item.get("type"))
        if kind.endswith("_call") and kind not in ("function_call", "custom_tool_call"):
            self._items[as_text(item.get("id")) or str(len(self._items))] = item

    def _units(self) -> dict[str, int]:
        """Billable tool calls. A web search bills for searching, not for opening a page; code
        runs bill per container."""
        units: dict[str, int] = {}
        containers = set()
        for key, item in self._items.items():
            kind = as_text(item.get("type"))
            if kind == "code_interpreter_call":
                containers.add(as_text(item.get("container_id")) or key)
            elif kind == "web_search_call":
                action = as_dict(item.get("action")).get("type", "search")
                if action == "search":
                    units["web_search"] = units.get("web_search", 0) + 1
            elif kind in ("file_search_call", "image_generation_call"):
                name = kind.removesuffix("_call")
                units[name] = units.get(name, 0) + 1
        if containers:
            units["code_interpreter"] = len(containers)
        return units

    def marker(self, data: bytes) -> None:
        """Nothing but JSON is known here; some hosts add `[DONE]` after the terminal event."""

    def fragment(self, usage: dict[str, object], model: str) -> None:
        read = usage_from(usage)
        if read is not None:
            self._usage = read
            self._model = self._model or model
            self.finished = True  # only the terminal event carries usage

    def text_bytes(self, document: dict[str, object]) -> int:
        kind = as_text(document.get("type"))
        if kind:
            delta = as_text(document.get("delta")) if kind.endswith(".delta") else ""
            return 0 if "audio" in kind else len(delta.encode("utf-8", "replace"))
        return text_bytes(document.get("output"))

    def reading(self) -> Reading:
        if self._usage is not None:
            self._usage.units = self._units()
        return Reading(
            usage=self._usage,
            model=self._model,
            response_id=self._id,
            complete=self.finished,
            error=self._error,
        )
