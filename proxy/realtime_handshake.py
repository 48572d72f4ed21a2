"""The opening handshake of a realtime session: what a client asks for, what goes upstream.

Edits beside those of every call: no extension is asked for, so that frames can be read; the key a
browser has to put among the subprotocols is taken off, as is Azure's `api-key` in the query.
"""

from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from proxy.call import Call
from proxy.client import Headers
from proxy.errors import Refusal
from proxy.forward import reply_headers, request_head
from proxy.providers.openai_realtime import DEFAULT_TRANSCRIPTION, SESSION, is_metered_at
from proxy.providers.requests import bad, checked_model, path_end
from proxy.request_head import RequestHead
from proxy.upstream import UpstreamBroken

_KEY_PROTOCOL = b"openai-insecure-api-key."
_PROTOCOLS, _EXTENSIONS = b"sec-websocket-protocol: ", b"sec-websocket-extensions:"
_KEY_PARAMETER = b"api-key="
_UPGRADE = b"connection: Upgrade\r\nupgrade: websocket"


class Asked(NamedTuple):
    """What the query of a session asks for."""

    model: str
    transcribes: bool  # and does nothing else; `model` is then what transcribes


def arrive(call: Call) -> None:
    """Find the route of an upgrade, and the credential wherever it is. Raises Refusal
    `websocket_not_supported`."""
    provider, client = call.provider, call.client
    assert provider is not None
    path = path_end(call.path.decode("ascii", "replace")) or ""
    known = is_metered_at(call.dialect.name, provider.prices)
    if not (known and client.upgradable and client.method == "GET" and path.endswith("/realtime")):
        raise Refusal(
            "websocket_not_supported",
            "WebSockets are not metered here. Use the HTTP form of this API.",
        )
    if (
        b"upgrade" not in call.head.noted.get(b"connection", b"").lower()
        or client.header(b"sec-websocket-version") != b"13"
        or not client.header(b"sec-websocket-key")
    ):
        raise bad("this is no WebSocket handshake of version 13")
    call.route = SESSION
    call.head.lines = [line for line in call.head.lines if _goes_on(line)]
    for name, value in client.headers:
        if name == b"sec-websocket-protocol":
            _take_protocols(call.head, value)
    call.query = _take_key(call.head, client.query)


def _goes_on(line: bytes) -> bool:
    return not line.startswith((_PROTOCOLS, _EXTENSIONS))


def _take_protocols(head: RequestHead, value: bytes) -> None:
    """The subprotocols that go on; a key among them is the client's credential."""
    rest = []
    for part in value.split(b","):
        name = part.strip()
        if name.startswith(_KEY_PROTOCOL):
            head.credentials.append((b"api-key", name[len(_KEY_PROTOCOL) :]))
        elif name:
            rest.append(name)
    if rest:
        head.lines.append(_PROTOCOLS + b", ".join(rest))


def _take_key(head: RequestHead, query: bytes) -> bytes:
    if _KEY_PARAMETER not in query:
        return query
    parts = query.split(b"&")
    for part in parts:
        if part.startswith(_KEY_PARAMETER):
            secret = unquote_to_bytes(part[len(_KEY_PARAMETER) :])
            head.credentials.append((b"api-key", secret))
    return b"&".join(part for part in parts if not part.startswith(_KEY_PARAMETER))


def asked(call: Call) -> Asked:
    """The model of a session. Raises Refusal `bad_request`."""
    pairs = parse_qsl(call.query.decode("ascii", "replace"), keep_blank_values=True)
    query = dict(pairs)
    if len(query) != len(pairs):
        raise bad("a query parameter is there twice")
    if "call_id" in query:
        raise Refusal("route_not_metered", "A call over WebRTC or SIP is not metered here.")
    model = query.get("model", query.get("deployment"))
    if query.get("intent") == "transcription":
        return Asked(checked_model(model or DEFAULT_TRANSCRIPTION), True)
    return Asked(checked_model(model), False)


def upstream_head(call: Call) -> bytes:
    """The request that goes to the provider."""
    provider = call.provider
    assert provider is not None
    start, host, credential = call.start_line, provider.origin.host_header, call.credential
    if provider.auth is not None:
        credential = provider.auth.lines(start, host, call.head, b"")
    head = request_head(start, host, call.head, credential, _UPGRADE)
    tracer = call.state.tracer
    return head if tracer is None else head[:-2] + tracer.begin(call) + head[-2:]


def switching_headers(call: Call, headers: Headers) -> Headers:
    """Headers of the 101 that the client gets. Raises UpstreamBroken."""
    if any(name == b"sec-websocket-extensions" for name, _ in headers):
        raise UpstreamBroken("it chose an extension nobody asked for", sent=True, answered=True)
    return [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        *reply_headers(headers, keep_length=False),
        (b"x-tollkeeper-request-id", call.request_id.encode("ascii")),
    ]
