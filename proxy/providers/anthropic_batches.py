"""Message batches: the requests are in the body, the results in a file of lines
(https://docs.anthropic.com/en/docs/build-with-claude/batch-processing).
"""

import re
from collections.abc import Callable, Iterator

from msgspec import DecodeError, Raw, Struct, ValidationError
from msgspec.json import Decoder

from pricing.batch import MODELS_MAX, BatchSize, BatchSums
from pricing.tiers import BATCH
from pricing.usage import RequestSize
from proxy.providers import requests as rq
from proxy.providers.base import Facts, Found, Reading, Result, Route, Watcher
from proxy.providers.fields import as_count, as_dict, as_list, as_text
from proxy.providers.lines import Lines, LineTooLong
from proxy.providers.meters import SKIP, Reader
from proxy.providers.openai_batches import DocumentWatcher

BATCHES = Route("messages.batches", "metered", "batch")
_BATCH = Route("messages.batches.read", "free", watched=True)
_RESULTS = Route("messages.batches.results", "free", watched=True)

EXAMPLES = (
    ("GET", "/v1/messages/batches", _BATCH),
    ("GET", "/v1/messages/batches/msgbatch_1", _BATCH),
    ("POST", "/v1/messages/batches/msgbatch_1/cancel", _BATCH),
    ("GET", "/v1/messages/batches/msgbatch_1/results", _RESULTS),
)
STEP = 200  # requests read without a break, so that other calls are not kept waiting
_match = re.compile(r".*/messages/batches(?:/([^/]+)(?:(/cancel)|(/results))?)?").fullmatch
_replace_url = re.compile(rb'("results_url"\s*:\s*")[^"]*/messages/batches(/[^"/]+/results")').sub
_find_base = re.compile(rb".*/messages/batches").match

FindFacts = Callable[[bytes], Facts]  # of one request, by its parameters


class _Request(Struct):
    params: Raw


class _Batch(Struct):
    requests: list[_Request]


class _Line(Struct):
    result: dict[str, object]


_decode_batch = Decoder(_Batch).decode
_decode_line = Decoder(_Line).decode


def watched_route(method: str, path: str) -> Route | None:
    found = _match(rq.path_end(path) or "")
    if found is None or method != ("POST" if found[2] else "GET"):
        return None
    return _RESULTS if found[3] else _BATCH


def batch_facts(route: Route, body: bytes, find_facts: FindFacts) -> Facts:
    """Raises Refusal; its parts are read in steps."""
    try:
        batch = _decode_batch(body)
    except (DecodeError, ValidationError, UnicodeDecodeError, RecursionError) as exc:
        raise rq.bad(f"the body is no batch of messages ({exc})") from None
    if not batch.requests:
        raise rq.bad("`requests` is empty: a batch needs at least one")
    size = RequestSize(len(body), generates=False, service_tier=BATCH)
    facts = Facts(route, "", False, size, {}, clampable=False, later="batch")
    facts.steps = _read(facts, batch.requests, find_facts)
    return facts


def _read(facts: Facts, requests: list[_Request], find_facts: FindFacts) -> Iterator[None]:
    sizes: dict[str, BatchSize] = {}
    for number, request in enumerate(requests):
        one = find_facts(bytes(request.params))
        sizes.setdefault(one.model, BatchSize()).add(one.size)
        if len(sizes) > MODELS_MAX:
            raise rq.bad(f"the batch has requests to more than {MODELS_MAX} models: send several")
        if number % STEP == STEP - 1:
            yield
    facts.parts = tuple(sorted(sizes.items(), key=lambda part: -part[1].requests))


class CreatedReader:
    """The reply to a new batch: its id, and never a usage."""

    usage_key = b"usage"

    def __init__(self) -> None:
        self.finished = False
        self._id = self._error = ""

    def needs(self, block: bytes) -> int:
        return SKIP

    def ends(self, block: bytes) -> bool:
        return False

    def document(self, document: dict[str, object]) -> None:
        if document.get("type") == "message_batch":
            self._id = as_text(document.get("id"))
        elif document.get("type") == "error":
            self._error = as_text(as_dict(document.get("error")).get("type"))[:64] or "error"

    def marker(self, data: bytes) -> None:
        """No stream."""

    def fragment(self, usage: dict[str, object], model: str) -> None:
        """No usage."""

    def text_bytes(self, document: dict[str, object]) -> int:
        return 0

    def reading(self) -> Reading:
        return Reading(None, response_id=self._id, error=self._error, opened=self._id)


class BatchWatcher(DocumentWatcher):
    """A batch, or a page of them: where the results are is said as the client reaches it."""

    edits = True

    def found(self) -> list[Found]:
        document = self.document()
        batches = as_list(document.get("data")) or [document]
        return [found for batch in batches if (found := _batch_found(as_dict(batch))) is not None]

    def edited(self, body: bytes, base: bytes) -> bytes:
        found = _find_base(base)
        if found is None:
            return body
        return _replace_url(lambda url: url[1] + found[0] + url[2], body)


def _batch_found(batch: dict[str, object]) -> Found | None:
    """None: it goes on, or its results tell the rest."""
    if batch.get("type") != "message_batch" or batch.get("processing_status") != "ended":
        return None
    counts, id_ = as_dict(batch.get("request_counts")), as_text(batch.get("id"))
    if "succeeded" not in counts or as_count(counts["succeeded"]) or not id_:
        return None
    return Found("batch", id_, result=Result([]))


class ResultsWatcher:
    """The results of a batch, line by line; only those that succeeded cost something."""

    edits = False

    def __init__(self, batch_id: str, reader: Callable[[], Reader]) -> None:
        self._batch_id = batch_id
        self._reader = reader
        self._lines = Lines()
        self._sums = BatchSums()
        self._unclear = False

    def feed_request(self, data: bytes) -> None: ...

    def begin(self, content_type: str) -> None: ...

    def edited(self, body: bytes, base: bytes) -> bytes:
        return body

    def feed(self, data: bytes) -> None:
        if self._unclear:
            return
        try:
            lines = self._lines.feed(data)
        except LineTooLong:
            self._unclear = True
            return
        for line in lines:
            self._read(line)

    def found(self) -> list[Found]:
        self._read(self._lines.finish())
        if self._unclear:
            return []
        return [Found("batch", self._batch_id, result=Result(self._sums.groups()))]

    def _read(self, line: bytes) -> None:
        if self._unclear or not line.strip():
            return
        try:
            result = _decode_line(line).result
        except (DecodeError, ValidationError, UnicodeDecodeError, RecursionError):
            self._unclear = True
            return
        if result.get("type") != "succeeded":
            return
        reader = self._reader()
        reader.document(as_dict(result.get("message")))
        reading = reader.reading()
        if reading.usage is None:
            self._unclear = True
        else:
            self._sums.add(reading.model, reading.usage)


def watcher(route: Route, path: str, reader: Callable[[], Reader]) -> Watcher | None:
    if route is _RESULTS:
        found = _match(rq.path_end(path) or "")
        return ResultsWatcher(found[1], reader) if found else None
    return BatchWatcher()
