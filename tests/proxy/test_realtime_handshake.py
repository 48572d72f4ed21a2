"""What a session's handshake asks for, and what of it goes upstream."""

from typing import Any

import pytest

from proxy.auth import credentials
from proxy.call import Call
from proxy.errors import Refusal
from proxy.providers.registry import dialect
from proxy.realtime_handshake import Asked, arrive, asked, switching_headers
from proxy.request_head import RequestHead
from proxy.upstream import UpstreamBroken

UPGRADE = [
    (b"connection", b"keep-alive, Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"sec-websocket-version", b"13"),
]


class Client:
    upgradable = True
    method = "GET"

    def __init__(self, query: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.query = query
        self.headers = headers

    def header(self, wanted: bytes) -> bytes | None:
        return dict(self.headers).get(wanted)


class Provider:
    def __init__(self, prices: str) -> None:
        self.prices = prices


def a_call(
    path: bytes = b"/v1/realtime",
    query: bytes = b"model=gpt-realtime",
    headers: list[tuple[bytes, bytes]] | None = None,
    spoken: str = "openai",
    prices: str = "openai",
) -> Any:
    call: Any = Call.__new__(Call)
    headers = UPGRADE if headers is None else headers
    call.client = Client(query, headers)
    call.head = RequestHead(headers)
    call.path, call.query = path, query
    call.dialect, call.provider = dialect(spoken), Provider(prices)
    call.route, call.request_id = None, "id"
    return call


@pytest.mark.parametrize(
    "path", [b"/v1/realtime", b"/realtime", b"/openai/realtime/", b"/v1/re%61ltime"]
)
def test_realtime_paths(path: bytes) -> None:
    call = a_call(path)
    arrive(call)
    assert call.route.kind == "session"


@pytest.mark.parametrize(
    "changes",
    [
        {"path": b"/v1/responses"},
        {"path": b"/v1/realtime/translations"},
        {"path": b"/v1/realtime/../x/realtime"},
        {"spoken": "anthropic"},
        {"spoken": "xai", "prices": "xai"},  # billed by the second, in events of its own
        {"prices": "groq"},  # a host whose events nobody knows
    ],
    ids=str,
)
def test_what_stays_declined(changes: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        arrive(a_call(**changes))
    assert caught.value.code == "websocket_not_supported"


def test_only_our_own_server_can_hand_a_connection_over() -> None:
    call = a_call()
    call.client.upgradable = False
    with pytest.raises(Refusal, match="not metered here"):
        arrive(call)


@pytest.mark.parametrize("missing", range(4))
def test_half_a_handshake(missing: int) -> None:
    headers = [header for header in UPGRADE if header is not UPGRADE[missing]]
    if missing == 1:  # without it, it is no upgrade and never gets here
        return
    with pytest.raises(Refusal) as caught:
        arrive(a_call(headers=headers))
    assert caught.value.code == "bad_request"


def test_extensions_and_keys_stay_here() -> None:
    protocols = b"realtime, openai-insecure-api-key.tk-secret,openai-beta.realtime-v1"
    call = a_call(
        query=b"model=a&api-key=tk%2Dother&x=1",
        headers=[
            *UPGRADE,
            (b"sec-websocket-extensions", b"permessage-deflate"),
            (b"sec-websocket-protocol", protocols),
            (b"sec-websocket-protocol", b"more"),
            (b"origin", b"https://app.test"),
        ],
    )

    arrive(call)

    assert call.query == b"model=a&x=1"
    assert call.head.lines == [
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        b"sec-websocket-version: 13",
        b"origin: https://app.test",
        b"sec-websocket-protocol: realtime, openai-beta.realtime-v1",
        b"sec-websocket-protocol: more",
    ]
    assert credentials(call.head, call.query).secrets == [b"tk-secret", b"tk-other"]


def test_a_key_alone_leaves_no_subprotocol() -> None:
    header = (b"sec-websocket-protocol", b"openai-insecure-api-key.tk")
    call = a_call(headers=[*UPGRADE, header])
    arrive(call)
    assert not [line for line in call.head.lines if line.startswith(b"sec-websocket-protocol")]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"model=gpt-realtime", Asked("gpt-realtime", False)),
        (b"api-version=1&deployment=my%2Dvoice", Asked("my-voice", False)),
        (b"intent=transcription", Asked("gpt-4o-transcribe", True)),
        (b"intent=transcription&model=whisper-1", Asked("whisper-1", True)),
        (b"model=m&intent=conversation", Asked("m", False)),
    ],
)
def test_what_is_asked_for(query: bytes, expected: Asked) -> None:
    assert asked(a_call(query=query)) == expected


@pytest.mark.parametrize(
    "query", [b"", b"model=", b"model=a&model=b", b"intent=conversation", b"model=" + b"m" * 300]
)
def test_what_is_no_model(query: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        asked(a_call(query=query))
    assert caught.value.code == "bad_request"


def test_headers_of_the_101() -> None:
    theirs = [
        (b"connection", b"upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-accept", b"x"),
        (b"sec-websocket-protocol", b"realtime"),
        (b"x-request-id", b"req_1"),
    ]
    assert switching_headers(a_call(), theirs) == [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        *theirs[2:],
        (b"x-tollkeeper-request-id", b"id"),
    ]
    with pytest.raises(UpstreamBroken):
        switching_headers(a_call(), [*theirs, (b"sec-websocket-extensions", b"x")])
