"""The two files of a batch in OpenAI's format: the requests in it, and their results."""

from collections.abc import Callable
from typing import Any

from msgspec import DecodeError, Raw, Struct, ValidationError
from msgspec.json import Decoder

from pricing.batch import MODELS_MAX, BatchSize, BatchSums
from proxy.errors import Refusal
from proxy.providers.base import Facts, Result, Route
from proxy.providers.fields import as_dict
from proxy.providers.lines import Lines, LineTooLong
from proxy.providers.meters import Reader, decode

FindRoute = Callable[[str, str], Route | None]  # method, path
FindFacts = Callable[[Route, str, bytes, bytes], Facts]  # route, path, query, body


class _Request(Struct):
    url: str
    body: Raw
    method: str = "POST"


class _Response(Struct):
    status_code: int = 0
    body: Raw = Raw(b"null")


class _Answer(Struct):
    custom_id: Any
    response: _Response | None = None


_decode_request = Decoder(_Request).decode
_decode_answer = Decoder(_Answer).decode


class RequestLines:
    """Sums up what bounds the requests of an input file. What cannot be priced is a `problem`, in
    words: the batch is refused, the upload is not."""

    def __init__(self, route: FindRoute, facts: FindFacts, allowed: frozenset[str]) -> None:
        self._route = route
        self._facts = facts
        self._allowed = allowed  # names of routes
        self._lines = Lines()
        self._number = 0
        self._problem = ""
        self._names: set[str] = set()
        self._sizes: dict[str, BatchSize] = {}

    def feed(self, data: bytes) -> None:
        if self._problem:
            return
        try:
            lines = self._lines.feed(data)
        except LineTooLong as exc:
            self._problem = str(exc)
            return
        for line in lines:
            self._read(line)

    def requests(self) -> dict[str, object]:
        """What is to be known of the file, JSON-ready: `RequestsOf` reads it."""
        self._read(self._lines.finish())
        if not self._problem and not self._sizes:
            self._problem = "it has no requests"
        if self._problem:
            return {"problem": self._problem}
        (route,) = self._names
        parts = [[model, size.as_dict()] for model, size in self._sizes.items()]
        return {"route": route, "parts": parts}

    def _read(self, line: bytes) -> None:
        self._number += 1
        if self._problem or not line.strip():
            return
        try:
            self._add(_decode_request(line))
        except (DecodeError, ValidationError, UnicodeDecodeError, RecursionError) as exc:
            self._problem = f"line {self._number} is no request of a batch ({exc})"
        except Refusal as refusal:
            self._problem = f"line {self._number}: {refusal.message}"

    def _add(self, request: _Request) -> None:
        route = self._route(request.method, request.url)
        if route is None or route.name not in self._allowed:
            self._problem = f"line {self._number}: batches to {request.url!r} cannot be metered"
            return
        self._names.add(route.name)
        facts = self._facts(route, request.url, b"", bytes(request.body))
        if facts.fallbacks:
            self._problem = f"line {self._number} names several models: name one"
        elif facts.tool_models:
            self._problem = f"line {self._number} makes images, which batches have no price for"
        elif len(self._names) > 1:
            self._problem = f"line {self._number} is for another endpoint than those before"
        elif facts.model not in self._sizes and len(self._sizes) >= MODELS_MAX:
            self._problem = f"it has requests to more than {MODELS_MAX} models"
        else:
            self._sizes.setdefault(facts.model, BatchSize()).add(facts.size)


def parts_of(requests: dict[str, Any]) -> tuple[tuple[str, BatchSize], ...]:
    """The parts of a batch, most requests first, from what is known of its file."""
    parts = [(str(model), BatchSize(**size)) for model, size in requests["parts"]]
    return tuple(sorted(parts, key=lambda part: -part[1].requests))


class AnswerLines:
    """Sums up the usage of a batch's output file; no result for any other file."""

    def __init__(self, reader: Callable[[dict[str, object]], Reader]) -> None:
        self._reader = reader  # of the answer to one request, by its body
        self._lines = Lines()
        self._sums = BatchSums()
        self.answers = 0
        self._other = False  # something not understood: nothing is settled from it

    def feed(self, data: bytes) -> None:
        if self._other:
            return
        try:
            lines = self._lines.feed(data)
        except LineTooLong:
            self._other = True
            return
        for line in lines:
            self._read(line)

    def result(self) -> Result | None:
        self._read(self._lines.finish())
        if self._other:
            return None
        return Result([*self._sums.groups()])

    def _read(self, line: bytes) -> None:
        if self._other or not line.strip():
            return
        try:
            answer = _decode_answer(line)
        except (DecodeError, ValidationError, UnicodeDecodeError, RecursionError):
            self._other = True
            return
        self.answers += 1
        response = answer.response
        if response is None or response.status_code >= 400:
            return  # refused, expired or cancelled: costs nothing
        body = as_dict(decode(bytes(response.body)))
        reader = self._reader(body)
        reader.document(body)
        reading = reader.reading()
        if reading.usage is not None:
            self._sums.add(reading.model, reading.usage)
        else:
            self._other = True
