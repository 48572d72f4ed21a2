"""OpenAI's wire format, and every host compatible with it.

The end of the path decides, so any prefix works: `/v1/chat/completions`,
`/api/v1/chat/completions`, `/openai/deployments/NAME/chat/completions`.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from msgspec import json

from pricing.usage import RequestSize
from proxy.errors import Refusal
from proxy.providers import openai_batches
from proxy.providers import requests as rq
from proxy.providers.base import Facts, Meter, Route, Watcher
from proxy.providers.batch_lines import RequestLines
from proxy.providers.endpoints import MEDIA, REALTIME_BESIDE, Endpoint
from proxy.providers.host import Host
from proxy.providers.image_tool import image_tool
from proxy.providers.meters import EventMeter, JsonMeter, is_event_stream
from proxy.providers.openai_batches import BATCHES, FILES
from proxy.providers.openai_errors import error_object
from proxy.providers.openai_meter import ChatReader, ResponsesReader
from proxy.providers.openai_plain import plain_reply, plain_request
from proxy.providers.usage_chunk import WithholdingMeter

HOST = Host("openai", "openai", "https://api.openai.com", ("OPENAI_API_KEY",), "/v1")

CHAT = Route("chat.completions", "metered", "chat")
COMPLETIONS = Route("completions", "metered", "text_completion")
RESPONSES = Route("responses", "metered", "chat")
COMPACT = Route("responses.compact", "metered", "chat")
EMBEDDINGS = Route("embeddings", "metered", "embeddings")

# The end of a POST's path, longest first. Routes that cost nothing at the provider are free;
# what has no meter yet is unmetered, and so is every POST that is not listed.
POSTS: rq.Posts = (
    ("/chat/completions", CHAT),
    ("/responses", RESPONSES),
    ("/embeddings", EMBEDDINGS),
    ("/completions", COMPLETIONS),
    ("/responses/compact", COMPACT),
    ("/responses/input_tokens", Route("responses.input_tokens", "free")),
    ("/moderations", Route("moderations", "free")),
    ("/images/generations", Route("images.generations", "metered", "image_generation")),
    ("/images/edits", Route("images.edits", "metered", "image_generation")),
    ("/images/variations", Route("images.variations", "metered", "image_generation")),
    ("/audio/speech", Route("audio.speech", "metered", "speech")),
    ("/audio/transcriptions", Route("audio.transcriptions", "metered", "transcription")),
    ("/audio/translations", Route("audio.translations", "metered", "transcription")),
    ("/videos", Route("videos", "unmetered")),
    ("/files", FILES),
    ("/uploads", Route("uploads", "unmetered")),
    ("/batches", BATCHES),
    ("/fine_tuning/jobs", Route("fine_tuning", "unmetered")),
    ("/assistants", Route("assistants", "unmetered")),
    ("/threads", Route("threads", "unmetered")),
    ("/threads/runs", Route("threads.runs", "unmetered")),
    ("/vector_stores", Route("vector_stores", "unmetered")),
    ("/conversations", Route("conversations", "unmetered")),
    ("/containers", Route("containers", "unmetered")),
    ("/evals", Route("evals", "unmetered")),
    ("/realtime/sessions", REALTIME_BESIDE),
    ("/realtime/transcription_sessions", REALTIME_BESIDE),
    ("/realtime/client_secrets", REALTIME_BESIDE),
    ("/realtime/calls", REALTIME_BESIDE),
    ("/rerank", Route("rerank", "unmetered")),
)
_EXAMPLES = ("/v1/models", "/v1/responses/resp_1/input_items", "/v1/chat/completions/chatcmpl_1")

_INLINE_PARTS = frozenset(
    (
        *("text", "input_text", "output_text", "summary_text", "reasoning_text"),
        *("refusal", "thinking", "reasoning", "encrypted_content"),
        *("input_audio", "audio", "tool_use", "tool_result"),
    )
)
_CLIENT_TOOLS = frozenset(("function", "custom", "local_shell", "apply_patch", "namespace"))
_CLAMP_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_search_model_in_path = re.compile(r"/(?:deployments|engines)/([^/]+)/").search
_search_reasoning = re.compile(
    r"(?:^|[/.])o[1-9](?:-|$)|gpt-5|gpt-oss|reason|think|magistral|[-_]r1|qwq|grok-[3-9]|"
    r"gemini-(?:2\.5|[3-9])|glm-[45]|kimi-k2"
).search
_search_searching = re.compile(r"-search-preview|-search-api|:online$").search


class ModelTraits(NamedTuple):
    """What the name of a model says about calls to it."""

    reasons: bool
    searches: bool  # the web, once on every call, and the reply does not tell
    runs_tools: bool  # of its own accord


@lru_cache(maxsize=1024)  # names come from clients
def model_traits(model: str) -> ModelTraits:
    return ModelTraits(
        _search_reasoning(model) is not None,
        _search_searching(model) is not None,
        "compound" in model,
    )


class OpenAI:
    """The `openai` dialect, and what hosts that differ from it derive from."""

    name = "openai"
    credential_header = "authorization"
    spent_status = 429
    customer_fields = (("safety_identifier",), ("user",))
    posts: rq.Posts = POSTS
    usual_clamp_field = "max_completion_tokens"
    asks_usage = True  # streams tell their usage only when asked to
    endpoints: Mapping[str, Endpoint] = MEDIA  # routes of other shapes, by name

    def __init__(self, clamp_field: str = "", *, inner: bool = False) -> None:
        """`inner`: for a part of another dialect."""
        self.clamp_field = clamp_field or self.usual_clamp_field
        # Whether work that is billed later is taken: batches, background responses.
        self._later = self.name in openai_batches.DIALECTS and not inner
        if not self._later:
            self.posts = openai_batches.refused(self.posts)

    # --- routes --------------------------------------------------------------------------

    def route(self, method: str, path: str) -> Route | None:
        found = rq.route_by_end(self.posts, method, path)
        if self._later and (found is rq.READ or found is rq.OTHER):
            return openai_batches.watched_route(method, path) or found
        return found

    def routes(self) -> tuple[tuple[str, str, Route], ...]:
        watched = openai_batches.EXAMPLES if self._later else ()
        return (*rq.route_table(self.posts, "/v1", _EXAMPLES), *watched)

    # --- requests ------------------------------------------------------------------------

    def facts(self, route: Route, path: str, query: bytes, body: bytes) -> Facts:
        if route is CHAT and (plain := plain_request(route, body)):
            traits = model_traits(plain.model)
            if not (traits.searches or traits.runs_tools):
                plain.reasoning = traits.reasons
                if not self.asks_usage:
                    plain.wants_usage_chunk = True
                return plain
        if route is not CHAT and (endpoint := self.endpoints.get(route.name)):
            return endpoint.facts(route, path, body)
        if route is BATCHES:
            return openai_batches.batch_facts(route, body, self.route)
        parsed = rq.parse_body(body)
        model = parsed.get("model")
        if model is None:
            model = model_in_path(path)
        model = rq.checked_model(model).removeprefix("models/")
        tier = parsed.get("service_tier")
        size = RequestSize(len(body), service_tier=tier if type(tier) is str else "")
        if route is EMBEDDINGS:
            size.inputs = _inputs(parsed.get("input"))
            size.generates = False
            return Facts(route, model, False, size, parsed)
        stream = rq.checked_flag(parsed, "stream")
        reasoning = (
            "reasoning_effort" in parsed or "reasoning" in parsed or model_traits(model).reasons
        )
        facts = Facts(route, model, stream, size, parsed, reasoning)
        if route is CHAT:
            _chat_facts(facts, parsed, size)
        elif route is COMPLETIONS:
            _completions_facts(facts, parsed, size)
        else:
            _responses_facts(parsed, size)
            if route is RESPONSES and parsed.get("background"):
                facts.later = openai_batches.background(self._later)
            facts.tool_models = image_tool(parsed, size)
        if not self.asks_usage:
            facts.wants_usage_chunk = True
        return facts

    def edit(self, facts: Facts, body: bytes, *, clamp: int | None, inject_usage: bool) -> bytes:
        edits: dict[str, object] = {}
        request = facts.body
        if clamp is not None:
            used = [key for key in _CLAMP_FIELDS if request.get(key) is not None]
            for key in used or (self._clamp_field(facts.route),):
                edits[key] = clamp
        if inject_usage and facts.stream and not facts.wants_usage_chunk:
            options = request.get("stream_options")
            options = {**options} if type(options) is dict else {}
            edits["stream_options"] = {**options, "include_usage": True}
        return rq.with_edits(request, body, edits) if edits else body

    def _clamp_field(self, route: Route) -> str:
        if route is CHAT:
            return self.clamp_field
        return "max_tokens" if route is COMPLETIONS else "max_output_tokens"

    # --- replies -------------------------------------------------------------------------

    def meter(self, facts: Facts, *, status: int, content_type: str, inject_usage: bool) -> Meter:
        streamed = is_event_stream(content_type, expected=facts.stream and status < 400)
        if facts.route is not CHAT and (endpoint := self.endpoints.get(facts.route.name)):
            return endpoint.meter(facts, content_type, streamed=streamed, failed=status >= 400)
        if facts.route is BATCHES:
            return JsonMeter(openai_batches.BatchReader())
        if facts.route is RESPONSES or facts.route is COMPACT:
            responses = openai_batches.BackgroundReader() if facts.later else ResponsesReader()
            return EventMeter(responses) if streamed else JsonMeter(responses)
        chat = ChatReader(choices=facts.size.choices, searches=facts.searches)
        if not streamed:
            return JsonMeter(chat, None if facts.searches else plain_reply)
        if inject_usage and not facts.wants_usage_chunk:
            return WithholdingMeter(chat)
        return EventMeter(chat)

    def watcher(self, route: Route, path: str, content_type: bytes) -> Watcher | None:
        return openai_batches.watcher(
            route,
            path,
            content_type,
            lines=lambda allowed: RequestLines(self.route, self.facts, allowed),
        )

    def error_body(self, refusal: Refusal, request_id: str) -> bytes:
        return json.encode({"error": error_object(refusal)})

    def error_event(self, facts: Facts, refusal: Refusal, request_id: str) -> bytes:
        error = error_object(refusal)
        if facts.route is not RESPONSES:
            return b"data: " + json.encode({"error": error}) + b"\n\n"
        event = {
            "type": "error",
            "sequence_number": 0,
            "code": error["code"],
            "message": error["message"],
            "param": None,
            "error": error,
        }
        return b"event: error\ndata: " + json.encode(event) + b"\n\n"


def model_in_path(path: str) -> str | None:
    """The deployment or engine a path names."""
    match = _search_model_in_path(path)
    return rq.path_segment(match.group(1)) if match else None


def _chat_facts(facts: Facts, body: dict[str, object], size: RequestSize) -> None:
    messages = body.get("messages")
    if type(messages) is not list:
        raise rq.bad("`messages` is missing or not an array: send the conversation as an array")
    for message in messages:
        if type(message) is dict:
            content = message.get("content")
            if type(content) is list:
                _scan_parts(content, size)
            if "audio" in message and message["audio"] is not None:
                size.windowed = True  # refers to audio the provider stored
    size.output_limit = _output_limit(body, "max_completion_tokens", "max_tokens")
    if "n" in body:
        size.choices = rq.checked_count(body, "n") or 1
    tools = body.get("tools")
    if tools:
        _scan_tools(tools, size)
    traits = model_traits(facts.model)
    if traits.searches or body.get("web_search_options") is not None:
        size.tool_windows = rq.NO_OWN_BOUND
        size.web_searches = size.web_searches or 1
        facts.searches = True
    elif "plugins" in body or "search_parameters" in body or traits.runs_tools:
        size.tool_windows = rq.NO_OWN_BOUND
        size.web_searches = size.web_searches or rq.WEB_SEARCHES_DEFAULT
    facts.wants_usage_chunk = not facts.stream or _asks_usage(body)


def _completions_facts(facts: Facts, body: dict[str, object], size: RequestSize) -> None:
    size.inputs = prompts = _inputs(body.get("prompt", ""))
    size.output_limit = _output_limit(body, "max_tokens", "max_completion_tokens")
    per_prompt = max(
        rq.checked_count(body, "n") or 1, rq.checked_count(body, "best_of", least=0) or 1
    )
    size.choices = per_prompt * prompts
    facts.wants_usage_chunk = not facts.stream or _asks_usage(body)


def _responses_facts(body: dict[str, object], size: RequestSize) -> None:
    items = body.get("input")
    if type(items) is list:
        for item in items:
            if type(item) is dict:
                _scan_item(item, size)
    size.windowed = (
        size.windowed
        or body.get("previous_response_id") is not None
        or body.get("conversation") is not None
        or body.get("prompt") is not None
    )
    size.output_limit = _output_limit(body, "max_output_tokens")
    tools = body.get("tools")
    if tools:
        _scan_tools(tools, size, rq.checked_count(body, "max_tool_calls", least=0))


def _scan_item(item: dict[str, object], size: RequestSize) -> None:
    kind = item.get("type")
    if kind is None or kind == "message":
        content = item.get("content")
        if type(content) is list:
            _scan_parts(content, size)
    elif kind == "item_reference":
        size.windowed = True
    elif kind == "image_generation_call":
        size.inline_images += 1
    else:
        output = item.get("output")
        if type(output) is list:
            _scan_parts(output, size)
        elif type(output) is dict:  # a screenshot
            _scan_parts([output], size)


def _scan_parts(parts: list[object], size: RequestSize) -> None:
    """Count inline images; anything that is neither text nor inline is bounded by the window."""
    for part in parts:
        if type(part) is not dict:
            continue
        kind = part.get("type")
        if type(kind) is not str:
            size.windowed = size.windowed or "text" not in part
        elif kind not in _INLINE_PARTS:
            url = part.get("image_url")
            if type(url) is dict:
                url = url.get("url")
            if type(url) is str and url[:11].lower() == "data:image/":
                size.inline_images += 1
            elif kind != "logs":
                size.windowed = True


def _scan_tools(tools: object, size: RequestSize, calls_max: int | None = None) -> None:
    """Tools the provider runs itself: each of their rounds reads the context again."""
    if type(tools) is not list:
        raise rq.bad("`tools` must be an array")
    for tool in tools:
        if type(tool) is not dict:
            continue
        kind = tool.get("type")
        if type(kind) is str and kind in _CLIENT_TOOLS:
            continue
        if kind is None and "function" in tool:
            continue
        size.tool_windows = rq.NO_OWN_BOUND if calls_max is None else calls_max + 1
        calls = rq.WEB_SEARCHES_DEFAULT if calls_max is None else calls_max
        if kind == "file_search":
            size.units["file_search"] = calls
        elif kind == "code_interpreter":  # bills for its container, however often it runs
            size.units["code_interpreter"] = size.units.get("code_interpreter", 0) + 1
        elif type(kind) is str and "search" in kind:
            size.web_searches = calls


def _output_limit(body: dict[str, object], *names: str) -> int | None:
    """The larger one, should several be set."""
    limit = None
    for name in names:
        if name in body:
            value = rq.checked_count(body, name, least=0)
            if value is not None:
                limit = max(limit or 0, value)
    return limit


def _inputs(value: object) -> int:
    """Independent inputs of a request: an array of texts or of token arrays has several."""
    if type(value) is list and value and type(value[0]) is not int:
        return len(value)
    return 1


def _asks_usage(body: dict[str, object]) -> bool:
    options = body.get("stream_options")
    return type(options) is dict and options.get("include_usage") is True
