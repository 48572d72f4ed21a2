"""Readers of Amazon Bedrock's replies: converse, and each model's own shape under invoke.

The reply never names the model as it is priced (the region of an inference profile is lost), so
none is reported here: the price is that of the model called.
"""

import re

from msgspec import DecodeError, Struct, ValidationError
from msgspec.json import Decoder, encode

from pricing.usage import Usage
from proxy.providers.anthropic import MessageReader
from proxy.providers.base import Reading
from proxy.providers.event_stream import Messages, payload, text_headers
from proxy.providers.fields import (
    as_count,
    as_dict,
    as_list,
    as_text,
    consistent,
    first_count,
    first_dict,
)
from proxy.providers.meters import PARSE, SKIP, EventMeter, Reader, decode, text_bytes
from proxy.providers.openai_meter import usage_from

METRICS = "amazon-bedrock-invocationMetrics"
SEPARATOR = b"\0"  # between documents: no JSON holds this byte
HEADER_COUNTS = {  # reply headers of invoke, and the names of the same counts in its metrics
    "x-amzn-bedrock-input-token-count": "inputTokenCount",
    "x-amzn-bedrock-output-token-count": "outputTokenCount",
    "x-amzn-bedrock-cache-read-input-token-count": "cacheReadInputTokenCount",
    "x-amzn-bedrock-cache-write-input-token-count": "cacheWriteInputTokenCount",
}
# In `Facts.provider_options`, besides the headers of the reply by name.
REQUESTED_TIER = "requested-tier"
ECHOED_TIER = "echoed-tier"
_STANDARD_TIERS = ("default", "standard", "reserved")  # reserved capacity is not paid by token
_ANTHROPIC_TYPES = frozenset(
    (
        *("message", "message_start", "message_delta", "message_stop", "completion"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
    )
)

_search_usage = re.compile(rb'"usage"\s*:\s*\{').search
_search_metrics = re.compile(rb'"amazon-bedrock-invocationMetrics"\s*:\s*\{').search
_search_exception = re.compile(rb'"exception"\s*:\s*"').search


class Chunk(Struct):
    """The payload of a `chunk` message: the model's own event, in base64."""

    bytes: bytes


_chunk = Decoder(Chunk).decode


def chunk_document(message: bytes) -> bytes:
    """The model's event in a message of invoke's stream."""
    try:
        return _chunk(payload(message)).bytes
    except (DecodeError, ValidationError, UnicodeDecodeError):
        return b""


def exception_of(message: bytes) -> bytes:
    """A document that names the exception of a message; b"" for an event."""
    if b"exception" not in message and b":error-code" not in message:
        return b""
    headers = text_headers(message)
    name = headers.get(":exception-type") or headers.get(":error-code")
    return encode({"exception": name}) if name else b""


class MessageMeter(EventMeter):
    """A reply that is an event stream of Amazon's encoding."""

    __slots__ = ("_chunked", "_messages")

    def __init__(self, reader: Reader, *, chunked: bool) -> None:
        super().__init__(reader)
        self._messages = Messages()
        self._chunked = chunked  # events are wrapped: invoke

    def feed(self, data: bytes) -> bytes:
        documents = [self._document(message) for message in self._messages.feed(data)]
        block = SEPARATOR.join(filter(None, documents))
        if block:
            self._scan(block)
        return data

    def _document(self, message: bytes) -> bytes:
        exception = exception_of(message)
        if exception:
            return exception
        return chunk_document(message) if self._chunked else payload(message)

    def finish(self) -> bytes:
        return b""

    def _documents(self, block: bytes) -> list[bytes]:
        return block.split(SEPARATOR)

    def reading(self) -> Reading:
        reading = super().reading()
        reading.model = ""
        return reading


def _tier(echoed: object, options: dict[str, str]) -> str:
    """The tier a call was served at: as echoed, else as requested; "" for the standard one."""
    tier = as_text(echoed) or options.get(REQUESTED_TIER, "")
    return "" if tier in _STANDARD_TIERS else tier


def converse_usage(fields: dict[str, object]) -> Usage | None:
    """A `usage` object of converse, which leaves the cache out of `inputTokens`. Nova's own shape
    calls the same counts ...TokenCount."""
    if "inputTokens" not in fields and "outputTokens" not in fields:
        return None
    read = first_count(fields, "cacheReadInputTokens", "cacheReadInputTokenCount") or 0
    written = first_count(fields, "cacheWriteInputTokens", "cacheWriteInputTokenCount") or 0
    long_lived = sum(
        as_count(as_dict(part).get("inputTokens"))
        for part in as_list(fields.get("cacheDetails"))
        if as_dict(part).get("ttl") == "1h"
    )
    return consistent(
        Usage(
            input_tokens=as_count(fields.get("inputTokens")) + read + written,
            output_tokens=as_count(fields.get("outputTokens")),
            cache_read_tokens=read,
            cache_write_tokens=written,
            cache_write_1h_tokens=long_lived,
        )
    )


class ConverseReader:
    """converse, and converse-stream, whose last event has the usage."""

    usage_key = b"usage"

    def __init__(self, options: dict[str, str]) -> None:
        self.finished = False
        self._options = options
        self._usage: Usage | None = None
        self._error = ""

    def needs(self, block: bytes) -> int:
        return PARSE if _search_usage(block) or _search_exception(block) else SKIP

    def ends(self, block: bytes) -> bool:
        return b'"metrics"' in block and any(
            "usage" in as_dict(decode(document)) for document in block.split(SEPARATOR)
        )

    def document(self, document: dict[str, object]) -> None:
        if "exception" in document:
            self._error = as_text(document["exception"])[:64]
        fields = document.get("usage")
        if type(fields) is not dict:
            return
        usage = converse_usage(fields)
        if usage is not None:
            tier = as_dict(document.get("serviceTier")).get("type")
            usage.service_tier = _tier(tier, self._options)
            self._usage = usage
            self.finished = True

    def marker(self, data: bytes) -> None:
        """Every event of this API is JSON."""

    def fragment(self, usage: dict[str, object], model: str) -> None:
        self.document({"usage": usage})

    def text_bytes(self, document: dict[str, object]) -> int:
        return text_bytes([document.get("delta"), document.get("output")])

    def reading(self) -> Reading:
        return Reading(
            usage=self._usage,
            response_id=self._options.get("x-amzn-requestid", ""),
            complete=self.finished,
            error=self._error or self._options.get("x-amzn-errortype", ""),
        )


class InvokeReader:
    """invoke: the body of whatever model, else the metrics of a stream's last event, else the
    counts in the reply's headers."""

    usage_key = b"usage"

    def __init__(self, options: dict[str, str], *, streamed: bool) -> None:
        self.finished = False
        self._options = options
        self._streamed = streamed
        self._messages = MessageReader({})
        self._body: Usage | None = None
        self._counts: dict[str, int] = {}  # of shapes that report input and output apart
        self._metrics: dict[str, object] = {}
        self._error = ""

    def needs(self, block: bytes) -> int:
        if _search_usage(block) or _search_metrics(block) or _search_exception(block):
            return PARSE
        return SKIP

    def ends(self, block: bytes) -> bool:
        return _search_metrics(block) is not None

    def document(self, document: dict[str, object]) -> None:
        if "exception" in document:
            self._error = as_text(document["exception"])[:64]
            return
        metrics = document.get(METRICS)
        if type(metrics) is dict:
            self._metrics = metrics
            self.finished = True
        if document.get("type") in _ANTHROPIC_TYPES:
            self._messages.document(document)
            return
        fields = first_dict(document, "usage") or as_dict(
            as_dict(document.get("metadata")).get("usage")
        )
        if fields:
            self._body = converse_usage(fields) or usage_from(fields) or self._body
        if not self._streamed:  # events count what has been so far; the metrics come last
            self._count_apart(document)

    def _count_apart(self, document: dict[str, object]) -> None:
        self._count("input", document, "prompt_token_count", "inputTextTokenCount")
        self._count("output", document, "generation_token_count")
        results = as_list(document.get("results"))
        if results:
            tokens = [as_count(as_dict(result).get("tokenCount")) for result in results]
            self._counts["output"] = sum(tokens)

    def _count(self, part: str, document: dict[str, object], *names: str) -> None:
        count = first_count(document, *names)
        if count is not None:
            self._counts[part] = count

    def marker(self, data: bytes) -> None:
        """Every event of this API is JSON."""

    def fragment(self, usage: dict[str, object], model: str) -> None:
        if "input_tokens" in usage:
            self._messages.fragment(usage, "")
        elif usage:
            self.document({"usage": usage})

    def text_bytes(self, document: dict[str, object]) -> int:
        own = [{"text": document.get(name)} for name in ("generation", "outputText")]
        return text_bytes([{**document, METRICS: None}, *own])

    def reading(self) -> Reading:
        usage = self._usage()
        if usage is not None:
            echoed = self._options.get(ECHOED_TIER) or usage.service_tier
            usage.service_tier = _tier(echoed, self._options)
        return Reading(
            usage=usage,
            response_id=self._options.get("x-amzn-requestid", ""),
            complete=self.finished,
            error=self._error or self._options.get("x-amzn-errortype", ""),
            partial=usage is not None and self._streamed and not self._final(),
        )

    def _final(self) -> bool:
        messages = self._messages.reading()
        return self.finished or (messages.usage is not None and not messages.partial)

    def _usage(self) -> Usage | None:
        metrics = self._metrics or {
            name: int(count)
            for header, name in HEADER_COUNTS.items()
            if (count := self._options.get(header, "")).isdecimal()
        }
        messages = self._messages.reading()
        if messages.usage is not None:
            if messages.partial and "outputTokenCount" in metrics:  # the stream had no last count
                messages.usage.output_tokens = as_count(metrics["outputTokenCount"])
            return messages.usage
        if self._body is not None:
            return self._body
        if metrics:
            return _metrics_usage(metrics, self._counts)
        if self._counts:
            return _metrics_usage({}, self._counts)
        return None


def _metrics_usage(metrics: dict[str, object], counts: dict[str, int]) -> Usage:
    """Bedrock's own counts, which leave the cache out of the input; what the body says itself
    comes first."""
    usage = converse_usage(
        {
            "inputTokens": counts.get("input", metrics.get("inputTokenCount", 0)),
            "outputTokens": counts.get("output", metrics.get("outputTokenCount", 0)),
            "cacheReadInputTokens": metrics.get("cacheReadInputTokenCount", 0),
            "cacheWriteInputTokens": metrics.get("cacheWriteInputTokenCount", 0),
        }
    )
    assert usage is not None
    return usage
