"""Anthropic's wire format: messages, token counts, legacy completions."""

import re

from msgspec import json

from pricing.usage import RequestSize, Usage
from proxy.errors import Refusal
from proxy.providers import anthropic_batches as batches
from proxy.providers import requests as rq
from proxy.providers.anthropic_batches import BATCHES
from proxy.providers.base import Facts, Meter, Reading, Route, Watcher
from proxy.providers.fields import (
    MODEL_CHARS_MAX,
    as_count,
    as_dict,
    as_list,
    as_text,
    consistent,
    first_count,
)
from proxy.providers.host import Host
from proxy.providers.meters import (
    PARSE,
    SKIP,
    EventMeter,
    JsonMeter,
    decode,
    is_event_stream,
    text_bytes,
)
from proxy.sse import event_data

HOST = Host("anthropic", "anthropic", "https://api.anthropic.com", ("ANTHROPIC_API_KEY",))

MESSAGES = Route("messages", "metered", "chat")
COMPLETE = Route("complete", "metered", "text_completion")

_POSTS: tuple[tuple[str, Route], ...] = (
    ("/messages", MESSAGES),
    ("/messages/count_tokens", Route("messages.count_tokens", "free")),
    ("/complete", COMPLETE),
    ("/messages/batches", BATCHES),
    ("/files", Route("files", "unmetered")),
    ("/skills", Route("skills", "unmetered")),
)
_EXAMPLES = ("/v1/models", "/v1/files/file_1")

_TEXT_BLOCKS = frozenset(
    (
        *("text", "thinking", "redacted_thinking", "compaction", "search_result"),
        *("tool_use", "server_tool_use", "mcp_tool_use", "tool_reference"),
        *("web_search_tool_result", "tool_search_tool_result", "code_execution_tool_result"),
        *("bash_code_execution_tool_result", "text_editor_code_execution_tool_result"),
    )
)
_NESTING_BLOCKS = frozenset(
    ("tool_result", "mcp_tool_result", "web_fetch_tool_result", "web_fetch_result")
)
# Tools the client runs; every other typed tool runs at Anthropic, in passes of its own.
_CLIENT_TOOLS = ("custom", "bash_", "text_editor_", "computer_", "memory_")
_BOUNDED_TOOLS = ("web_search_", "web_fetch_")  # `max_uses` bounds their passes
_THINKING_TOKENS_MIN = 1024  # the API's own minimum for `thinking.budget_tokens`

_search_usage = re.compile(rb'"usage"\s*:\s*\{\s*"').search
_search_error = re.compile(rb'"type"\s*:\s*"error"').search


class Anthropic:
    """The `anthropic` dialect."""

    name = "anthropic"
    credential_header = "x-api-key"
    spent_status = 429
    customer_fields = (("metadata", "user_id"),)

    def __init__(self, clamp_field: str = "") -> None:
        self.clamp_field = clamp_field or "max_tokens"

    # --- routes --------------------------------------------------------------------------

    def route(self, method: str, path: str) -> Route | None:
        found = rq.route_by_end(_POSTS, method, path)
        if found is rq.READ or found is rq.OTHER:
            return batches.watched_route(method, path) or found
        return found

    def routes(self) -> tuple[tuple[str, str, Route], ...]:
        return (*rq.route_table(_POSTS, "/v1", _EXAMPLES), *batches.EXAMPLES)

    # --- requests ------------------------------------------------------------------------

    def facts(self, route: Route, path: str, query: bytes, body: bytes) -> Facts:
        if route is BATCHES:
            return batches.batch_facts(route, body, lambda one: self.facts(MESSAGES, "", b"", one))
        parsed = rq.parse_body(body)
        model = rq.checked_model(parsed.get("model"))
        size = RequestSize(len(body))
        facts = Facts(route, model, rq.checked_flag(parsed, "stream"), size, parsed)
        tier = parsed.get("service_tier")
        if type(tier) is str:
            size.service_tier = tier
        if route is COMPLETE:
            size.output_limit = rq.checked_count(parsed, "max_tokens_to_sample", least=0)
            return facts
        messages_facts(facts, parsed, size)
        return facts

    def edit(self, facts: Facts, body: bytes, *, clamp: int | None, inject_usage: bool) -> bytes:
        if clamp is None:
            return body
        request = facts.body
        field = "max_tokens_to_sample" if facts.route is COMPLETE else self.clamp_field
        edits: dict[str, object] = {field: clamp}
        thinking = as_dict(request.get("thinking"))
        if as_count(thinking.get("budget_tokens")) >= clamp:  # the API refuses such a request
            budget = max(_THINKING_TOKENS_MIN, clamp - _THINKING_TOKENS_MIN)
            edits["thinking"] = {**thinking, "budget_tokens": budget}
        return rq.with_edits(request, body, edits)

    # --- replies -------------------------------------------------------------------------

    def meter(self, facts: Facts, *, status: int, content_type: str, inject_usage: bool) -> Meter:
        if facts.route is BATCHES:
            return JsonMeter(batches.CreatedReader())
        reader = MessageReader(facts.provider_options)
        if is_event_stream(content_type, expected=facts.stream and status < 400):
            return EventMeter(reader)
        return JsonMeter(reader)

    def watcher(self, route: Route, path: str, content_type: bytes) -> Watcher | None:
        return batches.watcher(route, path, lambda: MessageReader({}))

    def error_body(self, refusal: Refusal, request_id: str) -> bytes:
        return json.encode(_error(refusal, request_id))

    def error_event(self, facts: Facts, refusal: Refusal, request_id: str) -> bytes:
        return b"event: error\ndata: " + json.encode(_error(refusal, request_id)) + b"\n\n"


def messages_facts(facts: Facts, body: dict[str, object], size: RequestSize) -> None:
    messages = body.get("messages")
    if type(messages) is not list:
        raise rq.bad("`messages` is missing or not an array: send the conversation as an array")
    for message in messages:
        if type(message) is dict:
            content = message.get("content")
            if type(content) is list:
                _scan_blocks(content, size)
    size.output_limit = rq.checked_count(body, "max_tokens", least=0)
    tools = body.get("tools")
    if tools:
        _scan_tools(tools, size)
    if "mcp_servers" in body or "context_management" in body:
        _scan_passes(body, size)
    thinking = as_dict(body.get("thinking")).get("type", "disabled")
    facts.reasoning = thinking != "disabled" or "output_config" in body
    for option in ("speed", "inference_geo"):
        value = body.get(option)
        if type(value) is str:
            facts.provider_options[option] = value
    size.speed = facts.provider_options.get("speed", "")


def _scan_blocks(blocks: list[object], size: RequestSize) -> None:
    """Count inline images; what is neither text nor an inline image is bounded by the window."""
    stack = blocks
    while stack:
        below: list[object] = []
        for block in stack:
            if type(block) is not dict:
                continue
            kind = block.get("type")
            if type(kind) is not str:
                size.windowed = True
            elif kind in _NESTING_BLOCKS:
                inner = block.get("content")
                if type(inner) is list:
                    below.extend(inner)
                elif type(inner) is dict:
                    below.append(inner)
            elif kind not in _TEXT_BLOCKS:
                _scan_source(kind, as_dict(block.get("source")), size, below)
        stack = below


def _scan_source(
    kind: str, source: dict[str, object], size: RequestSize, below: list[object]
) -> None:
    form = source.get("type")
    if kind == "image" and form == "base64":
        size.inline_images += 1
    elif kind == "document" and form == "content":
        inner = source.get("content")
        if type(inner) is list:
            below.extend(inner)
    elif not (kind == "document" and form == "text"):
        size.windowed = True


def _scan_tools(tools: object, size: RequestSize) -> None:
    if type(tools) is not list:
        raise rq.bad("`tools` must be an array")
    passes: int | None = 0
    for tool in tools:
        kind = tool.get("type") if type(tool) is dict else None
        if type(kind) is not str or kind.startswith(_CLIENT_TOOLS):
            continue
        uses = rq.checked_count(tool, "max_uses", least=0)
        if kind.startswith("web_search_"):
            size.web_searches += rq.WEB_SEARCHES_DEFAULT if uses is None else uses
        if passes is not None and uses is not None and kind.startswith(_BOUNDED_TOOLS):
            passes += uses
        else:
            passes = None
        size.tool_windows = rq.NO_OWN_BOUND if passes is None else passes + 1


def _scan_passes(body: dict[str, object], size: RequestSize) -> None:
    """MCP servers and compaction read the context again."""
    edits = as_list(as_dict(body.get("context_management")).get("edits"))
    compacts = any(as_text(as_dict(edit).get("type")).startswith("compact") for edit in edits)
    if compacts or body.get("mcp_servers"):
        size.tool_windows = rq.NO_OWN_BOUND


class MessageReader:
    """Merges the usage of message_start and message_delta: later non-null fields win."""

    usage_key = b"usage"

    def __init__(self, requested: dict[str, str]) -> None:
        self.finished = False
        self._requested = requested  # speed and geography, where the reply does not echo them
        self._fields: dict[str, object] = {}
        self._final = False  # not only message_start's provisional counts
        self._model = self._id = self._error = ""

    def needs(self, block: bytes) -> int:
        if _search_usage(block) or _search_error(block):
            return PARSE
        return SKIP

    def ends(self, block: bytes) -> bool:
        return b"message_stop" in block and any(
            as_dict(decode(data)).get("type") == "message_stop" for data in event_data(block)
        )

    def document(self, document: dict[str, object]) -> None:
        kind = document.get("type")
        if kind == "error":
            self._error = as_text(as_dict(document.get("error")).get("type"))[:64] or "error"
            return
        if kind == "message_stop":
            self.finished = True
        message = as_dict(document.get("message")) or document
        self._model = as_text(message.get("model"))[:MODEL_CHARS_MAX] or self._model
        if kind in ("message_start", "message", "completion"):
            self._id = as_text(message.get("id")) or self._id
        if kind == "completion" and document.get("stop_reason"):
            self.finished = True
        fields = message.get("usage")
        if type(fields) is dict:
            self._final = self._final or kind != "message_start"
            for name, value in fields.items():
                if value is not None:
                    self._fields[name] = value

    def marker(self, data: bytes) -> None:
        """Every event of this API is JSON."""

    def fragment(self, usage: dict[str, object], model: str) -> None:
        self._fields.update(usage)
        self._final = True
        self._model = self._model or model

    def text_bytes(self, document: dict[str, object]) -> int:
        kind = document.get("type")
        if kind == "completion":
            return len(as_text(document.get("completion")).encode("utf-8", "replace"))
        return text_bytes(document.get("delta" if kind == "content_block_delta" else "content"))

    def reading(self) -> Reading:
        usage = self._usage()
        return Reading(
            usage=usage,
            model=self._model,
            response_id=self._id,
            complete=self.finished,
            error=self._error,
            partial=usage is not None and not self._final,
        )

    def _usage(self) -> Usage | None:
        fields = self._fields
        if "input_tokens" not in fields and "output_tokens" not in fields:
            return None
        usage = _counts(fields)
        tools = as_dict(fields.get("server_tool_use"))
        searches = as_count(tools.get("web_search_requests"))
        if searches:
            usage.units["web_search"] = searches
        self._set_terms(usage)
        passes = []
        for part in as_list(fields.get("iterations")):
            part = as_dict(part)
            if part.get("type", "message") != "message":
                extra = _counts(part)
                self._set_terms(extra)
                passes.append((as_text(part.get("model"))[:MODEL_CHARS_MAX], extra))
        usage.passes = tuple(passes)
        return usage

    def _set_terms(self, usage: Usage) -> None:
        tier = as_text(self._fields.get("service_tier"))
        usage.service_tier = "" if tier == "standard" else tier
        geo = self._fields.get("inference_geo", self._requested.get("inference_geo", ""))
        usage.inference_geo = "" if geo in ("global", "not_available") else as_text(geo)
        speed = self._fields.get("speed", self._requested.get("speed", ""))
        usage.speed = "" if speed == "standard" else as_text(speed)


def _counts(fields: dict[str, object]) -> Usage:
    """Anthropic's input_tokens leaves the cache out."""
    split = as_dict(fields.get("cache_creation"))
    long_lived = as_count(split.get("ephemeral_1h_input_tokens"))
    short_lived = as_count(split.get("ephemeral_5m_input_tokens"))
    written = first_count(fields, "cache_creation_input_tokens")
    if written is None:
        written = long_lived + short_lived
    read = as_count(fields.get("cache_read_input_tokens"))
    details = as_dict(fields.get("output_tokens_details"))
    usage = Usage(
        input_tokens=as_count(fields.get("input_tokens")) + read + written,
        output_tokens=as_count(fields.get("output_tokens")),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=long_lived,
        reasoning_tokens=as_count(details.get("thinking_tokens")),
    )
    return consistent(usage)


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    426: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
}


def _error(refusal: Refusal, request_id: str) -> dict[str, object]:
    kind = _TYPES.get(refusal.status, "api_error")
    if refusal.code == "overloaded":
        kind = "overloaded_error"
    details = {**refusal.details, "error_code": refusal.code}
    return {
        "type": "error",
        "error": {"type": kind, "message": refusal.message, "details": details},
        "request_id": request_id,
    }
