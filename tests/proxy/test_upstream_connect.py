"""Connecting: TLS and its failures, DNS, refusals, tunnels. Real sockets, own certificates."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
import trustme

from proxy.upstream import (
    Origin,
    Pool,
    Proxies,
    Proxy,
    Unreachable,
    UpstreamBroken,
    UpstreamTimeout,
)
from proxy.upstream_connect import default_tls
from tests.replay import Gate, ReplayServer, Reply, json_reply

HEAD = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n"
DIRECT = Proxies()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = default_tls()
    authority.configure_trust(context)
    return context


@pytest.fixture
async def pool(tls: ssl.SSLContext) -> AsyncIterator[Pool]:
    made = Pool(tls=tls, connect_timeout_s=5)
    yield made
    await made.close()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port nobody listens on, kept from being given to anybody else."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


# --- TLS -----------------------------------------------------------------------------------


async def test_tls_with_a_trusted_certificate(pool: Pool, authority: trustme.CA) -> None:
    seen: list[tuple[str | None, str]] = []
    context = server_tls(authority, "localhost")
    context.sni_callback = lambda _, name, __: seen.append((name, "sni"))  # type: ignore[assignment]
    async with ReplayServer(tls=context, host_name="localhost") as server:
        server.reply(*(json_reply({"n": n}) for n in range(2)))
        for n in range(2):
            exchange = await pool.request(Origin.parse(server.url, DIRECT), HEAD)
            assert await exchange.read() == b'{"n": %d}' % n
            exchange.release()
        assert server.connections_opened == 1
    assert seen == [("localhost", "sni")]


async def test_large_bodies_both_ways_over_tls(pool: Pool, authority: trustme.CA) -> None:
    async with ReplayServer(
        tls=server_tls(authority, "localhost"), host_name="localhost"
    ) as server:
        server.on("/x", lambda request: Reply(body=request.body, framing="chunked"))
        body = bytes(range(256)) * 20_000
        head = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        exchange = await pool.request(Origin.parse(server.url, DIRECT), head, body)
        echoed = bytearray()
        while part := await exchange.read():
            echoed += part
        exchange.release()
        assert echoed == body


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other.example", r"certificate of localhost:\d+ is not trusted: .*localhost"),
        (None, r"certificate of localhost:\d+ is not trusted: unable to get local issuer"),
    ],
)
async def test_a_wrong_certificate_is_named(
    pool: Pool, authority: trustme.CA, name: str | None, message: str
) -> None:
    issuer = authority if name else trustme.CA()
    async with ReplayServer(
        tls=server_tls(issuer, name or "localhost"), host_name="localhost"
    ) as server:
        with pytest.raises(Unreachable, match=message) as caught:
            await pool.request(Origin.parse(server.url, DIRECT), HEAD)
        assert not caught.value.sent
        assert not server.requests


async def test_tls_to_a_plain_server(pool: Pool) -> None:
    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match=rf"TLS with localhost:{port} failed") as caught:
            await pool.request(Origin.parse(f"https://localhost:{port}", DIRECT), HEAD)
        assert not caught.value.sent


async def test_the_trust_store_follows_ssl_cert_file(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    with authority.cert_pem.tempfile() as path:
        monkeypatch.setenv("SSL_CERT_FILE", path)
        pool = Pool()
        assert len(pool.tls.get_ca_certs()) == 1
    tls = server_tls(authority, "localhost")
    async with ReplayServer(tls=tls, host_name="localhost") as server:
        server.reply(json_reply({}))
        exchange = await pool.request(Origin.parse(server.url, DIRECT), HEAD)
        exchange.abort()
        await pool.close()


# --- no connection -------------------------------------------------------------------------


async def test_connection_refused(pool: Pool, closed_port: int) -> None:
    origin = Origin.parse(f"http://127.0.0.1:{closed_port}", DIRECT)
    with pytest.raises(
        Unreachable, match=rf"127\.0\.0\.1:{closed_port}.*refused|refused"
    ) as caught:
        await pool.request(origin, HEAD)
    assert (caught.value.sent, caught.value.answered) == (False, False)


async def test_unknown_host(pool: Pool) -> None:
    with pytest.raises(Unreachable, match=r"name of no-such-host\.invalid:80 cannot be resolved"):
        await pool.request(Origin.parse("http://no-such-host.invalid", DIRECT), HEAD)


async def test_connect_timeout_covers_the_tls_handshake(pool: Pool) -> None:
    pool.connect_timeout_s = 0.05
    async with ReplayServer() as server:  # accepts, and never says hello
        url = server.url.replace("http:", "https:")
        with pytest.raises(UpstreamTimeout, match="connect timeout") as caught:
            await pool.request(Origin.parse(url, DIRECT), HEAD)
    assert caught.value.kind == "connect"
    assert not caught.value.sent


# --- proxies -------------------------------------------------------------------------------


@dataclass
class TunnelServer:
    """A proxy that answers CONNECT and then copies bytes to one target, whatever was asked for."""

    target_port: int
    answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"
    heads: list[bytes] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> "TunnelServer":
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except ConnectionError:
            pass  # the client has heard enough
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        for byte in self.answer:  # its head may come in any pieces
            writer.write(bytes([byte]))
            await writer.drain()
        if b" 200 " in self.answer:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            await asyncio.gather(_copy(reader, to_writer), _copy(to_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def test_a_tunnel_through_a_proxy(pool: Pool, authority: trustme.CA) -> None:
    async with (
        ReplayServer(tls=server_tls(authority, "provider.test")) as server,
        TunnelServer(server.port) as tunnel,
    ):
        server.reply(*(json_reply({"n": n}) for n in range(2)))
        proxy = Proxy("127.0.0.1", tunnel.port, b"Basic dTpw")
        origin = Origin.parse("https://provider.test/v1", Proxies(https=proxy))
        for n in range(2):
            exchange = await pool.request(origin, HEAD)
            assert await exchange.read() == b'{"n": %d}' % n
            exchange.release()
        assert tunnel.heads == [
            b"CONNECT provider.test:443 HTTP/1.1\r\nhost: provider.test:443\r\n"
            b"proxy-authorization: Basic dTpw\r\n\r\n"
        ]
        assert server.requests[0].raw_head == HEAD  # the proxy's credentials stay with the proxy
        await pool.close()


# --- another protocol ----------------------------------------------------------------------

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"


class Received(asyncio.Protocol):
    """What comes on a connection that was taken over."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(exc)


@pytest.mark.parametrize("tunnelled", [False, True])
async def test_a_connection_that_switches_is_taken_over(
    pool: Pool, authority: trustme.CA, tunnelled: bool
) -> None:
    rest = bytes(range(256)) * 2_000
    name = "provider.test" if tunnelled else "localhost"  # loopback is never tunnelled
    async with (
        ReplayServer(tls=server_tls(authority, name), host_name="localhost") as server,
        TunnelServer(server.port) as tunnel,
    ):
        server.reply(Reply(raw=SWITCHING + rest, then_close=True))
        proxies = Proxies(https=Proxy("127.0.0.1", tunnel.port)) if tunnelled else DIRECT
        url = f"https://{name}" if tunnelled else server.url
        exchange = pool.exchange()
        exchange.may_upgrade = True
        await pool.send(exchange, Origin.parse(url, proxies), HEAD)
        assert (exchange.status, exchange.rest is not None) == (101, True)
        received = Received()
        transport = exchange.take_over(received)
        assert exchange.rest is not None
        received.data = exchange.rest
        exchange.release()  # nothing is left of it
        await asyncio.sleep(0)
        transport.resume_reading()
        await received.closed
        assert received.data == rest
        assert len(tunnel.heads) == tunnelled
        await pool.close()


async def test_a_connection_that_switches_unasked_is_broken(pool: Pool) -> None:
    async with ReplayServer() as server:
        server.reply(Reply(raw=SWITCHING))
        with pytest.raises(UpstreamBroken, match="switched to another protocol"):
            await pool.request(Origin.parse(server.url, DIRECT), HEAD)


async def test_a_101_that_switches_nothing_has_no_rest(pool: Pool) -> None:
    async with ReplayServer() as server:
        server.reply(Reply(raw=b"HTTP/1.1 101 Switching Protocols\r\n\r\n"))
        exchange = pool.exchange()
        exchange.may_upgrade = True
        await pool.send(exchange, Origin.parse(server.url, DIRECT), HEAD)
        assert (exchange.status, exchange.rest) == (101, None)
        exchange.release()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407 Proxy Authentication"),
        (b"HTTP/1.1 403\r\n\r\n", "403"),
        (b"what?\r\n\r\n", "what"),
        (b"", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, "too large"),
    ],
)
async def test_a_proxy_that_refuses(pool: Pool, answer: bytes, message: str) -> None:
    async with TunnelServer(0, answer) as tunnel:
        proxies = Proxies(https=Proxy("127.0.0.1", tunnel.port))
        with pytest.raises(
            Unreachable, match=f"the proxy 127.0.0.1:{tunnel.port} refused.*{message}"
        ):
            await pool.request(Origin.parse("https://provider.test", proxies), HEAD)


async def test_a_certificate_behind_a_tunnel_is_verified(pool: Pool, authority: trustme.CA) -> None:
    async with (
        ReplayServer(tls=server_tls(authority, "other.test")) as server,
        TunnelServer(server.port) as tunnel,
    ):
        origin = Origin.parse(
            "https://provider.test", Proxies(https=Proxy("127.0.0.1", tunnel.port))
        )
        with pytest.raises(Unreachable, match=r"certificate of provider\.test:443 via the proxy"):
            await pool.request(origin, HEAD)


async def test_plain_http_goes_to_a_proxy_in_absolute_form(pool: Pool) -> None:
    async with ReplayServer() as server:
        server.reply(json_reply({}))
        proxies = Proxies(http=Proxy("127.0.0.1", server.port))
        exchange = await pool.request(Origin.parse("http://provider.test:81", proxies), HEAD)
        assert exchange.status == 200
        exchange.abort()
        assert server.requests[0].target == "http://provider.test:81/x"


async def test_an_unreachable_proxy_is_named(pool: Pool, closed_port: int) -> None:
    proxies = Proxies(https=Proxy("127.0.0.1", closed_port))
    with pytest.raises(Unreachable, match=rf"via the proxy 127\.0\.0\.1:{closed_port}"):
        await pool.request(Origin.parse("https://provider.test", proxies), HEAD)


async def test_silent_connections_are_probed(pool: Pool) -> None:
    async with ReplayServer() as server:
        gate = Gate()
        server.reply(Reply(stall_after=0, until=gate))
        exchange = await pool.request(Origin.parse(server.url, DIRECT), HEAD)
        (connection,) = pool._connections
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        exchange.abort()
