"""What a provider dialect is: routes, request facts, request edits, a meter, error bodies.

A dialect knows wire formats and nothing of budgets, prices or sockets. It is stateless apart
from the meters it makes, one per call. Meters are sans-IO: bytes in, in any pieces; facts out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from pricing.batch import BatchSize
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
    watched: bool = False  # a free one: what its request or reply tells of other calls is noted


class ToolModel(NamedTuple):
    """A tool that is billed at a model of its own, on top of the call's."""

    models: tuple[str, ...]  # one of them
    size: RequestSize  # the most it can use in the whole call


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
    later: str = ""  # the usage comes later, with something the provider keeps: batch | response
    parts: tuple[tuple[str, BatchSize], ...] = ()  # of a batch: what bounds its requests, by model
    steps: Iterator[None] | None = None  # of a large request: reads on, and fills in `parts`
    input_file: str = ""  # of a batch: the file that has its requests, known from its upload
    input_route: str = ""  # the route all of them must be for
    tool_models: tuple[ToolModel, ...] = ()


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
    opened: str = ""  # the id of what the provider keeps, of a call whose usage comes later


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


@runtime_checkable
class CustomerDialect(Protocol):
    """What a dialect has besides where its requests may name the end user they are for."""

    customer_fields: tuple[tuple[str, ...], ...]  # paths in the body; the first that is there


@runtime_checkable
class ListDialect(Protocol):
    """What a dialect has besides where its list of models has a path or a shape of its own."""

    model_lists: tuple[tuple[str, str, str], ...]  # end of the path, the list, a model's name


@dataclass(slots=True)
class Found:
    """What the request and reply of a watched route tell of something the provider keeps."""

    kind: str  # file | batch | response
    object_id: str
    requests: dict[str, object] | None = None  # of a file: what bounds the requests in it
    outputs: list[str] = field(default_factory=list)  # of a batch: the files of its results
    result: "Result | None" = None


@dataclass(slots=True)
class Result:
    """Final usage: (model, Usage.as_dict()) for each model and size of request."""

    groups: list[tuple[str, dict[str, object]]]
    total: bool = False  # the counts of a batch, added up by the provider
    source: str = "reported"  # estimated: input as it was estimated when the call was made
    ending: str = "complete"


class Watcher(Protocol):
    """Reads along on one exchange of a watched route; never raises on a provider's nonsense."""

    edits: bool  # replies are passed on whole, as `edited`

    def feed_request(self, data: bytes) -> None:
        """The next bytes of the request's body. Raises Refusal for what may be read in two ways."""

    def begin(self, content_type: str) -> None:
        """The head of a reply with status 200 is here."""

    def feed(self, data: bytes) -> None:
        """The next decoded bytes of that reply."""

    def found(self) -> list[Found]:
        """The reply ended cleanly."""

    def edited(self, body: bytes, base: bytes) -> bytes:
        """The reply for the client, who reaches this route at `base` (scheme, host and path)."""


@runtime_checkable
class WatchDialect(Protocol):
    """What a dialect has besides where usage comes later than the call."""

    def watcher(self, route: Route, path: str, content_type: bytes) -> Watcher | None:
        """For one exchange; `content_type` is the request's. None: there is nothing to read."""
