"""Spans of a call: SERVER for the request that came in, CLIENT for the one that went out.

Statuses follow the conventions: a refusal is an answer like any other (unset), and so is a
client that leaves; what fails on this side or behind it is an error.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from pricing.money import NANO_PER_USD
from proxy.call_record import CallRecord
from proxy.control import otel_names as names

Attributes = dict[str, str | int | float | bool]
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
ROUTES_MAX, ROUTE_CHARS_MAX = 256, 128  # of paths that are looked at once
_BLOCKED = frozenset(["budget_exceeded", "budget_busy", "cost_cap_exceeded"])
_NAMED_PARENTS = frozenset(  # the segment behind one of these is a name somebody chose
    ("deployments", "engines", "models", "tunedModels", "projects", "locations", "publishers")
)
_FIXED_SEGMENT = re.compile(r"[A-Za-z_][A-Za-z_.-]{0,39}|v[0-9][a-z0-9.]{0,9}")


class Spans:
    """Makes the spans of one service."""

    def __init__(self, resource: Resource, version: str) -> None:
        self._resource = resource
        self._scope = InstrumentationScope("tollkeeper", version)

    def of(self, call: CallRecord) -> Iterator[ReadableSpan]:
        """The outer one last: it ends last."""
        sampled, state = TraceFlags(TraceFlags.SAMPLED), _state(call.trace_state)
        trace_id = int(call.trace_id, 16)

        def context(span_id: str, *, remote: bool = False) -> SpanContext:
            return SpanContext(trace_id, int(span_id, 16), remote, sampled, state)

        server, end_ns = context(call.span_id), call.start_ns + call.duration_ns
        if call.forwarded_ns >= 0:
            yield ReadableSpan(
                client_name(call),
                context=context(call.client_span_id),
                parent=server,
                resource=self._resource,
                attributes=client_attributes(call),
                kind=SpanKind.CLIENT,
                status=_ERROR if error_type(call) else _UNSET,
                start_time=call.start_ns + call.forwarded_ns,
                end_time=end_ns,
                instrumentation_scope=self._scope,
            )
        yield ReadableSpan(
            server_name(call),
            context=server,
            parent=context(call.parent_id, remote=True) if call.parent_id else None,
            resource=self._resource,
            attributes=server_attributes(call),
            kind=SpanKind.SERVER,
            status=_ERROR if server_error(call) else _UNSET,
            start_time=call.start_ns,
            end_time=end_ns,
            instrumentation_scope=self._scope,
        )


def _state(header: str) -> TraceState | None:
    return TraceState.from_header([header]) if header else None


def trace_state(header: str) -> str:
    """As it goes on: what is not well-formed in it is left out."""
    return ",".join(f"{name}={value}" for name, value in TraceState.from_header([header]).items())


def server_name(call: CallRecord) -> str:
    return f"{call.method} {http_route(call.path)}" if call.route else call.method


def http_route(path: str) -> str:
    """The path with a placeholder for whatever somebody chose, such as ids and models."""
    return _known_route(path) if len(path) <= ROUTE_CHARS_MAX else _route(path)


def _route(path: str) -> str:
    segments = path.split("/")
    for index, segment in enumerate(segments):
        if not segment:
            continue
        name, colon, verb = segment.rpartition(":") if ":" in segment else (segment, "", "")
        if segments[index - 1] in _NAMED_PARENTS or not _FIXED_SEGMENT.fullmatch(name):
            segments[index] = "{name}" + colon + verb
    return "/".join(segments)


_known_route = lru_cache(ROUTES_MAX)(_route)


def client_name(call: CallRecord) -> str:
    """The convention's name: the operation and the model."""
    if not call.operation:
        return call.method
    return f"{call.operation} {call.model}" if call.model else call.operation


def error_type(call: CallRecord) -> str:
    """Why the request to the provider failed, out of a closed set; "": it did not."""
    if call.ending == "complete":
        return names.ERROR_EVENT if call.reply_error else ""
    if call.error:
        return call.error
    if call.status >= 400:
        return str(call.status)
    return call.ending if call.ending not in ("", "complete") else ""


def server_error(call: CallRecord) -> str:
    """Why the request that came in failed on this side or behind it; "": it did not."""
    if call.error == "client_gone":
        return ""
    if call.answered >= 500:
        return call.refusal or str(call.answered)
    return "" if call.refusal else call.error


def server_attributes(call: CallRecord) -> Attributes:
    out: Attributes = {
        names.HTTP_METHOD: call.method,
        names.URL_SCHEME: "http",
        names.URL_PATH: call.path,
    }
    if call.route:
        out[names.HTTP_ROUTE] = http_route(call.path)
    if call.answered:
        out[names.HTTP_STATUS] = call.answered
    failed = server_error(call)
    if failed:
        out[names.ERROR_TYPE] = failed
    if call.refusal:
        out[names.REFUSAL] = call.refusal
    if call.refusal in _BLOCKED:
        out[names.BUDGET_DECISION] = names.BLOCKED
        if call.refused_scope:
            out[names.BUDGET_SCOPE] = call.refused_scope
    _add_caller(out, call)
    return out


def _add_caller(out: Attributes, call: CallRecord) -> None:
    out[names.REQUEST_ID] = call.request_id
    known = (
        (names.KEY, call.key),
        (names.ORGANIZATION, call.organization),
        (names.TEAM, call.team),
        (names.PROJECT, call.project),
        (names.USER, call.user),
    )
    out.update((name, value) for name, value in known if value)


def client_attributes(call: CallRecord) -> Attributes:
    out: Attributes = {names.SERVER_ADDRESS: call.host, names.SERVER_PORT: call.port}
    failed = error_type(call)
    if failed:
        out[names.ERROR_TYPE] = failed
    if call.operation:
        _add_request(out, call)
        _add_response(out, call)
    else:  # nothing of a model: an HTTP request as any other
        out[names.HTTP_METHOD] = call.method
        if call.status:
            out[names.HTTP_STATUS] = call.status
    _add_caller(out, call)
    return out


def _add_request(out: Attributes, call: CallRecord) -> None:
    out[names.OPERATION] = call.operation
    out[names.PROVIDER] = provider = names.provider_name(call.provider, call.prices)
    if call.model:
        out[names.REQUEST_MODEL] = call.model
    if call.stream:
        out[names.REQUEST_STREAM] = True
    if call.choices != 1:
        out[names.REQUEST_CHOICES] = call.choices
    if call.max_tokens >= 0:
        out[names.REQUEST_MAX_TOKENS] = call.max_tokens
    if call.clamped >= 0:
        out[names.CLAMPED] = call.clamped
    if provider in ("openai", "azure.ai.openai"):
        if call.route in names.API_TYPES:
            out[names.OPENAI_API_TYPE] = names.API_TYPES[call.route]
        if call.service_tier:
            out[names.OPENAI_REQUEST_TIER] = call.service_tier
        if call.billed_tier:
            out[names.OPENAI_RESPONSE_TIER] = call.billed_tier


def _add_response(out: Attributes, call: CallRecord) -> None:
    if call.response_id:
        out[names.RESPONSE_ID] = call.response_id
    if call.response_model:
        out[names.RESPONSE_MODEL] = call.response_model
    if call.first_chunk_ns >= 0:
        out[names.FIRST_CHUNK] = call.first_chunk_ns / 1e9
    if call.ending:
        out[names.ENDING], out[names.USAGE_SOURCE] = call.ending, call.usage_source
        out[names.PRICING_VERSION] = call.price_version
    if call.usage_source == "reported":
        out[names.INPUT_TOKENS], out[names.OUTPUT_TOKENS] = call.input_tokens, call.output_tokens
        out[names.CACHE_READ_TOKENS] = call.cache_read_tokens
        out[names.CACHE_CREATION_TOKENS] = call.cache_write_tokens
        out[names.CACHE_WRITE_TOKENS] = call.cache_write_tokens
        out[names.REASONING_TOKENS] = call.reasoning_tokens
    if call.cost_nano >= 0:
        out[names.COST_USD] = out[names.USAGE_COST] = call.cost_nano / NANO_PER_USD
