"""A transport to a provider; what comes off it goes to the exchange that has it now."""

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from proxy.upstream_exchange import Exchange


class Owner(Protocol):
    """Who keeps connections; the pool."""

    def connection_idle(self, connection: "Connection") -> None:
        """The exchange is over and the connection can carry another one."""

    def connection_ended(self, connection: "Connection") -> None:
        """The connection can carry no further exchange; it is about to close."""

    def connection_lost(self, connection: "Connection") -> None:
        """The connection is closed."""


class Connection(asyncio.Protocol):
    """A transport to an origin, and the exchange that has it now."""

    __slots__ = ("closed", "exchange", "idle_since", "key", "owner", "transport", "write_paused")

    transport: asyncio.Transport

    def __init__(self, owner: Owner, key: str) -> None:
        self.owner = owner
        self.key = key
        self.exchange: Exchange | None = None
        self.closed = False
        self.write_paused = False
        self.idle_since: float | None = None  # clock of the first tick that found it idle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.abort()  # nobody asked: a 408 before the close, or a broken peer
        else:
            exchange.feed(data)

    def eof_received(self) -> None:
        self._end(None, clean=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc, clean=False)
        self.exchange = None
        self.owner.connection_lost(self)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.exchange is not None:
            self.exchange.wake()

    def abort(self) -> None:
        self.closed = True
        self.transport.abort()

    def _end(self, exc: Exception | None, *, clean: bool) -> None:
        self.closed = True
        self.owner.connection_ended(self)
        if self.exchange is not None:
            self.exchange.connection_ended(exc, clean=clean)
