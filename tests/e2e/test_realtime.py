"""Realtime sessions over WebSocket: transparent, metered turn by turn, never beyond a budget.

After each test nothing is held any more, the budget has spent what the rows cost, and the ledger
is in order.
"""

import base64
import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from tests.e2e.stage import eventually
from tests.harness import KEY, Running, a_config
from tests.processes import KEY as PROCESS_KEY
from tests.processes import Serving
from tests.realtime import USAGE, WAIT_S, Peer, RealtimeProvider

# gpt-realtime: a window of 32,000 tokens at 32 USD per million, the dearest input, and 4,096
# tokens at 64 USD per million, the dearest output.
HOLD_NANO = 32_000 * 32_000 + 4_096 * 64_000
COST_NANO = 6_965_600  # of USAGE, worked by hand in tests/proxy/providers/test_openai_realtime.py
PATH = "/v1/realtime?model=gpt-realtime"
KEYS = {
    "poor": "tk-poor-key",  # room for one hold and what one turn costs, not for another hold
    "broke": "tk-broke-key",  # nothing
    "picky": "tk-picky-key",  # chat models alone
    "leaving": "tk-leaving-key",
    "sudden": "tk-sudden-key",
}
BUDGETS = [
    {"scope": "organization/acme", "limit_usd": 100, "period": "total"},
    {"scope": "key/poor", "limit_usd": "1.2866", "period": "total", "hold_wait_ms": 50},
    {"scope": "key/broke", "limit_usd": 0, "period": "day"},
]
CREATE = {"type": "response.create"}


def keys(without: str = "") -> dict[str, Any]:
    entries: list[dict[str, Any]] = [
        {"name": name, "key_sha256": sha256(key.encode()).hexdigest()}
        for name, key in {**KEYS, "prod": KEY}.items()
        if name != without
    ]
    next(entry for entry in entries if entry["name"] == "picky")["models"] = ["gpt-4*"]
    return {"acme": {"teams": {"search": {"keys": entries}}}}


class Stage:
    """A running Tollkeeper between a scripted provider and clients."""

    def __init__(self, directory: Path, provider: RealtimeProvider, **changes: Any) -> None:
        self.provider = provider
        self._directory = directory
        self._settings: dict[str, Any] = {"budgets": BUDGETS, "organizations": keys()}
        self._settings |= {"providers": {"azure": self.azure()}} | changes
        self.app = Running(a_config(directory, provider.url, **self._settings))
        self._known: set[str] = set()

    def azure(self) -> dict[str, Any]:
        models = {"my-voice": "gpt-realtime"}
        url = self.provider.url
        return {"dialect": "azure", "base_url": url, "api_key": "az-key", "models": models}

    def begin(self) -> None:
        self.provider.reset()
        self._known = {row["request_id"] for row in self.app.rows()}

    def reload(self, **changes: Any) -> None:
        control = self.app.app.control
        config = a_config(self._directory, self.provider.url, **(self._settings | changes))
        self.app.run(control.reload(config))
        assert control.snapshot is not None
        revision = control.snapshot.revision
        eventually(lambda: control.in_force >= revision)

    def open(self, path: str = PATH, key: str = KEY, **options: Any) -> ClientConnection:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        options = {
            "additional_headers": headers,
            "open_timeout": WAIT_S,
            "max_size": None,
        } | options
        return connect(self.app.url.replace("http", "ws") + path, **options)

    def refused(self, path: str = PATH, key: str = KEY, **options: Any) -> Any:
        """The HTTP answer to a handshake that fails."""
        with pytest.raises(InvalidStatus) as caught:
            self.open(path, key, **options)
        return caught.value.response

    def ended(self) -> None:
        gateway = self.app.app.gateway
        assert gateway is not None
        eventually(lambda: not gateway.in_flight)

    def rows(self) -> list[dict[str, Any]]:
        """This test's rows of turns that began, oldest first; nothing is in flight any more."""
        self.ended()
        rows = [row for row in self.app.rows() if row["request_id"] not in self._known]
        rows.sort(key=lambda row: str(row["request_id"]))
        for row in rows:
            unused = row["ending"] in ("unused", "unreachable")
            assert not unused or (row["cost_usd"], row["usage_source"]) == ("0", "none")
        return [row for row in rows if row["ending"] != "unused"]

    def held(self) -> int:
        gateway = self.app.app.gateway
        assert gateway is not None
        budgets = gateway._budgets
        return sum(slice_.held for slice_ in budgets._slices.values())


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with RealtimeProvider() as provider:
        hall = Stage(tmp_path_factory.mktemp("realtime"), provider)
        with hall.app:
            yield hall


@pytest.fixture
def stage(hall: Stage) -> Iterator[Stage]:
    hall.begin()
    yield hall
    hall.ended()
    assert hall.held() == 0
    assert hall.app.findings() == []


def send(ws: ClientConnection, kind: str, **fields: Any) -> None:
    ws.send(json.dumps({"type": kind, **fields}))


def receive(ws: ClientConnection) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(ws.recv(timeout=WAIT_S))
    return event


def receive_until(ws: ClientConnection, kind: str) -> dict[str, Any]:
    while (event := receive(ws))["type"] != kind:
        pass
    return event


def close_code(ws: ClientConnection) -> int:
    """How the session ends, once everything before it is read."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            ws.recv(timeout=WAIT_S)
    assert ws.close_code is not None
    return ws.close_code


def greeting(peer: Peer) -> None:
    peer.greet()
    peer.wait_closed()


def answering(peer: Peer) -> None:
    """A response whenever one is asked for."""
    peer.greet()
    while True:
        peer.expect("response.create")
        peer.turn()


def speaking(peer: Peer) -> None:
    """A response that does not end."""
    peer.greet()
    peer.expect("response.create")
    peer.begin()
    peer.wait_closed()


# --- the way there -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["authorization", "api-key", "subprotocol", "query", "prefix"])
def test_the_key_arrives_in_any_form_and_the_providers_goes_on(stage: Stage, how: str) -> None:
    stage.provider.play(greeting)
    path, options = PATH, dict[str, Any]()
    if how == "api-key":
        options["additional_headers"] = {"api-key": KEY}
    elif how == "subprotocol":
        names = ["realtime", f"openai-insecure-api-key.{KEY}", "openai-beta.realtime-v1"]
        options |= {"additional_headers": {}, "subprotocols": names}
    elif how == "query":
        path, options["additional_headers"] = f"{PATH}&api-key={KEY}", {}
    elif how == "prefix":
        path = f"/openai{PATH}"

    with stage.open(path, **options) as ws:
        assert receive(ws)["type"] == "session.created"

    (head,) = stage.provider.heads
    assert stage.provider.paths == [PATH]
    assert head["authorization"] == "Bearer sk-upstream-openai"
    assert KEY not in str(head)
    assert not {"api-key", "sec-websocket-extensions"} & set(head)
    expected = ["realtime", "openai-beta.realtime-v1"] if how == "subprotocol" else []
    assert stage.provider.subprotocols == [expected]
    assert stage.rows() == []


@pytest.mark.parametrize(
    "path", ["/azure/openai/realtime?api-version=2026-01-01&deployment=my-voice",
             "/azure/openai/v1/realtime?model=my-voice"]
)  # fmt: skip
def test_azure_by_deployment(stage: Stage, path: str) -> None:
    stage.provider.play(answering)

    with stage.open(path, additional_headers={"api-key": KEY}) as ws:
        send(ws, "session.update", session={"model": "my-voice"})
        send(ws, "response.create")
        receive_until(ws, "response.done")

    assert stage.provider.heads[0]["api-key"] == "az-key"
    assert stage.provider.paths == [path.removeprefix("/azure")]
    (row,) = stage.rows()
    assert (row["provider"], row["price_version"] != "") == ("azure", True)
    assert Decimal(row["cost_usd"]) == Decimal(COST_NANO).scaleb(-9)


def test_refusals_before_the_provider_sees_anything(stage: Stage) -> None:
    cases = [
        (PATH, KEYS["broke"], 429, "budget_exceeded"),
        (PATH, KEYS["picky"], 403, "model_not_allowed"),
        (PATH, "tk-nonsense", 401, "invalid_api_key"),
        ("/v1/realtime?model=gpt-unheard-of", KEY, 403, "model_not_priced"),
        ("/v1/realtime?model=gpt-live-1", KEY, 403, "model_not_priced"),  # by the second
        ("/v1/realtime", KEY, 400, "bad_request"),
        (PATH + "&model=gpt-4o", KEY, 400, "bad_request"),
        (PATH + "&call_id=rtc_1", KEY, 403, "route_not_metered"),
        ("/v1/realtime?intent=transcription", KEYS["broke"], 429, "budget_exceeded"),
    ]
    for path, key, status, code in cases:
        answer = stage.refused(path, key)
        error = json.loads(answer.body)["error"]
        assert (answer.status_code, error["code"]) == (status, code), path
        assert answer.headers["x-should-retry"] == "false"
    assert error["details"]["scope"] == "key/broke"
    assert stage.provider.paths == []
    assert stage.rows() == []


def test_ways_around_are_refused_with_the_reason(stage: Stage) -> None:
    for path in ("client_secrets", "sessions", "transcription_sessions", "calls"):
        answer = httpx.post(
            f"{stage.app.url}/v1/realtime/{path}",
            json={"model": "gpt-realtime"},
            headers={"authorization": f"Bearer {KEY}"},
        )
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (403, "route_not_metered")
        assert "beside Tollkeeper" in error["message"]
    assert stage.provider.paths == []


def test_the_providers_refusal_is_passed_on(stage: Stage) -> None:
    stage.provider.refusal = HTTPStatus.UNAUTHORIZED

    answer = stage.refused()

    assert (answer.status_code, json.loads(answer.body)) == (401, {"error": {"message": "no"}})
    (row,) = stage.rows()
    assert (row["ending"], row["http_status"], row["cost_usd"]) == ("upstream_error", 401, "0")


def test_a_provider_that_cannot_be_reached(stage: Stage) -> None:
    provider = {"dialect": "openai", "base_url": "http://127.0.0.1:1", "api_key": "k"}
    stage.reload(providers={"azure": stage.azure(), "dead": provider | {"prices": "openai"}})

    answer = stage.refused(f"/dead{PATH}")

    assert json.loads(answer.body)["error"]["code"] == "upstream_unreachable"
    (row,) = stage.rows()
    assert (row["ending"], row["http_status"], row["cost_usd"]) == ("unreachable", 0, "0")
    stage.reload()


# --- byte for byte -------------------------------------------------------------------------


def masked(data: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


def read_head(sock: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    return head


def read_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        assert part, data
        data += part
    return data


@contextlib.contextmanager
def raw_session(stage: Stage) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The sockets of both ends, after the handshake; the provider's first frame came with its
    101."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        entry = {"dialect": "openai", "base_url": url, "api_key": "k", "prices": "openai"}
        stage.reload(providers={"azure": stage.azure(), "raw": entry})
        host, port = stage.app.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=WAIT_S) as client:
            head = f"GET /raw{PATH} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {KEY}\r\n"
            head += "connection: keep-alive, Upgrade\r\nupgrade: websocket\r\n"
            head += "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            client.sendall(head.encode() + b"\r\n")
            provider, _ = listener.accept()
            with provider:
                provider.settimeout(WAIT_S)
                read_head(provider)
                answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                answer += b"Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLM=\r\nx-own: 1\r\n"
                first = Frame(Opcode.TEXT, b'{"type":"session.created","session":{}}')
                provider.sendall(answer + b"\r\n" + first.serialize(mask=False))
                head_back = read_head(client)
                assert head_back.startswith(b"HTTP/1.1 101 ")
                assert b"x-own: 1" in head_back
                assert b"sec-websocket-accept: s3pPLM=" in head_back
                expected = first.serialize(mask=False)
                assert read_exactly(client, len(expected)) == expected
                yield client, provider
        stage.reload()


def test_frames_go_on_byte_for_byte(stage: Stage) -> None:
    event = json.dumps({"type": "conversation.item.create", "item": {"a": "ä" * 40_000}}).encode()
    with raw_session(stage) as (client, provider):
        up = [
            masked(b'{"type":"input_audio_buffer.commit"}'),
            masked(b"are you there", Opcode.PING),
            masked(event[:100], fin=False),
            masked(event[100:50_001], Opcode.CONT, fin=False),
            masked(event[50_001:], Opcode.CONT),
            masked(b"", Opcode.PONG),
        ]
        client.sendall(b"".join(up))
        assert read_exactly(provider, sum(map(len, up))) == b"".join(up)
        down = [
            Frame(Opcode.TEXT, b'{"type":"rate_limits.updated"}').serialize(mask=False),
            Frame(Opcode.TEXT, b'{"type":"x', fin=False).serialize(mask=False),
            Frame(Opcode.PING, b"1").serialize(mask=False),
            Frame(Opcode.CONT, b'"}').serialize(mask=False),
            Frame(Opcode.BINARY, bytes(300_000)).serialize(mask=False),
            b"\x81\x7e\x00\x02{}",  # a length longer than it need be
        ]
        provider.sendall(b"".join(down))
        assert read_exactly(client, sum(map(len, down))) == b"".join(down)


def test_a_half_sent_message_stays_here(stage: Stage) -> None:
    with raw_session(stage) as (client, provider):
        client.sendall(masked(b'{"type":"response.', fin=False))
        ping = masked(b"1", Opcode.PING)
        client.sendall(ping)
        assert read_exactly(provider, len(ping)) == ping  # overtakes it
        client.close()
        assert read_exactly(provider, 2)[0] == 0x88  # a close frame


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (Frame(Opcode.TEXT, b"{}").serialize(mask=False), 1002),  # not masked
        (masked(b"x", Opcode.CONT), 1002),
        (b"\xc1\x80mask", 1002),  # compressed
        (b"\x81\xff" + struct.pack("!Q", 2**40) + b"mask", 1009),
    ],
    ids=["not masked", "no beginning", "compressed", "too large"],
)
def test_frames_that_break_the_protocol(stage: Stage, sent: bytes, code: int) -> None:
    with raw_session(stage) as (client, _):
        client.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(65536):
                received += data
        assert struct.pack("!H", code) in received
        assert b'"type":"error"' in received


def test_pings_and_large_messages(stage: Stage) -> None:
    audio = base64.b64encode(bytes(4_000_000)).decode()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.expect("input_audio_buffer.append")
        peer.say("response.output_audio.delta", response_id="r", delta=audio)
        assert peer.connection.ping().wait(WAIT_S)
        peer.wait_closed()

    stage.provider.play(script)
    with stage.open() as ws:
        assert ws.ping().wait(WAIT_S)
        send(ws, "input_audio_buffer.append", audio=audio)
        assert receive_until(ws, "response.output_audio.delta")["delta"] == audio
    assert stage.provider.events[0]["audio"] == audio


def test_a_client_that_does_not_read_holds_the_provider_back(stage: Stage) -> None:
    delta = Frame(Opcode.TEXT, b'{"type":"x","delta":"%b"}' % (b"A" * 60_000)).serialize(mask=False)
    with raw_session(stage) as (client, provider):
        provider.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:  # far more than all the buffers on the way
                sent += provider.send(delta)
        assert sent < 50_000_000
        provider.settimeout(WAIT_S)
        assert read_exactly(client, len(delta)) == delta


# --- turns ---------------------------------------------------------------------------------


def test_each_response_is_a_row(stage: Stage) -> None:
    stage.provider.play(answering)
    with stage.open() as ws:
        for _ in range(3):
            send(ws, "response.create")
            receive_until(ws, "response.done")

    rows = stage.rows()
    assert [row["cost_usd"] for row in rows] == ["0.0069656"] * 3
    assert {row["request_id"] for row in rows} != {rows[0]["request_id"]}
    for row in rows:
        assert (row["ending"], row["usage_source"], row["route"]) == (
            "complete", "reported", "realtime",
        )  # fmt: skip
        assert (row["input_tokens"], row["output_tokens"], row["cache_read_tokens"]) == (
            132, 121, 64,
        )  # fmt: skip
        assert Decimal(row["hold_usd"]) == Decimal(HOLD_NANO).scaleb(-9)
        assert (row["http_status"], row["stream"], row["model"]) == (101, True, "gpt-realtime")


def test_a_turn_nobody_asked_for(stage: Stage) -> None:
    """The provider heard somebody speak."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.expect("input_audio_buffer.append")
        peer.turn()
        peer.turn()
        peer.wait_closed()

    stage.provider.play(script)
    with stage.open() as ws:
        send(ws, "input_audio_buffer.append", audio="AAAA")
        receive_until(ws, "response.done")
        receive_until(ws, "response.done")
    assert [row["cost_usd"] for row in stage.rows()] == ["0.0069656"] * 2


def test_a_spent_budget_ends_the_session_after_the_turn(stage: Stage) -> None:
    stage.provider.play(answering)
    with stage.open(key=KEYS["poor"]) as ws:
        send(ws, "response.create", event_id="e1")
        done = receive_until(ws, "response.done")
        assert done["response"]["usage"] == USAGE
        error = receive_until(ws, "error")["error"]
        assert (error["code"], error["type"]) == ("budget_exceeded", "insufficient_quota")
        assert {"scope": "key/poor", "limit": "1.2866", "spent": "0.0069656"}.items() <= (
            error["details"].items()
        )
        assert close_code(ws) == 1008

    (row,) = stage.rows()
    assert (row["ending"], row["cost_usd"]) == ("complete", "0.0069656")
    answer = stage.refused(key=KEYS["poor"])  # and none can be opened any more
    assert json.loads(answer.body)["error"]["code"] == "budget_exceeded"


def test_a_response_that_begins_without_a_hold_is_charged(stage: Stage) -> None:
    """Somebody spoke just when the money ended: the provider was faster."""
    budget = {"scope": "key/sudden", "limit_usd": "1.2866", "period": "day", "hold_wait_ms": 0}

    def script(peer: Peer) -> None:
        peer.greet()
        peer.expect("input_audio_buffer.append")
        peer.turn()
        peer.begin()
        peer.wait_closed()

    stage.reload(budgets=[*BUDGETS, budget])
    stage.provider.play(script)
    with stage.open(key=KEYS["sudden"]) as ws:
        send(ws, "input_audio_buffer.append", audio="AAAA")
        assert receive_until(ws, "error")["error"]["code"] == "budget_exceeded"
        assert close_code(ws) == 1008
    first, *rest = stage.rows()
    assert (first["ending"], first["cost_usd"]) == ("complete", "0.0069656")
    for row in rest:  # unless the session was closed before it began
        assert_estimated(row, "cut")
    stage.reload()


def test_a_response_waits_for_its_hold(stage: Stage) -> None:
    """Two at once, and money for one: the second goes on when the first has ended."""
    budget = {"scope": "key/leaving", "limit_usd": "1.6", "period": "total", "hold_wait_ms": 9000}

    def script(peer: Peer) -> None:
        peer.greet()
        peer.expect("response.create")
        first = peer.begin()
        assert peer.connection.ping().wait(WAIT_S)  # time for the second one to come
        assert len(peer.events) == 1
        peer.done(first)
        peer.expect("response.create")
        peer.turn()
        peer.wait_closed()

    stage.reload(budgets=[*BUDGETS, budget])
    stage.provider.play(script)
    with stage.open(key=KEYS["leaving"]) as ws:
        send(ws, "response.create")
        receive_until(ws, "response.created")
        send(ws, "response.create", response={"conversation": "none"})
        receive_until(ws, "response.done")
        receive_until(ws, "response.done")
    assert [row["ending"] for row in stage.rows()] == ["complete"] * 2
    stage.reload()


def test_output_limits_are_followed(stage: Stage) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.expect("session.update")
        peer.say("session.updated", session={"model": "gpt-realtime", "max_output_tokens": 100})
        for _ in range(3):
            peer.expect("response.create")
            peer.turn()
        peer.wait_closed()

    stage.provider.play(script)
    with stage.open() as ws:
        send(ws, "session.update", session={"type": "realtime", "max_output_tokens": 100})
        receive_until(ws, "session.updated")
        for limit in ({}, {}, {"response": {"max_output_tokens": 2_000}}):
            send(ws, "response.create", **limit)
            receive_until(ws, "response.done")
    holds = [int(Decimal(row["hold_usd"]).scaleb(9)) for row in stage.rows()]
    window = 32_000 * 32_000
    # What was held before the limit was known is kept.
    assert holds == [HOLD_NANO, window + 100 * 64_000, window + 2_000 * 64_000]


def test_a_failed_response_costs_what_it_reports(stage: Stage) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.expect("response.create")
        response = {"id": "resp_f", "status": "failed", "usage": None}
        error = {"type": "server_error", "code": "overloaded"}
        peer.say("response.created", response={"id": "resp_f"})
        peer.say("response.done", response=response | {"status_details": {"error": error}})
        peer.expect("response.create")
        peer.done(peer.begin(), usage=None, status="cancelled")
        peer.wait_closed()

    stage.provider.play(script)
    with stage.open() as ws:
        for _ in range(2):
            send(ws, "response.create")
            receive_until(ws, "response.done")
    failed, cancelled = stage.rows()
    assert (failed["ending"], failed["usage_source"], failed["cost_usd"]) == (
        "upstream_error", "none", "0",
    )  # fmt: skip
    assert (cancelled["ending"], cancelled["usage_source"]) == ("complete", "estimated")
    assert 0 < Decimal(cancelled["cost_usd"]) < Decimal(cancelled["hold_usd"])


@pytest.mark.parametrize(
    "message", ["{", "[1]", '{"type":1}', '{"type":"a","type":"b"}', b"{}"], ids=str
)
def test_events_that_cannot_be_read_are_not_passed_on(stage: Stage, message: str | bytes) -> None:
    stage.provider.play(answering)
    with stage.open() as ws:
        assert receive(ws)["type"] == "session.created"
        ws.send(message)
        error = receive(ws)
        assert (error["type"], error["error"]["code"]) == ("error", "bad_request")
        send(ws, "response.create")
        receive_until(ws, "response.done")
    assert [event["type"] for event in stage.provider.events] == ["response.create"]


# --- transcriptions ------------------------------------------------------------------------


def transcribing(usage: dict[str, Any], model: str) -> Any:
    def script(peer: Peer) -> None:
        peer.greet()
        session = peer.expect("session.update")["session"]
        assert session["audio"]["input"]["transcription"]["model"] == model
        peer.say("session.updated", session=session)
        peer.expect("input_audio_buffer.commit")
        peer.say("input_audio_buffer.committed", item_id="item_1")
        kind = "conversation.item.input_audio_transcription."
        peer.say(kind + "delta", item_id="item_1", delta="hel")
        peer.say(kind + "completed", item_id="item_1", transcript="hello", usage=usage)
        peer.wait_closed()

    return script


TOKENS = {
    "type": "tokens",
    "total_tokens": 22,
    "input_tokens": 13,
    "input_token_details": {"text_tokens": 1, "audio_tokens": 12},
    "output_tokens": 9,
}


@pytest.mark.parametrize(
    ("model", "usage", "cost"),
    [
        # 13 tokens in at 2.50 USD per million, 9 out at 10
        ("gpt-4o-transcribe", TOKENS, "0.0001225"),
        # 7.5 seconds at 0.006 USD a minute
        ("whisper-1", {"type": "duration", "seconds": 7.5}, "0.00075"),
    ],
)
@pytest.mark.parametrize("path", [PATH, "/v1/realtime?intent=transcription"])
def test_a_transcription_is_a_row_at_its_own_model(
    stage: Stage, path: str, model: str, usage: dict[str, Any], cost: str
) -> None:
    stage.provider.play(transcribing(usage, model))
    with stage.open(path) as ws:
        audio = {"input": {"transcription": {"model": model}}}
        kind = "realtime" if path is PATH else "transcription"
        send(ws, "session.update", session={"type": kind, "audio": audio})
        send(ws, "input_audio_buffer.append", audio=base64.b64encode(bytes(360_000)).decode())
        send(ws, "input_audio_buffer.commit")
        receive_until(ws, "conversation.item.input_audio_transcription.completed")

    (row,) = stage.rows()
    assert (row["route"], row["model"]) == ("realtime.transcription", model)
    assert (row["ending"], row["usage_source"], row["cost_usd"]) == ("complete", "reported", cost)


def test_a_transcription_that_reports_nothing_is_estimated(stage: Stage) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.say("session.updated", session=peer.expect("session.update")["session"])
        peer.expect("input_audio_buffer.commit")
        peer.say("input_audio_buffer.committed", item_id="item_1")
        peer.wait_closed()

    stage.provider.play(script)
    with stage.open("/v1/realtime?intent=transcription") as ws:
        beta = {"input_audio_transcription": {"model": "whisper-1"}}
        send(ws, "session.update", session=beta)
        send(ws, "input_audio_buffer.append", audio=base64.b64encode(bytes(480_000)).decode())
        send(ws, "input_audio_buffer.commit")
        receive_until(ws, "input_audio_buffer.committed")

    (row,) = stage.rows()
    assert (row["ending"], row["usage_source"]) == ("client_gone", "estimated")
    assert row["cost_usd"] == "0.001"  # ten seconds


def test_a_transcriber_without_a_price_ends_the_session(stage: Stage) -> None:
    stage.provider.play(greeting)
    with stage.open() as ws:
        audio = {"input": {"transcription": {"model": "unheard-of"}}}
        send(ws, "session.update", session={"audio": audio})
        assert receive_until(ws, "error")["error"]["code"] == "model_not_priced"
        assert close_code(ws) == 1008
    assert stage.provider.events == []


# --- endings -------------------------------------------------------------------------------


def assert_estimated(row: dict[str, Any], ending: str) -> None:
    assert (row["ending"], row["usage_source"]) == (ending, "estimated")
    assert 0 < Decimal(row["cost_usd"]) < Decimal(row["hold_usd"])


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_client_that_goes_in_the_middle_of_a_response(stage: Stage, how: str) -> None:
    stage.provider.play(speaking)
    with stage.open() as ws:
        send(ws, "response.create")
        receive_until(ws, "response.output_text.delta")
        if how == "close":
            ws.close()
        else:
            ws.socket.shutdown(socket.SHUT_RDWR)

    (row,) = stage.rows()
    assert_estimated(row, "client_gone")


def test_what_the_provider_reports_after_a_goodbye_counts(stage: Stage) -> None:
    with raw_session(stage) as (client, provider):
        create = masked(json.dumps(CREATE).encode())
        client.sendall(create)
        assert read_exactly(provider, len(create)) == create
        for event in (
            {"type": "response.created", "response": {"id": "r1"}},
            {"type": "response.done", "response": {"id": "r1", "usage": USAGE}},
        ):
            if event["type"] == "response.done":
                bye = masked(struct.pack("!H", 1000), Opcode.CLOSE)
                client.sendall(bye)
                assert read_exactly(provider, len(bye)) == bye
            frame = Frame(Opcode.TEXT, json.dumps(event).encode()).serialize(mask=False)
            provider.sendall(frame)
            assert read_exactly(client, len(frame)) == frame
        provider.sendall(Frame(Opcode.CLOSE, struct.pack("!H", 1000)).serialize(mask=False))
        read_exactly(client, 4)
    (row,) = stage.rows()
    assert (row["usage_source"], row["cost_usd"]) == ("reported", "0.0069656")


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_provider_that_goes_in_the_middle_of_a_response(stage: Stage, how: str) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.expect("response.create")
        peer.begin()
        if how == "drop":
            peer.drop()
        else:
            peer.connection.close(1011, "sorry")

    stage.provider.play(script)
    with stage.open() as ws:
        send(ws, "response.create")
        receive_until(ws, "response.output_text.delta")
        assert close_code(ws) == 1011
        assert ws.close_reason == ("upstream_unreachable" if how == "drop" else "sorry")

    (row,) = stage.rows()
    assert_estimated(row, "upstream_broken")


def test_a_revoked_key_ends_its_sessions(stage: Stage) -> None:
    stage.provider.play(speaking)
    with stage.open(key=KEYS["leaving"]) as ws:
        send(ws, "response.create")
        receive_until(ws, "response.output_text.delta")
        stage.reload(organizations=keys(without="leaving"))
        assert receive_until(ws, "error")["error"]["code"] in ("key_revoked", "invalid_api_key")
        assert close_code(ws) == 1008
    (row,) = stage.rows()
    assert_estimated(row, "cut")
    stage.reload()


@pytest.mark.parametrize("in_turn", [True, False])
def test_a_silent_session_is_ended(stage: Stage, in_turn: bool) -> None:
    stage.reload(server={"idle_timeout_s": 0.2})
    stage.provider.play(speaking)
    with stage.open() as ws:
        receive_until(ws, "session.created")
        if in_turn:
            send(ws, "response.create")
            receive_until(ws, "response.output_text.delta")
        assert receive_until(ws, "error")["error"]["code"] == "upstream_timeout"
        assert close_code(ws) == 1011
    rows = stage.rows()
    assert [row["ending"] for row in rows] == (["cut"] if in_turn else [])
    stage.reload()


@pytest.mark.parametrize("in_turn", [True, False])
def test_a_worker_that_stops(tmp_path: Path, in_turn: bool) -> None:
    """An idle session ends at once, a turn in progress gets the time of `drain_s`."""
    with RealtimeProvider() as provider:
        server = {"drain_s": 0.1 if in_turn else 5}
        stage = Stage(tmp_path, provider, server=server)
        provider.play(speaking)
        with stage.app, stage.open() as ws:
            receive_until(ws, "session.created")
            if in_turn:
                send(ws, "response.create")
                receive_until(ws, "response.output_text.delta")
            worker = stage.app.app._worker
            assert worker is not None
            stage.app._loop.call_soon_threadsafe(worker.begin_drain)
            assert receive_until(ws, "error")["error"]["code"] == "draining"
            assert close_code(ws) == 1012
            assert [row["ending"] for row in stage.rows()] == (["cut"] if in_turn else [])


def test_a_message_that_is_too_large(tmp_path: Path) -> None:
    with RealtimeProvider() as provider:
        stage = Stage(tmp_path, provider, server={"max_body_mb": 1})
        provider.play(greeting)
        with stage.app, stage.open() as ws:
            send(ws, "input_audio_buffer.append", audio="A" * 1_100_000)
            assert receive_until(ws, "error")["error"]["code"] == "request_too_large"
            assert close_code(ws) == 1009


def test_a_worker_that_is_killed_is_charged_what_it_held(tmp_path: Path) -> None:
    with RealtimeProvider() as provider, Serving(tmp_path, provider.url) as serving:
        provider.play(speaking)
        headers = {"authorization": f"Bearer {PROCESS_KEY}"}
        url = serving.url.replace("http", "ws") + PATH
        with connect(url, additional_headers=headers, open_timeout=WAIT_S) as ws:
            send(ws, "response.create")
            receive_until(ws, "response.output_text.delta")
            send(ws, "response.create", response={"conversation": "none"})  # held for by now
            eventually(lambda: len(provider.events) == 2)
            serving.kill_worker()
            assert close_code(ws) == 1006
            rows = serving.wait_rows(2)
        assert {row["ending"] for row in rows} == {"lost"}
        assert [row["cost_usd"] for row in rows] == ["1.286144"] * len(rows)


# --- the official SDK ----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # how the SDK uses websockets
def test_the_official_sdk(stage: Stage) -> None:
    stage.provider.play(answering)
    client = OpenAI(base_url=f"{stage.app.url}/v1", api_key=KEY, max_retries=0)
    with client.realtime.connect(model="gpt-realtime") as connection:
        connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        connection.response.create()
        for event in connection:
            if event.type == "response.done":
                assert event.response.usage is not None
                assert event.response.usage.total_tokens == 253
                break
    (row,) = stage.rows()
    assert row["cost_usd"] == "0.0069656"


async def test_the_official_sdk_reads_the_error(stage: Stage) -> None:
    stage.provider.play(answering)
    budget = {"scope": "key/leaving", "limit_usd": "1.29", "period": "day", "hold_wait_ms": 0}
    stage.reload(budgets=[*BUDGETS, budget])
    client = AsyncOpenAI(base_url=f"{stage.app.url}/v1", api_key=KEYS["leaving"])
    events = []
    async with client.realtime.connect(model="gpt-realtime") as connection:
        await connection.response.create()
        with contextlib.suppress(ConnectionClosed):
            async for event in connection:
                events.append(event)  # noqa: PERF401 (the connection ends it)
    assert [event.error.code for event in events if event.type == "error"] == ["budget_exceeded"]
    stage.reload()
