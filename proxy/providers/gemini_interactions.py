"""Google's interactions: one POST with the model in its body, whole or as server-sent events."""

import re

from pricing.usage import RequestSize, Usage
from proxy.errors import Refusal
from proxy.providers import requests as rq
from proxy.providers.base import Facts, Reading, Route
from proxy.providers.fields import (
    MODEL_CHARS_MAX,
    as_count,
    as_dict,
    as_list,
    as_text,
    consistent,
    error_name,
)
from proxy.providers.meters import PARSE, SKIP, decode, text_bytes
from proxy.sse import event_data

_INLINE = frozenset(("text", "thought", "function_call", "function_result"))
_CLIENT_TOOLS = frozenset(("function", "computer_use"))
_LAST = "interaction.completed"
_is_reasoning = re.compile(r"gemini-(?:2\.5|[3-9])|thinking|gemini-(?:flash|pro)-latest").search
_search_usage = re.compile(rb'"usage"\s*:\s*\{').search
_search_read = re.compile(rb'"error"\s*:\s*\{|google_search_call|google_maps_call').search


def interaction_facts(route: Route, body: bytes) -> Facts:
    """Agents and work in the background have no bound that is known before they end."""
    parsed = rq.parse_body(body)
    if parsed.get("agent") is not None or parsed.get("background"):
        raise Refusal(
            "route_not_metered",
            "interactions with an agent or in the background are not supported: nothing bounds "
            "what they cost. Send `model`, without `background`.",
        )
    model = rq.checked_model(parsed.get("model")).removeprefix("models/")
    size = RequestSize(len(body))
    facts = Facts(route, model, rq.checked_flag(parsed, "stream"), size, parsed)
    config = as_dict(parsed.get("generation_config"))
    size.output_limit = rq.checked_count(config, "max_output_tokens", least=0) or None
    size.windowed = parsed.get("previous_interaction_id") is not None
    facts.reasoning = _is_reasoning(model) is not None
    tier = parsed.get("service_tier")
    size.service_tier = tier.lower() if type(tier) is str else ""
    _scan_input(parsed.get("input"), size)
    for tool in as_list(parsed.get("tools")):
        kind = as_text(as_dict(tool).get("type"))
        if kind not in _CLIENT_TOOLS:
            size.tool_windows = rq.NO_OWN_BOUND
            if kind not in ("code_execution", "url_context"):
                size.web_searches = rq.WEB_SEARCHES_DEFAULT
    return facts


def _scan_input(value: object, size: RequestSize) -> None:
    """Text, contents, or turns of contents; what is neither text nor inline takes the window."""
    stack = as_list(value) or [value]
    while stack:
        below: list[object] = []
        for part in stack:
            if type(part) is not dict:
                continue
            kind = as_text(part.get("type"))
            inner = part.get("content")
            if type(inner) is list:
                below.extend(inner)
            elif type(inner) is dict:
                below.append(inner)
            elif kind == "image" and "data" in part:
                size.inline_images += 1
            elif kind not in _INLINE and "text" not in part and type(inner) is not str:
                size.windowed = True
        stack = below


class InteractionReader:
    """The finished interaction carries the usage; earlier events only what it may become."""

    usage_key = b"usage"

    def __init__(self) -> None:
        self.finished = False
        self._usage: Usage | None = None
        self._model = self._id = self._error = ""
        self._queries: set[str] = set()
        self._maps = False

    def needs(self, block: bytes) -> int:
        return PARSE if _search_usage(block) or _search_read(block) else SKIP

    def ends(self, block: bytes) -> bool:
        return _LAST.encode() in block and any(
            as_dict(decode(data)).get("event_type") == _LAST for data in event_data(block)
        )

    def document(self, document: dict[str, object]) -> None:
        kind = as_text(document.get("event_type"))
        body = as_dict(document.get("interaction")) or document
        self._model = as_text(body.get("model"))[:MODEL_CHARS_MAX] or self._model
        self._id = as_text(body.get("id")) or self._id
        self._error = error_name(document.get("error")) or self._error
        if kind == _LAST:
            self.finished = True
        self._read_tools(document)
        if kind in ("", _LAST):
            usage = _counts(as_dict(body.get("usage")))
            if usage is not None:
                tier = as_text(body.get("service_tier")).lower()
                usage.service_tier = "" if tier == "standard" else tier
                self._usage = usage

    def _read_tools(self, document: dict[str, object]) -> None:
        """Searches by their queries, a set since events repeat them."""
        stack: list[object] = [document]
        while stack:
            value = stack.pop()
            if type(value) is list:
                stack.extend(value)
            elif type(value) is dict:
                if value.get("type") == "google_search_call":
                    for query in as_list(as_dict(value.get("arguments")).get("queries")):
                        self._queries.add(as_text(query))
                self._maps = self._maps or value.get("type") == "google_maps_call"
                stack.extend(value.values())

    def marker(self, data: bytes) -> None:
        """`[DONE]` follows the last event."""

    def fragment(self, usage: dict[str, object], model: str) -> None:
        self._usage = _counts(usage) or self._usage
        self._model = self._model or model

    def text_bytes(self, document: dict[str, object]) -> int:
        return text_bytes(document.get("delta") or document.get("outputs"))

    def reading(self) -> Reading:
        usage = self._usage
        if usage is not None:
            usage.units = {"web_search": n} if (n := len(self._queries - {""})) else {}
            if self._maps:
                usage.units["google_maps"] = 1
        return Reading(usage, self._model, self._id, self.finished, self._error)


def _counts(fields: dict[str, object]) -> Usage | None:
    """Thoughts are beside the output, tool input beside the input."""
    if "total_input_tokens" not in fields and "total_output_tokens" not in fields:
        return None
    thoughts = as_count(fields.get("total_thought_tokens"))
    read = _modalities(fields, "input_tokens_by_modality", "tool_use_tokens_by_modality")
    cached = _modalities(fields, "cached_tokens_by_modality")
    made = _modalities(fields, "output_tokens_by_modality")
    return consistent(
        Usage(
            input_tokens=as_count(fields.get("total_input_tokens"))
            + as_count(fields.get("total_tool_use_tokens")),
            output_tokens=as_count(fields.get("total_output_tokens")) + thoughts,
            cache_read_tokens=as_count(fields.get("total_cached_tokens")),
            reasoning_tokens=thoughts,
            input_audio_tokens=read.get("audio", 0),
            cache_read_audio_tokens=cached.get("audio", 0),
            output_audio_tokens=made.get("audio", 0),
            input_image_tokens=read.get("image", 0),
            cache_read_image_tokens=cached.get("image", 0),
            output_image_tokens=made.get("image", 0),
            input_video_tokens=read.get("video", 0),
        )
    )


def _modalities(fields: dict[str, object], *names: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        for entry in as_list(fields.get(name)):
            modality = as_text(as_dict(entry).get("modality")).lower()
            found[modality] = found.get(modality, 0) + as_count(as_dict(entry).get("tokens"))
    return found
