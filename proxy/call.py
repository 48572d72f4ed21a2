"""The main path of one call, top to bottom.

    authenticate -> facts -> price -> ceiling -> hold (journaled) -> forward -> relay while the
    meter reads a copy -> cost -> settlement (journaled) -> end of the reply

Nothing here waits for a database. After the first byte of the answer nothing may break the
reply: metering problems become a flagged row.
"""

import asyncio
import time
from collections.abc import Mapping

from pricing.calculator import Ceiling
from pricing.price import Price
from proxy import ids
from proxy.arrival import Arrival
from proxy.auth import credentials, without_key
from proxy.client import AsgiClient
from proxy.customers import NONE_UNMET
from proxy.errors import Refusal
from proxy.forward import ReplyHead
from proxy.holds import Bounds, HeldCall
from proxy.outcome import Outcome
from proxy.principal import OwnHeaders, own_headers
from proxy.providers.base import Dialect, Facts, Meter, RefusalDialect, Route
from proxy.providers.forms import check_boundary, is_form
from proxy.refuse import guessed_dialect, spent_status
from proxy.request_head import RequestHead
from proxy.routing import destination
from proxy.scopes import Principal
from proxy.state import Provider, State
from proxy.trace_context import TRACE_HEADERS
from proxy.tracing import Trace
from proxy.upstream import Exchange


class Call:
    """Everything known of one call, filled in along the path."""

    __slots__ = (
        "arrival",
        "at_ms",
        "began_ns",
        "body",
        "bounds",
        "call_id",
        "clamped",
        "client",
        "cost_usd",
        "credential",
        "cut_by",
        "dialect",
        "downgraded_from",
        "error",
        "exchange",
        "facts",
        "first_byte_ns",
        "forwarded_ns",
        "head",
        "held",
        "hold",
        "hold_usd",
        "key_name",
        "meter",
        "outcome",
        "own",
        "path",
        "price",
        "principal",
        "provider",
        "query",
        "refusal",
        "reply",
        "request_id",
        "route",
        "state",
        "status",
        "task",
        "trace",
        "unmet",
    )

    def __init__(
        self,
        client: AsgiClient,
        state: State,
        call_id: bytes,
        at_ms: int,
        arrival: Arrival | None = None,
    ) -> None:
        # identity
        self.client = client
        self.state = state
        self.call_id = call_id
        self.request_id = ids.text(call_id)
        self.at_ms = at_ms
        self.began_ns = time.perf_counter_ns()
        self.task: asyncio.Task[None] | None = None
        # what is asked, and by whom
        self.arrival = arrival  # None: its head has yet to be read
        self.head: RequestHead
        self.provider: Provider | None
        self.dialect: Dialect
        self.route: Route | None
        self.path: bytes
        self.query: bytes
        self.credential: bytes
        self.key_name: str
        self.principal: Principal | None
        self.own: OwnHeaders | None
        if arrival is None:
            self._arrive(client)
        else:
            self._recall(arrival)
        self.facts: Facts | None = None
        self.body = b""
        # money
        self.unmet: Mapping[int, str] = NONE_UNMET  # see `customers`
        self.price: Price | None = None
        self.bounds: Bounds | None = None
        self.hold: Ceiling | None = None  # what the row names as its hold
        self.clamped: int | None = None
        self.downgraded_from = ""  # the model asked for, where a budget gave it a cheaper one
        self.held: HeldCall | None = None
        self.outcome: Outcome | None = None
        self.hold_usd = self.cost_usd = ""  # for people: headers and the log line
        # the reply
        self.exchange: Exchange | None = None
        self.reply: ReplyHead | None = None
        self.meter: Meter | None = None
        self.status = 0  # the provider's status; 0: none came
        self.forwarded_ns = 0
        self.first_byte_ns = 0
        self.error = ""
        self.refusal: Refusal | None = None  # what we answered ourselves
        self.cut_by: Refusal | None = None  # why we ended the reply ourselves
        self.trace: Trace | None = None  # once it is forwarded, where calls are traced

    def _arrive(self, client: AsgiClient) -> None:
        """A head not seen before on this connection."""
        self.head = RequestHead(client.headers)
        if self.state.drops_trace:
            self.head.drop(TRACE_HEADERS)
        self.dialect = guessed_dialect(self.head)
        self.provider = self.route = self.principal = self.own = None
        self.path, self.query = client.raw_path, client.query
        self.credential, self.key_name = b"", ""

    def _recall(self, arrival: Arrival) -> None:
        """The head of the call before."""
        self.head, self.dialect = arrival.head, arrival.dialect
        self.provider, self.route = arrival.provider, arrival.route
        self.principal, self.own = arrival.principal, arrival.own
        self.path, self.query = arrival.path, arrival.query
        self.credential, self.key_name = arrival.credential, arrival.key_name

    @property
    def start_line(self) -> bytes:
        """Method and target as sent upstream: the provider's own prefix, then the raw path."""
        assert self.provider is not None
        method = self.client.method.encode("ascii")
        start = method + b" " + self.provider.origin.path_prefix + self.path
        return start + b"?" + self.query if self.query else start

    @property
    def streams(self) -> bool:
        """Whether the request asks for a stream."""
        return self.facts is not None and self.facts.stream

    @property
    def sent(self) -> bool:
        """Whether something of the request may have reached the provider."""
        return self.exchange is not None and self.exchange.sent

    def refusal_status(self, refusal: Refusal) -> int:
        """The status of a refusal, after `refusal_status` of the key or the provider, and what
        client and dialect make of it."""
        status = refusal.status
        if refusal.code == "budget_exceeded":
            status = self._configured_status() or spent_status(self.dialect, self.head)
        if isinstance(self.dialect, RefusalDialect):
            status = self.dialect.refusal_status(refusal, status)
        return status

    def _configured_status(self) -> int:
        """`refusal_status` of the key, else of the provider; 0 where neither says."""
        if self.principal is not None and self.principal.refusal_status:
            return self.principal.refusal_status
        return self.provider.refusal_status if self.provider is not None else 0


def find_route(call: Call) -> None:
    """Which provider and which of its routes this is."""
    client, state = call.client, call.state
    target = destination(client.raw_path, client.query, call.head, state.provider_names)
    provider = state.providers[target.provider]
    call.provider, call.dialect, call.path = provider, provider.dialect, target.path
    if call.head.noted.get(b"upgrade", b"").lower() == b"websocket":
        from proxy.realtime_handshake import arrive  # noqa: PLC0415 (few workers need it)

        arrive(call)
        return
    path = target.path.decode("ascii", "replace")
    call.route = provider.dialect.route(client.method, path)
    if call.route is None:
        raise Refusal("unknown_route", f"{client.method} {path} is no route of {provider.name}.")


def authenticate(call: Call, now_s: float) -> None:
    """Whose call this is; takes the credential that goes upstream."""
    provider = call.provider
    assert provider is not None
    found = credentials(call.head, call.query)
    if provider.client_key and found.own is None:
        raise Refusal(
            "invalid_api_key",
            f"Provider '{provider.name}' is called with your own credential: send your "
            "Tollkeeper key in the header x-tollkeeper-key.",
        )
    key = call.state.keyring.authenticate(found, now_s)
    call.key_name = key.name
    call.query = without_key(call.query)
    call.credential = provider.credential
    if provider.client_key and found.secrets:
        call.credential = provider.client_credential(found.secrets[0])
    if key.providers and provider.name not in key.providers:
        raise Refusal(
            "provider_not_allowed", f"The key '{key.name}' may not use '{provider.name}'."
        )
    own = call.own = own_headers(call.head)
    projects = call.state.projects
    call.principal = Principal.of(key, own.user, own.project, projects, own.customer)


def check_metered(call: Call) -> None:
    """An unmetered route would bypass every budget."""
    assert call.route is not None
    assert call.provider is not None
    if call.route.kind == "unmetered" and not call.provider.allow_unmetered:
        raise Refusal(
            "route_not_metered",
            f"The route '{call.route.name}' of '{call.provider.name}' "
            f"{call.route.reason or 'cannot be metered, so no budget would see its cost'}. "
            "An operator may set allow_unmetered for this provider.",
            {"route": call.route.name},
        )


def read_request(call: Call, body: bytes) -> None:
    """The facts in the body, which is whole."""
    arrival = call.arrival
    assert arrival is not None
    provider = arrival.provider
    call.body = body
    if is_form(body):
        check_boundary(call.head.noted.get(b"content-type", b""), body)
    facts = call.dialect.facts(arrival.route, arrival.path_text, call.query, body)
    if provider.headers is not None:
        provider.headers.request_headers(facts, call.head.lines)
    call.facts = facts
    if facts.later == "batch":
        return  # its models are still to be read
    if models := provider.models:
        facts.model = models.get(facts.model, facts.model)
    if not arrival.principal.allows_model(facts.model):
        raise Refusal(
            "model_not_allowed", f"The key '{call.key_name}' may not use '{facts.model}'."
        )
    for model in facts.fallbacks:
        if not arrival.principal.allows_model(model):
            raise Refusal("model_not_allowed", f"The key '{call.key_name}' may not use '{model}'.")
