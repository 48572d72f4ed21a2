"""Meters shared by the dialects: they cut a reply into JSON documents; a `Reader` reads those.

A stream is scanned, not parsed: `Reader.needs` says by a byte search whether a block of events
can matter. What is kept per stream is bounded: one incomplete event, the last block, one block
with usage, and a 16 KB sample from which the output of a cut stream is estimated.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import DecodeError, json

from proxy.providers.base import Reading
from proxy.providers.fields import as_dict, as_list, object_after, text_after
from proxy.sse import TAIL_BYTES, ArrayElements, EventBlocks, LineBlocks, event_data

BODY_BYTES_MAX = 2**21  # a JSON reply larger than this is read from its two ends only
SAMPLE_BYTES = 2**14
BYTES_PER_TOKEN = 4  # of text, for estimates
LAST_EVENTS = 3  # finish, usage and [DONE] may come as one block

OPENING_BLOCKS_MAX = 4  # searched for the model: Azure's first chunk names none
COMMENT = ord(":")
# What a block needs: nothing; parsing if it is the last such block; parsing.
SKIP, KEEP, PARSE = 0, 1, 2


class Reader(Protocol):
    """Reads one reply's documents: the body, or the events of a stream. State of one call.

    `document` is idempotent: a document may be shown twice.
    """

    usage_key: bytes  # for replies too large to parse
    finished: bool  # the dialect's own end was seen

    def needs(self, block: bytes) -> int: ...

    def ends(self, block: bytes) -> bool:
        """Whether the dialect's last event is in a block of whole events."""

    def document(self, document: dict[str, object]) -> None: ...

    def marker(self, data: bytes) -> None:
        """Event data that is not JSON, e.g. `[DONE]`."""

    def fragment(self, usage: dict[str, object], model: str) -> None:
        """What was found in a document too large to parse."""

    def text_bytes(self, document: dict[str, object]) -> int:
        """Bytes of generated text in a document, for estimates."""

    def reading(self) -> Reading: ...


def decode(data: bytes) -> object:
    """JSON or None."""
    try:
        return json.decode(data)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return None


_TEXT_KEYS = frozenset(
    (
        *("text", "content", "completion", "transcript", "refusal", "partial_json"),
        *("reasoning", "reasoning_content", "thinking"),
        *("name", "arguments", "input", "code", "query"),
    )
)


def text_bytes(value: object) -> int:
    """Bytes of generated text in parts of a reply: strings under the keys that carry text."""
    total = 0
    stack = [value]
    while stack:
        value = stack.pop()
        if type(value) is dict:
            for key, inner in value.items():
                if type(inner) is str:
                    if key in _TEXT_KEYS:
                        total += len(inner.encode("utf-8", "replace"))
                elif key == "args":  # of a Gemini function call
                    total += len(json.encode(inner))
                elif type(inner) is dict or type(inner) is list:
                    stack.append(inner)
        elif type(value) is list:
            stack.extend(value)
    return total


def is_event_stream(content_type: str, *, expected: bool) -> bool:
    """What a reply's content type says; `expected` where it says neither events nor JSON."""
    if content_type == "application/json":
        return False
    content_type = content_type.lower()
    if "event-stream" in content_type:
        return True
    return expected and "json" not in content_type


class JsonMeter:
    """A reply that is one JSON document."""

    __slots__ = ("_parts", "_plain", "_reader", "_size", "_truncated", "ended")

    def __init__(
        self, reader: Reader, plain: Callable[[bytes], Reading | None] | None = None
    ) -> None:
        self._reader = reader
        self._plain = plain  # reads the usual document, None of any other
        self._parts: list[bytes] = []
        self._size = 0
        self._truncated = b""  # the first bytes of a body too large to hold
        self.ended = False  # a document ends with its body

    def feed(self, data: bytes) -> bytes:
        self._parts.append(data)
        self._size = size = self._size + len(data)
        if size > BODY_BYTES_MAX:
            held = b"".join(self._parts)
            self._truncated = self._truncated or held[:TAIL_BYTES]
            self._parts = [held[-TAIL_BYTES:]]
            self._size = TAIL_BYTES
        return data

    def finish(self) -> bytes:
        return b""

    def reading(self) -> Reading:
        parts_of_body = self._parts
        body = parts_of_body[0] if len(parts_of_body) == 1 else b"".join(parts_of_body)
        reader = self._reader
        if self._truncated:
            usage = object_after(body, reader.usage_key)
            reader.fragment(usage, text_after(self._truncated + body, b"model"))
            reader.finished = body.rstrip().endswith((b"}", b"]"))
            return reader.reading()
        if self._plain is not None and (plain := self._plain(body)) is not None:
            return plain
        document = decode(body)
        parts: list[dict[str, object]]
        if type(document) is dict:
            parts = [document]
        else:
            parts = [part for part in as_list(document) if type(part) is dict]
        for part in parts:
            reader.document(part)
        reader.finished = document is not None
        reading = reader.reading()
        if reading.usage is None:
            texts = sum(reader.text_bytes(part) for part in parts)
            reading.delivered_output_tokens = -(-texts // BYTES_PER_TOKEN)
        return reading


class EventMeter:
    """A reply that is a server-sent event stream."""

    __slots__ = ("_bytes", "_kept", "_last", "_reader", "_sample", "_sampled", "_splitter", "ended")

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._splitter: EventBlocks | LineBlocks = EventBlocks()
        self._last = b""  # the last block with data
        self._kept = b""  # the last block that may carry usage
        self._bytes = 0
        self.ended = False
        self._sample: list[bytes] = []
        self._sampled = 0

    def feed(self, data: bytes) -> bytes:
        block = self._splitter.feed(data)
        if block:
            self._scan(block)
        return data

    def finish(self) -> bytes:
        rest = self._splitter.finish()
        if rest:
            self._scan(rest)
        return b""

    def _scan(self, block: bytes) -> int:
        """Note a block of whole events; return what its reader needed of it."""
        self._bytes += len(block)
        if block[0] != COMMENT or b"data:" in block:
            self._last = block
        if self._sampled < SAMPLE_BYTES:
            self._sample.append(block[:SAMPLE_BYTES])
            self._sampled += min(len(block), SAMPLE_BYTES)
        if self._reader.ends(block):
            self.ended = True
        need = self._reader.needs(block)
        if need:
            if need == PARSE:
                self._parse_kept()  # documents are shown in order
                self._parse(block)
            else:
                self._kept = block
        return need

    def _parse_kept(self) -> None:
        if self._kept:
            kept, self._kept = self._kept, b""
            self._parse(kept)

    def _documents(self, block: bytes) -> list[bytes]:
        return event_data(block)

    def _parse(self, block: bytes, *, last: int = 0) -> None:
        documents = self._documents(block)
        for data in documents[-last:] if last else documents:
            if last or len(documents) == 1 or self._reader.needs(data):
                self._show(data)

    def _show(self, data: bytes) -> None:
        reader = self._reader
        document = decode(data) if data[:1] != b"[" else data  # `[DONE]`
        if type(document) is dict:
            reader.document(document)
        elif document is not None:
            reader.marker(data)
        elif usage := object_after(data, reader.usage_key):
            reader.fragment(usage, text_after(data, b"model"))

    def reading(self) -> Reading:
        self._parse_kept()
        if self._last:
            self._parse(self._last, last=LAST_EVENTS)
        reading = self._reader.reading()
        if not reading.model:  # no event that was parsed names it
            opening = b"".join(self._sample[:OPENING_BLOCKS_MAX])
            reading.model = text_after(opening, b"model")
            reading.response_id = reading.response_id or text_after(opening, b"id")
        if reading.usage is None or reading.partial:
            reading.delivered_output_tokens = self._delivered()
        return reading

    def _delivered(self) -> int:
        """Output so far: tokens in the sample, scaled by bytes. An event with text is one token
        or its text in bytes / 4, whichever is more."""
        tokens = 0
        for block in self._sample:
            for data in self._documents(block):
                text = self._reader.text_bytes(as_dict(decode(data)))
                tokens += -(-text // BYTES_PER_TOKEN)
        return tokens * self._bytes // self._sampled if self._sampled else 0


class LinesMeter(EventMeter):
    """A reply that is a stream of lines, each a JSON object."""

    __slots__ = ()

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self._splitter = LineBlocks()

    def _documents(self, block: bytes) -> list[bytes]:
        return [line for line in block.splitlines() if line.strip()]


class ArrayMeter(EventMeter):
    """A reply that is a JSON array of objects, sent piece by piece."""

    __slots__ = ("_elements",)

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self._elements = ArrayElements()

    def feed(self, data: bytes) -> bytes:
        for element in self._elements.feed(data):
            self._scan(element)
        return data

    def finish(self) -> bytes:
        return b""

    def _documents(self, block: bytes) -> list[bytes]:
        return [block]
