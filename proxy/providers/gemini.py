"""Google's wire format, on the Gemini API and on Vertex: the model and a `:verb` end the path.

Field names may come in camelCase or snake_case: the provider takes both. The provider's
OpenAI-compatible endpoint (`/openai/...`) is read by that dialect.
"""

import re

from msgspec import json

from pricing.usage import RequestSize
from proxy.errors import Refusal
from proxy.providers import requests as rq
from proxy.providers.base import Facts, Meter, Route
from proxy.providers.fields import as_dict, as_list, as_text
from proxy.providers.gemini_interactions import InteractionReader, interaction_facts
from proxy.providers.gemini_meter import GenerateReader
from proxy.providers.host import Host
from proxy.providers.meters import ArrayMeter, EventMeter, JsonMeter, is_event_stream
from proxy.providers.openai import OpenAI

HOST = Host(
    "gemini",
    "gemini",
    "https://generativelanguage.googleapis.com",
    ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
)

GENERATE = Route("generateContent", "metered", "generate_content")
STREAM = Route("streamGenerateContent", "metered", "generate_content")
EMBED = Route("embedContent", "metered", "embeddings")
BATCH_EMBED = Route("batchEmbedContents", "metered", "embeddings")
INTERACTIONS = Route("interactions", "metered", "generate_content")
_NATIVE = frozenset((GENERATE, STREAM, EMBED, BATCH_EMBED, INTERACTIONS))

_VERBS: dict[str, Route] = {
    "generateContent": GENERATE,
    "streamGenerateContent": STREAM,
    "embedContent": EMBED,
    "batchEmbedContents": BATCH_EMBED,
    "countTokens": Route("countTokens", "free"),
    "batchGenerateContent": Route("batchGenerateContent", "unmetered"),
    "asyncBatchEmbedContent": Route("asyncBatchEmbedContent", "unmetered"),
    "predict": Route("predict", "unmetered"),
    "predictLongRunning": Route("predictLongRunning", "unmetered"),
    "generateAnswer": Route("generateAnswer", "unmetered"),
}
_POSTS: rq.Posts = (
    ("/interactions", INTERACTIONS),
    ("/cachedContents", Route("cachedContents", "unmetered")),
    ("/files", Route("files", "unmetered")),
    ("/batches", Route("batches", "unmetered")),
    ("/tunedModels", Route("tunedModels", "unmetered")),
    ("/fileSearchStores", Route("fileSearchStores", "unmetered")),
    ("/auth_tokens", Route("auth_tokens", "unmetered")),
)
_EXAMPLES = ("/v1beta/models", "/v1beta/models/gemini-2.5-flash", "/v1beta/files/abc")
_PREFIXES = ("/v1beta/models/m", "/v1/models/m", "/v1beta1/publishers/google/models/m")

_CLIENT_TOOLS = frozenset(
    ("functionDeclarations", "function_declarations", "computerUse", "computer_use")
)
_CONFIG_NAMES = ("generationConfig", "generation_config")
_LIMIT_NAMES = ("maxOutputTokens", "max_output_tokens")
_RETRY_DELAY_S = 3600  # above 300 s gemini-cli stops at once

_is_reasoning = re.compile(r"gemini-(?:2\.5|[3-9])|thinking|gemini-(?:flash|pro)-latest").search


class Gemini:
    """The `gemini` dialect."""

    name = "gemini"
    credential_header = "x-goog-api-key"
    spent_status = 429

    def __init__(self, clamp_field: str = "") -> None:
        self.clamp_field = clamp_field or "generationConfig.maxOutputTokens"
        self._openai = OpenAI(inner=True)

    # --- routes --------------------------------------------------------------------------

    def route(self, method: str, path: str) -> Route | None:
        if method == "POST" and path.startswith("/"):
            end = rq.path_end(path)
            if end is None:
                return rq.OTHER
            if "/openai/" in end:
                return self._openai.route(method, path)
            name, colon, verb = end.rpartition(":")
            if colon and "/" not in verb and not name.endswith("/"):
                return _VERBS.get(verb, rq.OTHER)
        return rq.route_by_end(_POSTS, method, path)

    def routes(self) -> tuple[tuple[str, str, Route], ...]:
        verbs = tuple(
            ("POST", f"{prefix}:{verb}", route)
            for verb, route in _VERBS.items()
            for prefix in _PREFIXES
        )
        compatible = tuple(
            (method, path.replace("/v1/", "/v1beta/openai/"), route)
            for method, path, route in self._openai.routes()
        )
        return (*verbs, *rq.route_table(_POSTS, "/v1beta", _EXAMPLES), *compatible)

    # --- requests ------------------------------------------------------------------------

    def facts(self, route: Route, path: str, query: bytes, body: bytes) -> Facts:
        if route not in _NATIVE:
            return self._openai.facts(route, path, query, body)
        if route is INTERACTIONS:
            return interaction_facts(route, body)
        model = _model_of(path)
        parsed = rq.parse_body(body)
        size = RequestSize(len(body))
        facts = Facts(route, model, route is STREAM, size, parsed)
        if route is EMBED or route is BATCH_EMBED:
            _embed_facts(parsed, size)
            return facts
        facts.json_array = facts.stream and b"alt=sse" not in query.split(b"&")
        facts.reasoning = _is_reasoning(model) is not None
        _generate_facts(facts, parsed, size)
        return facts

    def edit(self, facts: Facts, body: bytes, *, clamp: int | None, inject_usage: bool) -> bytes:
        if facts.route not in _NATIVE:
            return self._openai.edit(facts, body, clamp=clamp, inject_usage=inject_usage)
        if clamp is None:
            return body
        if facts.route is INTERACTIONS:
            config = {**as_dict(facts.body.get("generation_config")), "max_output_tokens": clamp}
            return rq.with_edits(facts.body, body, {"generation_config": config})
        names = [name for name in _CONFIG_NAMES if name in facts.body] or [_CONFIG_NAMES[0]]
        edits: dict[str, object] = {}
        for name in names:
            config = {**as_dict(facts.body.get(name))}
            limits = [limit for limit in _LIMIT_NAMES if limit in config] or [_LIMIT_NAMES[0]]
            config.update(dict.fromkeys(limits, clamp))
            edits[name] = config
        return rq.with_edits(facts.body, body, edits)

    # --- replies -------------------------------------------------------------------------

    def meter(self, facts: Facts, *, status: int, content_type: str, inject_usage: bool) -> Meter:
        if facts.route not in _NATIVE:
            return self._openai.meter(
                facts, status=status, content_type=content_type, inject_usage=inject_usage
            )
        reader = InteractionReader() if facts.route is INTERACTIONS else GenerateReader()
        streamed = facts.stream and status < 400
        if is_event_stream(content_type, expected=streamed and not facts.json_array):
            return EventMeter(reader)
        return ArrayMeter(reader) if streamed else JsonMeter(reader)

    def error_body(self, refusal: Refusal, request_id: str) -> bytes:
        return json.encode({"error": _error(refusal)})

    def error_event(self, facts: Facts, refusal: Refusal, request_id: str) -> bytes:
        if facts.route not in _NATIVE:
            return self._openai.error_event(facts, refusal, request_id)
        if facts.json_array:
            return b""
        return b"data: " + json.encode({"error": _error(refusal)}) + b"\n\n"


def _model_of(path: str) -> str:
    end = rq.path_end(path) or ""
    name = end.rpartition(":")[0].rpartition("/")[2]
    if not name:
        raise rq.bad("the path names no model: use /v1beta/models/MODEL:generateContent")
    return rq.checked_model(name)


def _either(fields: dict[str, object], camel: str, snake: str) -> object:
    value = fields.get(camel)
    return fields.get(snake) if value is None else value


def _scan_config(body: dict[str, object], facts: Facts) -> None:
    """Output limit (the larger one, should both spellings be there), candidates, thinking."""
    size = facts.size
    for name in _CONFIG_NAMES:
        config = body.get(name)
        if type(config) is not dict:
            continue
        for limit in _LIMIT_NAMES:
            value = rq.checked_count(config, limit, least=0)
            if value:  # 0 is "not set" here
                size.output_limit = max(size.output_limit or 0, value)
        for count in ("candidateCount", "candidate_count"):
            size.choices = max(size.choices, rq.checked_count(config, count, least=0) or 1)
        if _either(config, "thinkingConfig", "thinking_config"):
            facts.reasoning = True


def _generate_facts(facts: Facts, body: dict[str, object], size: RequestSize) -> None:
    contents = body.get("contents")
    if type(contents) is dict:
        contents = [contents]
    if type(contents) is not list:
        raise rq.bad("`contents` is missing or not an array: send the conversation as an array")
    for content in contents:
        if type(content) is dict:
            _scan_parts(content.get("parts"), size)
    _scan_config(body, facts)
    size.windowed = size.windowed or _either(body, "cachedContent", "cached_content") is not None
    tier = _either(body, "serviceTier", "service_tier")
    if type(tier) is str:
        size.service_tier = tier.lower()
    tools = body.get("tools")
    if tools:
        _scan_tools(tools, size)


def _embed_facts(body: dict[str, object], size: RequestSize) -> None:
    size.generates = False
    requests = body.get("requests")
    if type(requests) is list:
        size.inputs = max(1, len(requests))
    for request in requests if type(requests) is list else [body]:
        _scan_parts(as_dict(as_dict(request).get("content")).get("parts"), size)


def _scan_parts(parts: object, size: RequestSize) -> None:
    """Count inline images; files by reference, PDF and video are bounded by the window."""
    for part in parts if type(parts) is list else [parts]:
        if type(part) is not dict or (len(part) == 1 and "text" in part):
            continue
        inline = _either(part, "inlineData", "inline_data")
        if type(inline) is dict:
            kind = as_text(_either(inline, "mimeType", "mime_type")).lower()
            if kind.startswith("image/"):
                size.inline_images += 1
            elif not kind.startswith(("audio/", "text/")):
                size.windowed = True
        if "fileData" in part or "file_data" in part:
            size.windowed = True
        response = _either(part, "functionResponse", "function_response")
        if type(response) is dict and "parts" in response:
            _scan_nested(response["parts"], size)


def _scan_nested(parts: object, size: RequestSize) -> None:
    """Media inside a function response, which cannot nest any deeper."""
    for part in as_list(parts):
        inline = as_dict(_either(as_dict(part), "inlineData", "inline_data"))
        if as_text(_either(inline, "mimeType", "mime_type")).lower().startswith("image/"):
            size.inline_images += 1
        else:
            size.windowed = True


def _scan_tools(tools: object, size: RequestSize) -> None:
    for tool in tools if type(tools) is list else [tools]:
        for name in as_dict(tool):
            if name in _CLIENT_TOOLS:
                continue
            size.tool_windows = rq.NO_OWN_BOUND
            if name in ("googleMaps", "google_maps"):
                size.units["google_maps"] = rq.WEB_SEARCHES_DEFAULT
            if name not in ("codeExecution", "code_execution", "urlContext", "url_context"):
                size.web_searches = rq.WEB_SEARCHES_DEFAULT


_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    426: "FAILED_PRECONDITION",
    500: "INTERNAL",
    504: "DEADLINE_EXCEEDED",
}


def _error(refusal: Refusal) -> dict[str, object]:
    status = refusal.status
    spent = "RESOURCE_EXHAUSTED" if status < 500 else "UNAVAILABLE"
    details: list[dict[str, object]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": refusal.code.upper(),
            "domain": "tollkeeper",
            "metadata": {key: str(value) for key, value in refusal.details.items()},
        }
    ]
    if status == 429:
        delay = _RETRY_DELAY_S if refusal.final else refusal.retry_after_s or 1
        details.append(
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{delay}s"}
        )
    return {
        "code": status,
        "message": refusal.message,
        "status": _STATUSES.get(status, spent),
        "details": details,
    }
