"""Opening a connection to an origin: TCP, an HTTP proxy's tunnel, TLS; errors mapped to ours."""

import asyncio
import socket
import ssl

from proxy.upstream_connection import Connection
from proxy.upstream_errors import Unreachable
from proxy.upstream_origin import Origin, Proxy

TUNNEL_HEAD_BYTES_MAX = 16_384
TLS_HANDSHAKE_S = 3_600.0  # the caller's timeout is what counts
TLS_SHUTDOWN_S = 1.0


def default_tls() -> ssl.SSLContext:
    """The system's trust store (or SSL_CERT_FILE / SSL_CERT_DIR), HTTP/1.1 only."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def connect(
    loop: asyncio.AbstractEventLoop,
    connection: Connection,
    origin: Origin,
    tls: ssl.SSLContext | None,
) -> None:
    """Connect `connection` to `origin`, with `tls` for https. Raises Unreachable, TimeoutError."""
    try:
        if origin.proxy is not None and tls is not None:
            await _connect_tunnel(loop, connection, origin, origin.proxy, tls)
        else:
            await _connect_directly(loop, connection, origin, tls)
    except TimeoutError:
        raise
    except (OSError, ssl.SSLError, UnicodeError) as error:
        raise Unreachable(_explain(error, origin)) from error
    keep_alive_probes(connection.transport)


async def _connect_directly(
    loop: asyncio.AbstractEventLoop,
    connection: Connection,
    origin: Origin,
    tls: ssl.SSLContext | None,
) -> None:
    target: Origin | Proxy = origin.proxy or origin
    if tls is None:
        await loop.create_connection(lambda: connection, target.host, target.port)
        return
    await loop.create_connection(
        lambda: connection,
        target.host,
        target.port,
        ssl=tls,
        server_hostname=origin.host,
        ssl_handshake_timeout=TLS_HANDSHAKE_S,
        ssl_shutdown_timeout=TLS_SHUTDOWN_S,
    )


async def _connect_tunnel(
    loop: asyncio.AbstractEventLoop,
    connection: Connection,
    origin: Origin,
    proxy: Proxy,
    tls: ssl.SSLContext,
) -> None:
    transport, tunnel = await loop.create_connection(
        lambda: _Tunnel(loop.create_future()), proxy.host, proxy.port
    )
    try:
        transport.write(_connect_request(origin, proxy))
        await tunnel.opened
        secured = await loop.start_tls(
            transport,
            connection,
            tls,
            server_hostname=origin.host,
            ssl_handshake_timeout=TLS_HANDSHAKE_S,
            ssl_shutdown_timeout=TLS_SHUTDOWN_S,
        )
    except BaseException:
        transport.abort()
        raise
    assert secured is not None
    connection.connection_made(secured)


def _connect_request(origin: Origin, proxy: Proxy) -> bytes:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    authority = f"{host}:{origin.port}".encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % authority, b"host: " + authority]
    if proxy.authorization:
        lines.append(b"proxy-authorization: " + proxy.authorization)
    return b"\r\n".join((*lines, b"", b""))


class _Tunnel(asyncio.Protocol):
    """Waits for a proxy's answer to CONNECT; nothing follows it before our TLS hello."""

    def __init__(self, opened: asyncio.Future[None]) -> None:
        self.opened = opened
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" not in self._head:
            if len(self._head) > TUNNEL_HEAD_BYTES_MAX:
                self._refuse("its answer to CONNECT is too large")
            return
        line = self._head.split(b"\r\n", 1)[0].decode("latin-1")
        version, _, status = line.partition(" ")
        if version.startswith("HTTP/1.") and status.startswith("2"):
            if not self.opened.done():
                self.opened.set_result(None)
        else:
            self._refuse(f"it answered CONNECT with {status or line!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._refuse(f"it closed the connection{f': {exc}' if exc else ''}")

    def _refuse(self, reason: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(_ProxyRefused(reason))


class _ProxyRefused(OSError):
    pass


def _explain(error: Exception, origin: Origin) -> str:
    where = f"{origin.host}:{origin.port}"
    if isinstance(error, _ProxyRefused):
        assert origin.proxy is not None
        return f"the proxy {origin.proxy.host}:{origin.proxy.port} refused {where}: {error}"
    if origin.proxy is not None:
        where += f" via the proxy {origin.proxy.host}:{origin.proxy.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {where} is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS with {where} failed: {error.reason or error}"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return f"the name of {where} cannot be resolved: {error}"
    if isinstance(error, ConnectionRefusedError):
        return f"{where} refused the connection"
    return f"cannot connect to {where}: {error}"


def keep_alive_probes(transport: asyncio.Transport) -> None:
    """Models think for minutes in silence: probes keep such a connection open through NAT, and
    find out when its peer is gone."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 8)):
        if hasattr(socket, option):  # not on every platform
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
