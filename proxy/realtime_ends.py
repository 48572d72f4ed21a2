"""The two connections of a realtime session: whole frames in, bytes out, back-pressure both ways.

While one end's buffer is full the other one is not read, so that memory stays bounded whoever is
slow.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from proxy.websocket import Fault, Frames, Piece


class End(asyncio.Protocol):
    """One connection, once it speaks WebSocket."""

    other: "End"

    def __init__(
        self,
        frames: Frames,
        *,
        on_piece: Callable[[Piece], None],
        on_fault: Callable[[Fault], None],
        on_gone: Callable[[Exception | None], None],
    ) -> None:
        self.frames = frames
        self.gone = False
        self._on_piece = on_piece
        self._on_fault = on_fault
        self._on_gone = on_gone
        self._transport: asyncio.Transport | None = None
        self._paused_by: set[str] = set()

    def attach(self, transport: asyncio.BaseTransport, rest: bytes = b"") -> None:
        """Take a connection over whose reading may be paused; `rest` was read of it already."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        if rest:
            self.data_received(rest)
        if not self._paused_by and not self._transport.is_closing():
            self._transport.resume_reading()

    # --- from the transport

    def data_received(self, data: bytes) -> None:
        for piece in self.frames.feed(data):
            self._on_piece(piece)
        if self.frames.fault is not None:
            self._on_fault(self.frames.fault)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self.other.resume("slow peer")
        self._on_gone(exc)

    def pause_writing(self) -> None:
        self.other.pause("slow peer")

    def resume_writing(self) -> None:
        self.other.resume("slow peer")

    # --- to the transport

    @property
    def writable(self) -> bool:
        transport = self._transport
        return transport is not None and not self.gone and not transport.is_closing()

    def write(self, data: bytes) -> None:
        if self.writable and self._transport is not None:
            self._transport.write(data)

    def pause(self, why: str) -> None:
        """Read nothing more until no reason is left."""
        if not self._paused_by and self.writable and self._transport is not None:
            self._transport.pause_reading()
        self._paused_by.add(why)

    def resume(self, why: str) -> None:
        if why not in self._paused_by:
            return
        self._paused_by.discard(why)
        if not self._paused_by and self.writable and self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Close once everything written is out."""
        if self.writable and self._transport is not None:
            self._transport.close()
