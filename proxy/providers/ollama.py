"""Ollama: its native API, streamed unless the request says otherwise, and OpenAI's below `/v1`."""

from msgspec import json

from pricing.usage import RequestSize, Usage
from proxy.errors import Refusal
from proxy.providers import requests as rq
from proxy.providers.base import Facts, Meter, Reading, Route
from proxy.providers.fields import (
    MODEL_CHARS_MAX,
    as_count,
    as_dict,
    as_list,
    as_text,
    error_name,
)
from proxy.providers.host import Host
from proxy.providers.meters import PARSE, SKIP, JsonMeter, LinesMeter, decode, text_bytes
from proxy.providers.openai import OpenAI

HOST = Host("ollama", "ollama", "http://127.0.0.1:11434", (), "/v1", prices="free")

CHAT = Route("api.chat", "metered", "chat")
GENERATE = Route("api.generate", "metered", "text_completion")
EMBED = Route("api.embed", "metered", "embeddings")
EMBEDDINGS = Route("api.embeddings", "metered", "embeddings")
_NATIVE: rq.Posts = (
    ("/api/chat", CHAT),
    ("/api/generate", GENERATE),
    ("/api/embed", EMBED),
    ("/api/embeddings", EMBEDDINGS),
    ("/api/show", Route("api.show", "free")),
    ("/api/pull", Route("api.pull", "unmetered")),
    ("/api/push", Route("api.push", "unmetered")),
    ("/api/create", Route("api.create", "unmetered")),
    ("/api/copy", Route("api.copy", "unmetered")),
    ("/api/delete", Route("api.delete", "unmetered")),
)
_EXAMPLES = ("/api/tags", "/api/ps", "/api/version")
_NAMES = frozenset(route.name for _, route in _NATIVE)
_LIMIT = "num_predict"


class Ollama:
    """The `ollama` dialect."""

    name = "ollama"
    credential_header = "authorization"
    spent_status = 429
    model_lists = (("/api/tags", "models", "model"), ("/api/ps", "models", "model"))

    def __init__(self, clamp_field: str = "") -> None:
        self._openai = OpenAI(clamp_field or "max_tokens", inner=True)
        self.clamp_field = self._openai.clamp_field

    # --- routes --------------------------------------------------------------------------

    def route(self, method: str, path: str) -> Route | None:
        if method == "DELETE":
            return rq.OTHER  # removes a model
        found = rq.route_by_end(_NATIVE, method, path)
        return self._openai.route(method, path) if found is rq.OTHER else found

    def routes(self) -> tuple[tuple[str, str, Route], ...]:
        return (*rq.route_table(_NATIVE, "", _EXAMPLES), *self._openai.routes())

    # --- requests ------------------------------------------------------------------------

    def facts(self, route: Route, path: str, query: bytes, body: bytes) -> Facts:
        if route.name not in _NAMES:
            return self._openai.facts(route, path, query, body)
        parsed = rq.parse_body(body)
        model = rq.checked_model(parsed.get("model"))
        size = RequestSize(len(body))
        if route is EMBED or route is EMBEDDINGS:
            texts = as_list(parsed.get("input"))
            size.inputs, size.generates = max(1, len(texts)), False
            return Facts(route, model, False, size, parsed)
        stream = rq.checked_flag(parsed, "stream") or parsed.get("stream") is None
        size.output_limit = _limit(as_dict(parsed.get("options")))
        size.inline_images = len(as_list(parsed.get("images"))) + sum(
            len(as_list(as_dict(message).get("images")))
            for message in as_list(parsed.get("messages"))
        )
        return Facts(route, model, stream, size, parsed, reasoning=bool(parsed.get("think")))

    def edit(self, facts: Facts, body: bytes, *, clamp: int | None, inject_usage: bool) -> bytes:
        if facts.route.name not in _NAMES:
            return self._openai.edit(facts, body, clamp=clamp, inject_usage=inject_usage)
        if clamp is None:
            return body
        options = as_dict(facts.body.get("options"))
        return rq.with_edits(facts.body, body, {"options": {**options, _LIMIT: clamp}})

    # --- replies -------------------------------------------------------------------------

    def meter(self, facts: Facts, *, status: int, content_type: str, inject_usage: bool) -> Meter:
        if facts.route.name not in _NAMES:
            return self._openai.meter(
                facts, status=status, content_type=content_type, inject_usage=inject_usage
            )
        reader = OllamaReader()
        return LinesMeter(reader) if facts.stream and status < 400 else JsonMeter(reader)

    def error_body(self, refusal: Refusal, request_id: str) -> bytes:
        return self._openai.error_body(refusal, request_id)

    def error_event(self, facts: Facts, refusal: Refusal, request_id: str) -> bytes:
        if facts.route.name not in _NAMES:
            return self._openai.error_event(facts, refusal, request_id)
        return json.encode({"error": refusal.message}) + b"\n"


def _limit(options: dict[str, object]) -> int | None:
    """Below 0 is no limit."""
    value = options.get(_LIMIT)
    if type(value) is int and value < 0:
        return None
    return rq.checked_count(options, _LIMIT, least=0)


class OllamaReader:
    """The document that is `done` carries the counts; a count that is missing is 0, since a prompt
    that was cached in full has none."""

    usage_key = b"usage"

    def __init__(self) -> None:
        self.finished = False
        self._usage: Usage | None = None
        self._model = self._error = ""

    def needs(self, block: bytes) -> int:
        return PARSE if b'_count"' in block or b'"error"' in block else SKIP

    def ends(self, block: bytes) -> bool:
        return b'"done":true' in block and any(
            as_dict(decode(line)).get("done") is True for line in block.split(b"\n")
        )

    def document(self, document: dict[str, object]) -> None:
        self._model = as_text(document.get("model"))[:MODEL_CHARS_MAX] or self._model
        self._error = error_name(document.get("error")) or self._error
        if document.get("done") is True:
            self.finished = True
        if "eval_count" in document or "prompt_eval_count" in document:
            self._usage = Usage(
                as_count(document.get("prompt_eval_count")), as_count(document.get("eval_count"))
            )

    def marker(self, data: bytes) -> None:
        """Every line of this API is JSON."""

    def fragment(self, usage: dict[str, object], model: str) -> None:
        self._model = self._model or model

    def text_bytes(self, document: dict[str, object]) -> int:
        whole = {"content": document.get("message"), "text": document.get("response")}
        return text_bytes(whole)

    def reading(self) -> Reading:
        return Reading(self._usage, self._model, "", self.finished, self._error)
