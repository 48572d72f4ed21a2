"""Work that OpenAI's API takes and bills later: files, batches, background responses.

A batch is held by what was read off its input file when that was uploaded, and settled by the
batch's own usage or by its output file; a background response by whichever read of it first has
usage (https://platform.openai.com/docs/guides/batch, /docs/guides/background).
"""

import re
from collections.abc import Callable

from pricing.tiers import BATCH
from pricing.usage import RequestSize
from proxy.errors import Refusal
from proxy.providers import requests as rq
from proxy.providers.base import Facts, Found, Reading, Result, Route, Watcher
from proxy.providers.batch_lines import AnswerLines, RequestLines
from proxy.providers.fields import as_dict, as_list, as_text
from proxy.providers.form_stream import FormStream, boundary_of
from proxy.providers.meters import (
    BODY_BYTES_MAX,
    BYTES_PER_TOKEN,
    PARSE,
    EventMeter,
    JsonMeter,
    Reader,
    decode,
    is_event_stream,
)
from proxy.providers.openai_meter import ChatReader, ResponsesReader, usage_from

DIALECTS = frozenset(("openai", "azure", "groq"))  # whose batches have this form
FILES = Route("files", "free", watched=True)
BATCHES = Route("batches", "metered", "batch")
_FILE_CONTENT = Route("files.content", "free", watched=True)
_BATCH = Route("batches.read", "free", watched=True)
_RESPONSE = Route("responses.read", "free", watched=True)

EXAMPLES = (
    ("GET", "/v1/files/file-1/content", _FILE_CONTENT),
    ("GET", "/v1/batches", _BATCH),
    ("GET", "/v1/batches/batch_1", _BATCH),
    ("POST", "/v1/batches/batch_1/cancel", _BATCH),
    ("GET", "/v1/responses/resp_1", _RESPONSE),
    ("POST", "/v1/responses/resp_1/cancel", _RESPONSE),
)
_BATCHED = frozenset(("chat.completions", "completions", "embeddings", "responses"))
_PURPOSE_BYTES_MAX = 64
_FINAL = frozenset(("completed", "failed", "expired", "cancelled"))
_TERMINAL = frozenset(("completed", "failed", "incomplete", "cancelled"))

_match_content = re.compile(r".*/files/([^/]+)/content").fullmatch
_match_batch = re.compile(r".*/batches(?:/([^/]+)(/cancel)?)?").fullmatch
_match_response = re.compile(r".*/responses/([^/]+)(/cancel)?").fullmatch
_search_created = re.compile(rb"response\.(?:created|queued)").search


def watched_route(method: str, path: str) -> Route | None:
    """Reads, and the cancelling, of what tells the usage of other calls."""
    end = rq.path_end(path)
    if end is None:
        return None
    if method == "GET" and _match_content(end):
        return _FILE_CONTENT
    for match, route in ((_match_batch, _BATCH), (_match_response, _RESPONSE)):
        found = match(end)
        if found is not None and method == ("POST" if found[2] else "GET"):
            return route
    return None


def refused(posts: rq.Posts) -> rq.Posts:
    """The routes of a host whose batches are not metered."""
    return tuple(
        (end, Route(route.name, "unmetered") if route in (FILES, BATCHES) else route)
        for end, route in posts
    )


def background(taken: bool) -> str:
    """`Facts.later` of a background response. Raises Refusal."""
    if taken:
        return "response"
    raise Refusal(
        "route_not_metered",
        "background responses are not supported here: their usage arrives only when they are "
        "polled. Send the request without `background`, streamed if it takes long.",
    )


def batch_facts(route: Route, body: bytes, find_route: Callable[..., Route | None]) -> Facts:
    """Its parts are filled in from what is known of the input file."""
    parsed = rq.parse_body(body)
    file_id, endpoint = parsed.get("input_file_id"), parsed.get("endpoint")
    if type(file_id) is not str or not file_id:
        raise rq.bad("`input_file_id` is missing or not a string: name the uploaded file")
    if type(endpoint) is not str:
        raise rq.bad("`endpoint` is missing or not a string: name the API of the requests")
    size = RequestSize(len(body), generates=False, service_tier=BATCH)
    facts = Facts(route, "", False, size, parsed, clampable=False, later="batch")
    target = find_route("POST", endpoint)
    facts.input_file, facts.input_route = file_id, target.name if target is not None else ""
    return facts


class BatchReader(ChatReader):
    """The reply to a new batch: its id, and never a usage."""

    def reading(self) -> Reading:
        return Reading(None, response_id=self._id, error=self._error, opened=self._id)


class BackgroundReader(ResponsesReader):
    """A response that goes on without its caller; `state` is the last that was told."""

    def __init__(self) -> None:
        super().__init__()
        self.background = False
        self.state = ""
        self.text_seen = 0

    def needs(self, block: bytes) -> int:
        return PARSE if _search_created(block) else super().needs(block)

    def document(self, document: dict[str, object]) -> None:
        super().document(document)
        body = as_dict(document.get("response")) or document
        if body.get("object") == "response":
            self.background = body.get("background") is True
            self.state = as_text(body.get("status"))
            self.text_seen = self.text_bytes(body)

    def reading(self) -> Reading:
        reading = super().reading()
        reading.complete = self.state in _TERMINAL
        reading.opened = "" if reading.complete else reading.response_id
        return reading

    def result(self) -> Result | None:
        """Its final usage; None: it goes on, or was no background response."""
        if not self.background or self.state not in _TERMINAL:
            return None
        reading = super().reading()
        if reading.usage is not None:
            return Result([(reading.model, reading.usage.as_dict())])
        if self.state == "failed":
            return Result([], ending="upstream_error")
        made: dict[str, object] = {"output_tokens": -(-self.text_seen // BYTES_PER_TOKEN)}
        return Result([("", made)], source="estimated", ending="cut")


def answer_reader(body: dict[str, object]) -> Reader:
    """Of the answer to one request of a batch."""
    return ResponsesReader() if body.get("object") == "response" else ChatReader()


# --- watchers ------------------------------------------------------------------------------


class _ReplyWatcher:
    """Reads nothing of a request, edits nothing."""

    edits = False

    def feed_request(self, data: bytes) -> None: ...

    def begin(self, content_type: str) -> None: ...

    def edited(self, body: bytes, base: bytes) -> bytes:
        return body


class DocumentWatcher(_ReplyWatcher):
    """A reply that is one JSON document."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= BODY_BYTES_MAX:
            self._parts.append(data)

    def document(self) -> dict[str, object]:
        """{} if it is none, or too large."""
        return as_dict(decode(b"".join(self._parts))) if self._size <= BODY_BYTES_MAX else {}


class UploadWatcher(DocumentWatcher):
    """The input file of a batch, read while it is uploaded. Which purpose the upload has may be
    said behind the file."""

    def __init__(self, boundary: bytes, lines: RequestLines) -> None:
        super().__init__()
        self._form = FormStream(boundary)
        self._lines = lines
        self._purpose = b""
        self._seen: set[str] = set()

    def feed_request(self, data: bytes) -> None:
        for piece in self._form.feed(data):
            if piece.name not in ("file", "purpose"):
                continue
            if piece.first:
                if piece.name in self._seen or piece.file is not (piece.name == "file"):
                    raise rq.bad(f"the form needs `{piece.name}` once, as its kind of part")
                self._seen.add(piece.name)
            elif piece.file:
                self._lines.feed(piece.data)
            else:
                self._purpose = (self._purpose + piece.data)[:_PURPOSE_BYTES_MAX]

    def found(self) -> list[Found]:
        file_id = as_text(self.document().get("id"))
        if not file_id or not self._form.complete or self._purpose.strip() != b"batch":
            return []
        return [Found("file", file_id, requests=self._lines.requests())]


class BatchWatcher(DocumentWatcher):
    """A batch, or a page of them."""

    def found(self) -> list[Found]:
        document = self.document()
        batches = as_list(document.get("data")) or [document]
        return [found for batch in batches if (found := batch_found(as_dict(batch))) is not None]


def batch_found(batch: dict[str, object]) -> Found | None:
    """None: it goes on."""
    id_ = as_text(batch.get("id"))
    if batch.get("object") != "batch" or not id_ or batch.get("status") not in _FINAL:
        return None
    output = as_text(batch.get("output_file_id"))
    found = Found("batch", id_, outputs=[output] if output else [])
    usage = usage_from(as_dict(batch.get("usage")))
    if usage is not None and usage.total_tokens:
        usage.service_tier, usage.largest_input_tokens = BATCH, 1
        model = as_text(batch.get("model"))
        found.result = Result([(model, usage.as_dict())], total=True)
    elif not output:  # none of its requests was finished
        found.result = Result([])
    return found


class ContentWatcher(_ReplyWatcher):
    """A file that is read: the results of a batch, or any other."""

    def __init__(self, file_id: str, reader: Callable[[dict[str, object]], Reader]) -> None:
        self._file_id = file_id
        self._lines = AnswerLines(reader)

    def feed(self, data: bytes) -> None:
        self._lines.feed(data)

    def found(self) -> list[Found]:
        result = self._lines.result()
        if result is None or not (result.groups or self._lines.answers):
            return []
        return [Found("file", self._file_id, result=result)]


class ResponseWatcher(_ReplyWatcher):
    """A response, whole or from some event on."""

    def __init__(self) -> None:
        self._reader = BackgroundReader()
        self._meter: EventMeter | JsonMeter = JsonMeter(self._reader)

    def begin(self, content_type: str) -> None:
        if is_event_stream(content_type, expected=False):
            self._meter = EventMeter(self._reader)

    def feed(self, data: bytes) -> None:
        self._meter.feed(data)

    def found(self) -> list[Found]:
        self._meter.finish()
        response_id = self._meter.reading().response_id
        result = self._reader.result()
        if result is None or not response_id:
            return []
        return [Found("response", response_id, result=result)]


def watcher(
    route: Route,
    path: str,
    content_type: bytes,
    *,
    lines: Callable[[frozenset[str]], RequestLines],
    reader: Callable[[dict[str, object]], Reader] = answer_reader,
) -> Watcher | None:
    """`lines` makes what reads an input file's requests."""
    if route is FILES:
        boundary = boundary_of(content_type)
        return UploadWatcher(boundary, lines(_BATCHED)) if boundary else None
    if route is _FILE_CONTENT:
        found = _match_content(rq.path_end(path) or "")
        return ContentWatcher(found[1], reader) if found else None
    return BatchWatcher() if route is _BATCH else ResponseWatcher()
