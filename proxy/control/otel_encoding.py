"""Spans of a call straight to OTLP's protobuf, field by field: what the SDK's objects and messages
would say, in a tenth of the time. A test holds it to OpenTelemetry's own encoder and messages.

Fields are those of opentelemetry/proto/trace/v1/trace.proto; comments give their numbers.
"""

import struct
from collections.abc import Mapping
from functools import lru_cache

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

from proxy.call_record import CallRecord
from proxy.control import otel_names as names
from proxy.control.otel_spans import (
    client_attributes,
    client_name,
    error_type,
    server_attributes,
    server_error,
    server_name,
    trace_state,
)

KNOWN_MAX = 2_048  # attributes that are kept encoded: most are the same in call after call
CHARS_MAX = 128  # of those that are
# New in every call, or nearly: they would push out the others.
_NEW = frozenset((names.REQUEST_ID, names.RESPONSE_ID, names.FIRST_CHUNK, names.URL_PATH))
_SERVER, _CLIENT = b"\x30\x02", b"\x30\x03"  # 6: kind
_UNSET, _ERROR = b"\x7a\x00", b"\x7a\x02\x18\x02"  # 15: status
_LOCAL, _REMOTE = b"\x85\x01\x00\x01\x00\x00", b"\x85\x01\x00\x03\x00\x00"  # 16: is_remote
_times = struct.Struct("<BQBQ").pack  # 7, 8: start and end
_double = struct.Struct("<Bd").pack

Value = str | int | float | bool


class EncodedSpan:
    """What waits in the SDK's queue of spans."""

    __slots__ = ("data",)
    context = SpanContext(1, 1, False, TraceFlags(TraceFlags.SAMPLED))  # what the queue looks at

    def __init__(self, data: bytes) -> None:
        self.data = data


class SpanEncoder:
    """Encodes the spans of one service."""

    def __init__(self, resource: Resource, version: str) -> None:
        scope = InstrumentationScope("tollkeeper", version)
        empty = ReadableSpan("", SpanContext(1, 1, False), resource=resource,
                             instrumentation_scope=scope)  # fmt: skip
        message = encode_spans([empty]).resource_spans[0]
        self._resource = _field(b"\x0a", message.resource.SerializeToString())
        self._scope = _field(b"\x0a", message.scope_spans[0].scope.SerializeToString())

    def of(self, call: CallRecord) -> list[EncodedSpan]:
        """As `Spans.of`."""
        start, end = call.start_ns, call.start_ns + call.duration_ns
        # 1: trace_id
        trace = b"\x0a\x10" + int(call.trace_id, 16).to_bytes(16, "big")
        state = trace_state(call.trace_state) if call.trace_state else ""
        after = _text(b"\x1a", state) if state else b""  # 3: trace_state
        server_id = int(call.span_id, 16).to_bytes(8, "big")
        found = []
        if call.forwarded_ns >= 0:
            client = (
                trace, b"\x12\x08", int(call.client_span_id, 16).to_bytes(8, "big"), after,
                b"\x22\x08", server_id,  # 4: parent_span_id
                _text(b"\x2a", client_name(call)), _CLIENT,
                _times(0x39, start + call.forwarded_ns, 0x41, end),
                _attributes(client_attributes(call)),
                _ERROR if error_type(call) else _UNSET, _LOCAL,
            )  # fmt: skip
            found.append(EncodedSpan(b"".join(client)))
        parent = b"\x22\x08" + int(call.parent_id, 16).to_bytes(8, "big") if call.parent_id else b""
        server = (
            trace, b"\x12\x08", server_id, after, parent,
            _text(b"\x2a", server_name(call)), _SERVER, _times(0x39, start, 0x41, end),
            _attributes(server_attributes(call)),
            _ERROR if server_error(call) else _UNSET, _REMOTE if parent else _LOCAL,
        )  # fmt: skip
        found.append(EncodedSpan(b"".join(server)))
        return found

    def request(self, spans: list[EncodedSpan]) -> bytes:
        """An ExportTraceServiceRequest: resource, scope, and in it the spans."""
        scope_spans = [self._scope, *(_field(b"\x12", span.data) for span in spans)]
        return _field(b"\x0a", self._resource + _field(b"\x12", b"".join(scope_spans)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(tag: bytes, data: bytes) -> bytes:
    size = len(data)
    return tag + (bytes((size,)) if size < 0x80 else _varint(size)) + data


def _text(tag: bytes, text: str) -> bytes:
    return _field(tag, text.encode())


def _attributes(found: Mapping[str, Value]) -> bytes:
    return b"".join(
        [
            _attribute(name, value)
            if name in _NEW or (type(value) is str and len(value) > CHARS_MAX)
            else _known(name, value)
            for name, value in found.items()
        ]
    )


def _attribute(name: str, value: Value) -> bytes:
    """9: attributes, of a key and an AnyValue."""
    if type(value) is str:
        any_value = _text(b"\x0a", value)
    elif type(value) is bool:
        any_value = b"\x10\x01" if value else b"\x10\x00"
    elif type(value) is int:
        any_value = b"\x18" + _varint(value & (2**64 - 1))
    else:
        any_value = _double(0x21, value)
    return _field(b"\x4a", _text(b"\x0a", name) + _field(b"\x12", any_value))


_known = lru_cache(KNOWN_MAX, typed=True)(_attribute)
