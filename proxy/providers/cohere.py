"""Cohere, v1 and v2: chat, generate, embed, rerank; what is billed stands in `billed_units`.

Its SDK tries 429 again, so a spent budget is answered with 402; it knows no error event.
"""

from msgspec import json

from pricing.usage import RequestSize
from proxy.errors import Refusal
from proxy.providers import requests as rq
from proxy.providers.base import Facts, Meter, Route
from proxy.providers.cohere_meter import CohereReader
from proxy.providers.fields import as_dict, as_list, as_text
from proxy.providers.host import Host
from proxy.providers.meters import EventMeter, JsonMeter, LinesMeter, is_event_stream
from proxy.providers.openai import OpenAI

HOST = Host("cohere", "cohere", "https://api.cohere.com", ("CO_API_KEY", "COHERE_API_KEY"))

CHAT = Route("chat", "metered", "chat")
GENERATE = Route("generate", "metered", "text_completion")
EMBED = Route("embed", "metered", "embeddings")
RERANK = Route("rerank", "metered", "rerank")
_NATIVE = frozenset((CHAT.name, GENERATE.name, EMBED.name, RERANK.name))

_POSTS: rq.Posts = (
    ("/v2/chat", CHAT),
    ("/v1/chat", CHAT),
    ("/v1/generate", GENERATE),
    ("/v2/embed", EMBED),
    ("/v1/embed", EMBED),
    ("/v2/rerank", RERANK),
    ("/v1/rerank", RERANK),
    ("/v1/tokenize", Route("tokenize", "free")),
    ("/v1/detokenize", Route("detokenize", "free")),
    ("/v1/check-api-key", Route("check-api-key", "free")),
    ("/v1/classify", Route("classify", "unmetered")),
    ("/v1/summarize", Route("summarize", "unmetered")),
    ("/v1/embed-jobs", Route("embed-jobs", "unmetered")),
    ("/v1/datasets", Route("datasets", "unmetered")),
)
_EXAMPLES = ("/v1/models", "/v1/models/command-a-03-2025")

# A search unit is one query with up to 100 documents. A document longer than 500 tokens, query
# included, counts as several; bytes are taken as tokens, and no chunk as smaller than 100.
DOCUMENTS_PER_UNIT = 100
CHUNK_TOKENS = 500
CHUNK_TOKENS_MIN = 100


class Cohere:
    """The `cohere` dialect."""

    name = "cohere"
    credential_header = "authorization"
    spent_status = 402

    def __init__(self, clamp_field: str = "") -> None:
        self.clamp_field = clamp_field or "max_tokens"
        self._openai = OpenAI(self.clamp_field, inner=True)

    # --- routes --------------------------------------------------------------------------

    def route(self, method: str, path: str) -> Route | None:
        if "/compatibility/" in path:
            return self._openai.route(method, path)
        return rq.route_by_end(_POSTS, method, path)

    def routes(self) -> tuple[tuple[str, str, Route], ...]:
        compatible = (
            (method, path.replace("/v1/", "/compatibility/v1/"), route)
            for method, path, route in self._openai.routes()
        )
        return (*rq.route_table(_POSTS, "", _EXAMPLES), *compatible)

    # --- requests ------------------------------------------------------------------------

    def facts(self, route: Route, path: str, query: bytes, body: bytes) -> Facts:
        if route.name not in _NATIVE:
            return self._openai.facts(route, path, query, body)
        parsed = rq.parse_body(body)
        model = rq.checked_model(parsed.get("model"))
        size = RequestSize(len(body))
        facts = Facts(route, model, rq.checked_flag(parsed, "stream"), size, parsed)
        if route is EMBED:
            _embed_facts(parsed, size)
        elif route is RERANK:
            _rerank_facts(parsed, size)
        else:
            _chat_facts(facts, parsed, size)
        return facts

    def edit(self, facts: Facts, body: bytes, *, clamp: int | None, inject_usage: bool) -> bytes:
        if facts.route.name not in _NATIVE:
            return self._openai.edit(facts, body, clamp=clamp, inject_usage=inject_usage)
        if clamp is None:
            return body
        return rq.with_edits(facts.body, body, {self.clamp_field: clamp})

    # --- replies -------------------------------------------------------------------------

    def meter(self, facts: Facts, *, status: int, content_type: str, inject_usage: bool) -> Meter:
        if facts.route.name not in _NATIVE:
            return self._openai.meter(
                facts, status=status, content_type=content_type, inject_usage=inject_usage
            )
        reader = CohereReader()
        streamed = facts.stream and status < 400
        if is_event_stream(content_type, expected=False):
            return EventMeter(reader)
        return LinesMeter(reader) if streamed else JsonMeter(reader)

    def error_body(self, refusal: Refusal, request_id: str) -> bytes:
        body = {"id": request_id, "message": refusal.message, "code": refusal.code}
        return json.encode({**body, "details": refusal.details} if refusal.details else body)

    def error_event(self, facts: Facts, refusal: Refusal, request_id: str) -> bytes:
        if facts.route.name in _NATIVE:
            return b""
        return self._openai.error_event(facts, refusal, request_id)


def _chat_facts(facts: Facts, body: dict[str, object], size: RequestSize) -> None:
    """chat of both versions, and generate."""
    if not any(type(body.get(name)) in (list, str) for name in ("messages", "message", "prompt")):
        raise rq.bad("`messages` is missing or not an array: send the conversation as an array")
    for message in as_list(body.get("messages")):
        for part in as_list(as_dict(message).get("content")):
            kind = as_dict(part).get("type")
            if kind == "image_url":
                _scan_image(as_dict(part).get("image_url"), size)
            elif kind not in ("text", "thinking", "document"):
                size.windowed = True
    size.output_limit = rq.checked_count(body, "max_tokens", least=0)
    size.choices = rq.checked_count(body, "num_generations") or 1
    if body.get("conversation_id") is not None:
        size.windowed = True
    if body.get("connectors"):  # searches the provider makes, then reads
        size.tool_windows = rq.NO_OWN_BOUND
        size.web_searches = rq.WEB_SEARCHES_DEFAULT
    facts.reasoning = "reasoning" in facts.model or "thinking" in body


def _scan_image(value: object, size: RequestSize) -> None:
    url = as_dict(value).get("url") if type(value) is dict else value
    if as_text(url)[:11].lower() == "data:image/":
        size.inline_images += 1
    else:
        size.windowed = True


def _embed_facts(body: dict[str, object], size: RequestSize) -> None:
    size.generates = False
    texts, images = as_list(body.get("texts")), as_list(body.get("images"))
    inputs = as_list(body.get("inputs"))
    mixed = [
        part
        for entry in inputs
        for part in as_list(as_dict(entry).get("content"))
        if as_dict(part).get("type") != "text"
    ]
    size.inputs = max(1, len(texts) + len(images) + len(inputs))
    size.inline_images = len(images) + len(mixed)
    if size.inline_images:
        size.units["input_images"] = size.inline_images


def _rerank_facts(body: dict[str, object], size: RequestSize) -> None:
    documents = body.get("documents")
    if type(documents) is not list:
        raise rq.bad("`documents` is missing or not an array: send the documents as an array")
    query = len(as_text(body.get("query")).encode("utf-8", "replace"))
    room = max(CHUNK_TOKENS - query, CHUNK_TOKENS_MIN)
    chunks = sum(max(1, -(-_length(document) // room)) for document in documents)
    size.units["search_units"] = max(1, -(-chunks // DOCUMENTS_PER_UNIT))
    size.inputs, size.generates = max(1, len(documents)), False


def _length(document: object) -> int:
    text = document if type(document) is str else json.encode(document).decode("utf-8", "replace")
    return len(text.encode("utf-8", "replace"))
