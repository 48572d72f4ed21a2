"""What a provider dialect is: routes, request facts, request edits, a meter, error bodies.

A dialect knows wire formats and nothing of budgets, prices or sockets. It is stateless apart
from the meters it makes, one per call. Meters are sans-IO: bytes in, in any pieces; facts out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from pricing.usage import RequestSize, Usage
from proxy.errors import Refusal

# "session": a connection that carries many metered calls
RouteKind = Literal["metered", "free", "unmetered", "session"]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of a dialect's route table."""

    name: str  # low-cardinality: "chat.completions", "messages", "generateContent", ...
    kind: RouteKind
    operation: str = ""  # OpenTelemetry gen_ai.operation.name: chat, embeddings, ...
    reason: str = ""  # why it is refused, where there is more to say than that it is not metered


@dataclass(slots=True)
class Facts:
    """What the proxy needs to know of one metered request."""

    route: Route
    model: str  # as requested, normalised (no "models/" prefix, percent-decoded)
    stream: bool
    size: RequestSize
    body: dict[str, object]  # the parsed request, for edits; never modified
    reasoning: bool = False  # a reasoning model or reasoning asked for: clamps no lower than 4,096
    wants_usage_chunk: bool = True  # False: the client did not ask for the extra usage chunk
    provider_options: dict[str, str] = field(default_factory=dict)  # "speed", "inference_geo", ...
    json_array: bool = False  # the stream asked for is a JSON array, not server-sent events
    searches: bool = False  # every call searches the web, and the reply does not tell
    clampable: bool = True  # False: no field of the request limits its output, of every model
    fallbacks: tuple[str, ...] = ()  # models that may answer in its stead
    estimate: Usage | None = None  # where the text of the request does not tell: its usual usage


@dataclass(slots=True)
class Reading:
    """What a meter read off a reply, complete or cut."""

    usage: Usage | None  # None: the reply said nothing (never Usage())
    model: str = ""  # as reported by the reply, normalised; "" if it does not say
    response_id: str = ""
    complete: bool = False  # the dialect's own end was seen (not just the end of the bytes)
    error: str = ""  # an error event inside the stream, or the error type of a JSON body
    partial: bool = False  # usage seen is provisional: a cut stream's lower bound
    delivered_output_tokens: int = 0  # estimate of output passed so far, for cut streams


class Meter(Protocol):
    """Reads usage off one reply. Never raises on provider nonsense: it just reads nothing."""

    ended: bool  # the dialect's last event has been fed: the client may take the reply as whole

    def feed(self, data: bytes) -> bytes:
        """Take the next decoded body bytes; return the bytes to pass to the client.

        Usually `data` itself (the same object). Only a usage chunk the client did not ask for is
        withheld; an incomplete event is held back only while it may still be such a chunk.
        """

    def finish(self) -> bytes:
        """The reply ended cleanly: return bytes held back, if any."""

    def reading(self) -> Reading:
        """What is known now; may be called at any time, also after a cut."""


class Dialect(Protocol):
    """A provider's wire format."""

    name: str  # "openai", "anthropic", "gemini"
    credential_header: str  # where the upstream key goes: "authorization", "x-api-key", ...
    clamp_field: str  # the API's own field for the output limit
    spent_status: int  # of a spent budget: what this API's SDKs do not try again

    def route(self, method: str, path: str) -> Route | None:
        """Find the route of a path below the provider's prefix (raw, without query)."""

    def routes(self) -> tuple[tuple[str, str, Route], ...]:
        """The whole table as (method, example path, route): documentation and tests walk it."""

    def facts(self, route: Route, path: str, query: bytes, body: bytes) -> Facts:
        """Parse a metered request. Raises Refusal `bad_request` naming what is wrong."""

    def edit(self, facts: Facts, body: bytes, *, clamp: int | None, inject_usage: bool) -> bytes:
        """The body to forward: `body` itself unless the output limit is clamped or a streamed
        chat completion must be asked for its usage."""

    def meter(self, facts: Facts, *, status: int, content_type: str, inject_usage: bool) -> Meter:
        """A fresh meter for a reply to this request."""

    def error_body(self, refusal: Refusal, request_id: str) -> bytes:
        """JSON body of a refusal in the shape this API's SDKs parse."""

    def error_event(self, facts: Facts, refusal: Refusal, request_id: str) -> bytes:
        """One in-stream error event, for a stream we have to cut ourselves; b"" if none exists."""


@runtime_checkable
class HeaderDialect(Protocol):
    """What a dialect has besides where headers, too, decide what a call can cost or has cost."""

    def request_headers(self, facts: Facts, lines: Sequence[bytes]) -> None:
        """Complete the facts from the headers that go on ("name: value"). Raises Refusal."""

    def reply_headers(self, facts: Facts, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Note what the meter needs to know, in `facts.provider_options`."""


@runtime_checkable
class RefusalDialect(Protocol):
    """What a dialect has besides where its SDKs read refusals in statuses and headers of their
    own."""

    def refusal_status(self, refusal: Refusal, status: int) -> int:
        """The status in place of the usual one."""

    def refusal_headers(self, refusal: Refusal) -> list[tuple[bytes, bytes]]:
        """Headers to add."""
