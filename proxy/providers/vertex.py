"""Google Vertex AI: Gemini, embeddings and Anthropic's models by publisher.

The wire formats are those of Gemini and Anthropic; what differs is the path, which names project,
location, publisher, model and verb, and that prices depend on the location.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from pricing.usage import RequestSize, Usage
from proxy.errors import Refusal
from proxy.providers import requests as rq
from proxy.providers.anthropic import Anthropic, MessageReader, messages_facts
from proxy.providers.base import Facts, Meter, Reading, Route
from proxy.providers.fields import COUNT_MAX, as_list
from proxy.providers.gemini import BATCH_EMBED, EMBED, GENERATE, STREAM, Gemini
from proxy.providers.gemini_meter import GenerateReader
from proxy.providers.meters import (
    ArrayMeter,
    EventMeter,
    JsonMeter,
    Reader,
    is_event_stream,
)

PREDICT = Route("predict", "metered", "embeddings")
RAW_PREDICT = Route("rawPredict", "metered", "chat")
STREAM_RAW_PREDICT = Route("streamRawPredict", "metered", "chat")
COUNT_TOKENS = Route("countTokens", "free")
_ANTHROPIC = (RAW_PREDICT, STREAM_RAW_PREDICT)

_GOOGLE_VERBS: dict[str, Route] = {
    "generateContent": GENERATE,
    "streamGenerateContent": STREAM,
    "embedContent": EMBED,
    "batchEmbedContents": BATCH_EMBED,
    "predict": PREDICT,
    "countTokens": COUNT_TOKENS,
    "computeTokens": Route("computeTokens", "free"),
    "predictLongRunning": Route("predictLongRunning", "unmetered"),
    "fetchPredictOperation": Route("fetchPredictOperation", "unmetered"),
}
_ANTHROPIC_VERBS: dict[str, Route] = {
    "rawPredict": RAW_PREDICT,
    "streamRawPredict": STREAM_RAW_PREDICT,
}
_POSTS: rq.Posts = (
    ("/cachedContents", Route("cachedContents", "unmetered")),
    ("/batchPredictionJobs", Route("batchPredictionJobs", "unmetered")),
    ("/tuningJobs", Route("tuningJobs", "unmetered")),
    ("/chat/completions", Route("chat.completions", "unmetered")),
)
_PROJECT = "/v1/projects/p/locations/us-east5"
_GOOGLE_PREFIXES = (
    f"{_PROJECT}/publishers/google/models/m",
    "/v1beta1/projects/p/locations/global/publishers/google/models/m",
    "/v1beta1/publishers/google/models/m",
)
_ANTHROPIC_PREFIXES = (
    f"{_PROJECT}/publishers/anthropic/models/m",
    "/projects/p/locations/global/publishers/anthropic/models/m",
)
_COUNTING_MODEL = "count-tokens"  # what Anthropic's SDK calls to count: not a model, and free
_EXAMPLES = (
    f"{_PROJECT}/publishers/google/models/m",
    "/v1beta1/publishers/google/models",
    f"{_PROJECT}/cachedContents/1",
)

_parts_of = re.compile(
    r".*?(?:/locations/(?P<location>[^/]+))?/publishers/(?P<publisher>[^/]+)"
    r"/models/(?P<model>[^/]+):(?P<verb>[A-Za-z]+)"
).fullmatch
_is_embedding = re.compile(
    r"(?:text|gemini)-(?:multilingual-)?embedding-|textembedding-gecko"
).match
_counts_in = re.compile(rb'"token_count"\s{0,16}:\s{0,16}(\d{1,18})(?:\.0*)?\s{0,64}[,}]').finditer
_COUNT_BYTES_MAX = 192
_REQUEST_TYPE_HEADER = b"x-vertex-ai-llm-shared-request-type"


class Parts(NamedTuple):
    """What a path names."""

    location: str
    publisher: str
    model: str
    verb: str


def parts_of(path: str) -> Parts | None:
    """The parts of a path as the provider sees it, whose end must be clear."""
    end = rq.path_end(path)
    found = _parts_of(end) if end is not None else None
    if found is None:
        return None
    return Parts(found["location"] or "global", found["publisher"], found["model"], found["verb"])


class Vertex:
    """The `vertex` dialect."""

    name = "vertex"
    credential_header = "authorization"
    spent_status = 429
    customer_fields = Anthropic.customer_fields
    model_lists = (("/models", "publisherModels", "name"),)

    def __init__(self, clamp_field: str = "") -> None:
        self._gemini = Gemini(clamp_field)
        self._anthropic = Anthropic()
        self.clamp_field = self._gemini.clamp_field

    # --- routes --------------------------------------------------------------------------

    def route(self, method: str, path: str) -> Route | None:
        if method == "POST" and path.startswith("/"):
            parts = parts_of(path)
            if parts is None:
                return rq.route_by_end(_POSTS, method, path)
            if parts.publisher == "google":
                return _GOOGLE_VERBS.get(parts.verb, rq.OTHER)
            if parts.publisher == "anthropic":
                if parts.model == _COUNTING_MODEL and parts.verb == "rawPredict":
                    return COUNT_TOKENS
                return _ANTHROPIC_VERBS.get(parts.verb, rq.OTHER)
            return rq.OTHER
        return rq.route_by_end(_POSTS, method, path)

    def routes(self) -> tuple[tuple[str, str, Route], ...]:
        verbs = tuple(
            ("POST", f"{prefix}:{verb}", route)
            for table, prefixes in (
                (_GOOGLE_VERBS, _GOOGLE_PREFIXES),
                (_ANTHROPIC_VERBS, _ANTHROPIC_PREFIXES),
            )
            for verb, route in table.items()
            for prefix in prefixes
        )
        counting = f"{_PROJECT}/publishers/anthropic/models/{_COUNTING_MODEL}:rawPredict"
        return (
            *verbs,
            ("POST", counting, COUNT_TOKENS),
            *rq.route_table(_POSTS, _PROJECT, _EXAMPLES),
        )

    # --- requests ------------------------------------------------------------------------

    def facts(self, route: Route, path: str, query: bytes, body: bytes) -> Facts:
        parts = parts_of(path)
        if parts is None:
            raise rq.bad("the path names no model: use .../publishers/PUBLISHER/models/MODEL:VERB")
        if route is PREDICT:
            facts = _predict_facts(parts, body)
        elif route in _ANTHROPIC:
            facts = _anthropic_facts(route, parts, body)
        else:
            facts = self._gemini.facts(route, path, query, body)
        if parts.location != "global":
            facts.provider_options["inference_geo"] = parts.location
        return facts

    def request_headers(self, facts: Facts, lines: Sequence[bytes]) -> None:
        """A header asks for a service tier."""
        for line in lines:
            name, _, value = line.partition(b": ")
            if name.lower() == _REQUEST_TYPE_HEADER:
                tier = value.strip().decode("latin-1")
                known = facts.size.service_tier in ("", tier)
                facts.size.service_tier = tier if known else "auto"

    def reply_headers(self, facts: Facts, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Replies say everything in their bodies."""

    def edit(self, facts: Facts, body: bytes, *, clamp: int | None, inject_usage: bool) -> bytes:
        if facts.route is PREDICT:
            return body
        dialect = self._anthropic if facts.route in _ANTHROPIC else self._gemini
        return dialect.edit(facts, body, clamp=clamp, inject_usage=inject_usage)

    # --- replies -------------------------------------------------------------------------

    def meter(self, facts: Facts, *, status: int, content_type: str, inject_usage: bool) -> Meter:
        location = facts.provider_options.get("inference_geo", "")
        if facts.route is PREDICT:
            return PredictMeter(location) if status < 400 else JsonMeter(GenerateReader())
        streamed = facts.stream and status < 400
        reader: Reader
        if facts.route in _ANTHROPIC:
            reader = LocatedMessageReader(location)
            events = is_event_stream(content_type, expected=streamed)
            return EventMeter(reader) if events else JsonMeter(reader)
        reader = LocatedGenerateReader(location)
        if is_event_stream(content_type, expected=streamed and not facts.json_array):
            return EventMeter(reader)
        return ArrayMeter(reader) if streamed else JsonMeter(reader)

    def error_body(self, refusal: Refusal, request_id: str) -> bytes:
        return self._gemini.error_body(refusal, request_id)

    def error_event(self, facts: Facts, refusal: Refusal, request_id: str) -> bytes:
        dialect = self._anthropic if facts.route in _ANTHROPIC else self._gemini
        return dialect.error_event(facts, refusal, request_id)


def _anthropic_facts(route: Route, parts: Parts, body: bytes) -> Facts:
    """Anthropic's body without a model, which stands in the path."""
    parsed = rq.parse_body(body)
    size = RequestSize(len(body))
    stream = route is STREAM_RAW_PREDICT or rq.checked_flag(parsed, "stream")
    facts = Facts(route, rq.checked_model(parts.model), stream, size, parsed)
    messages_facts(facts, parsed, size)
    return facts


def _predict_facts(parts: Parts, body: bytes) -> Facts:
    if not _is_embedding(parts.model):
        raise Refusal(
            "route_not_metered",
            f"predict is metered for text embeddings only, and '{parts.model}' is none: its cost "
            "could not be known.",
        )
    parsed = rq.parse_body(body)
    instances = as_list(parsed.get("instances"))
    size = RequestSize(len(body), inputs=max(1, len(instances)), generates=False)
    return Facts(PREDICT, rq.checked_model(parts.model), False, size, parsed)


class LocatedGenerateReader(GenerateReader):
    """Gemini's replies, priced by location."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self._location = location

    def reading(self) -> Reading:
        reading = super().reading()
        if reading.usage is not None:
            reading.usage.inference_geo = self._location
        return reading


class LocatedMessageReader(MessageReader):
    """Anthropic's replies, priced by location."""

    def __init__(self, location: str) -> None:
        super().__init__({})
        self._location = location

    def _set_terms(self, usage: Usage) -> None:
        super()._set_terms(usage)
        usage.inference_geo = self._location


class PredictMeter:
    """Embeddings by `predict`: each prediction counts its own tokens, in a reply of any size."""

    __slots__ = ("_held", "_location", "_tokens", "ended")

    def __init__(self, location: str) -> None:
        self.ended = False  # a document ends with its body
        self._location = location
        self._held = b""  # the end of what was fed: a count may straddle the pieces
        self._tokens = -1  # none was seen

    def feed(self, data: bytes) -> bytes:
        window, start = self._held + data, 0
        for found in _counts_in(window):
            self._tokens = max(self._tokens, 0) + min(int(found[1]), COUNT_MAX)
            start = found.end()
        self._held = window[max(start, len(window) - _COUNT_BYTES_MAX) :]
        return data

    def finish(self) -> bytes:
        return b""

    def reading(self) -> Reading:
        if self._tokens < 0:
            return Reading(usage=None, complete=True)
        usage = Usage(input_tokens=self._tokens, inference_geo=self._location)
        return Reading(usage=usage, complete=True)
