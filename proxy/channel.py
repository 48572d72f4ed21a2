"""What carries messages between the planes: a socket pair, or two ends in one process.

Frames are a 4-byte little-endian length and a msgpack message. Both kinds of channel deliver on
the event loop, in order, and never from inside `send`.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

import msgspec

from proxy.wire import Channel, Message

log = logging.getLogger(__name__)

HEADER_BYTES = 4
FRAME_BYTES_MAX = 64 * 2**20  # a snapshot with a hundred thousand keys fits
CONGESTED_BYTES = 2**20
UNSENT_BYTES_MAX = 2 * FRAME_BYTES_MAX  # a peer that does not read this much is as good as gone

encode_message = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(Message).decode


def encode_frame(message: Message) -> bytes:
    payload = encode_message(message)
    assert len(payload) <= FRAME_BYTES_MAX, len(payload)
    return len(payload).to_bytes(HEADER_BYTES, "little") + payload


class FrameDecoder:
    """Bytes in, in any pieces; messages out. Raises ValueError on what cannot be a frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        self._buffer += data
        messages = []
        at = 0
        while len(self._buffer) - at >= HEADER_BYTES:
            start = at + HEADER_BYTES
            length = int.from_bytes(self._buffer[at:start], "little")
            if length > FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {length} bytes")
            if len(self._buffer) < start + length:
                break
            messages.append(decode_message(memoryview(self._buffer)[start : start + length]))
            at = start + length
        del self._buffer[:at]
        return messages


class _Inbox:
    """Messages that came before `start`, and who gets those that come after it."""

    def __init__(self) -> None:
        self._early: deque[Message] = deque()
        self._on_message: Callable[[Message], None] | None = None
        self._on_close: Callable[[], None] | None = None
        self._closed = False

    def start(self, on_message: Callable[[Message], None], on_close: Callable[[], None]) -> None:
        self._on_message, self._on_close = on_message, on_close
        while self._early:
            on_message(self._early.popleft())
        if self._closed:
            on_close()

    @property
    def started(self) -> bool:
        return self._on_message is not None

    def deliver(self, message: Message) -> None:
        if self._on_message is None:
            self._early.append(message)
        else:
            self._on_message(message)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._on_close is not None:
                self._on_close()


class LocalChannel(Channel):
    """One end inside a process. Messages are passed by reference: nobody may change one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inbox = _Inbox()
        self._peer: LocalChannel | None = None

    @classmethod
    def pair(cls) -> tuple["LocalChannel", "LocalChannel"]:
        loop = asyncio.get_running_loop()
        one, other = cls(loop), cls(loop)
        one._peer, other._peer = other, one
        return one, other

    def start(self, on_message: Callable[[Message], None], on_close: Callable[[], None]) -> None:
        self._inbox.start(on_message, on_close)

    def send(self, message: Message) -> None:
        if self._peer is not None:
            self._loop.call_soon(self._peer._receive, message)

    def close(self) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            peer._peer = None
            self._loop.call_soon(peer._inbox.close)
            self._loop.call_soon(self._inbox.close)

    def _receive(self, message: Message) -> None:
        self._inbox.deliver(message)


class SocketChannel(asyncio.Protocol, Channel):
    """One end of a socket pair."""

    def __init__(self) -> None:
        self.heard = 0  # how often something came
        self._inbox = _Inbox()
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None

    def start(self, on_message: Callable[[Message], None], on_close: Callable[[], None]) -> None:
        self._inbox.start(on_message, on_close)

    def send(self, message: Message) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(encode_frame(message))
        if transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    @property
    def congested(self) -> bool:
        transport = self._transport
        return transport is not None and transport.get_write_buffer_size() > CONGESTED_BYTES

    @property
    def started(self) -> bool:
        return self._inbox.started

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self.heard += 1
        try:
            messages = self._decoder.feed(data)
        except (ValueError, msgspec.MsgspecError) as exc:
            log.error("a message between worker and control cannot be read: %s", exc)
            self._abort()
            return
        for message in messages:
            self._inbox.deliver(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._inbox.close()

    def _abort(self) -> None:
        assert self._transport is not None
        self._transport.abort()


async def connect(sock: socket.socket) -> SocketChannel:
    """A channel over one end of a connected socket pair."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_unix_connection(SocketChannel, sock=sock)
    return channel
