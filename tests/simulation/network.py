"""Connections between simulated processes: bytes in order, in any pieces, after a while."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.simulation.loop import Process, SimLoop, current

PIECE_BYTES = (7, 90, 1500)


class SimTransport(asyncio.Transport):
    """One end. What is written arrives at the other end's protocol, in its process."""

    def __init__(self, loop: SimLoop, process: Process) -> None:
        super().__init__()
        self.process = process
        self.peer: SimTransport
        self._loop = loop
        self._protocol: Any = None
        self._inbox: deque[bytes | None] = deque()  # None: the other end closed
        self._closing = False
        self._lost = False
        self._reading = True

    @classmethod
    def pair(
        cls, loop: SimLoop, one: Process, other: Process
    ) -> tuple["SimTransport", "SimTransport"]:
        first, second = cls(loop, one), cls(loop, other)
        first.peer, second.peer = second, first
        for end in (first, second):
            end.process.on_death.append(end._died)
        return first, second

    def attach(self, protocol: Any) -> None:
        """In the process of this end."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._deliver_all()

    # --- asyncio.Transport

    def write(self, data: bytes) -> None:  # type: ignore[override]
        current()
        if self._closing or self._lost:
            return
        random = self._loop.random
        data = bytes(data)
        if len(data) > 1 and random.random() < 0.2:
            cut = min(random.choice(PIECE_BYTES), len(data) - 1)
            self.peer._arrive(data[:cut])
            data = data[cut:]
        self.peer._arrive(data)

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.peer._arrive(None)
            self._loop.call_soon(self._lose, None, context=self.process.context)

    abort = close

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, 65536

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._deliver_all()

    def is_reading(self) -> bool:
        return self._reading

    # --- delivery

    def _arrive(self, data: bytes | None) -> None:
        if not self._lost and self.process.alive:
            self._inbox.append(data)
            self._later(self._deliver)

    def _later(self, function: Callable[[], None]) -> None:
        self._loop.call_later(self._loop.latency(), function, context=self.process.context)

    def _deliver_all(self) -> None:
        for _ in self._inbox:
            self._later(self._deliver)

    def _deliver(self) -> None:
        """The next piece, whichever event this is: they may overtake each other, pieces do not."""
        if self._lost or self._protocol is None or not self._reading or not self._inbox:
            return
        data = self._inbox.popleft()
        if data is not None:
            if not self._closing:
                self._protocol.data_received(data)
            return
        if not self._closing:
            self._protocol.eof_received()
            self._closing = True
        self._lose(None)

    def _lose(self, exc: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._inbox.clear()
            if self._protocol is not None:
                self._protocol.connection_lost(exc)

    def _died(self) -> None:
        """The kernel closes what a dead process had open."""
        if not self._lost:
            self._lost = self._closing = True
            self.peer._arrive(None)


class SimListener:
    """A listening socket that several processes share; in place of a `socket.socket`."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._accepting: list[SimServer] = []

    def listen(self, factory: Callable[[], Any]) -> "SimServer":
        server = SimServer(self, current(), factory)
        self._accepting.append(server)
        return server

    def close(self, server: "SimServer") -> None:
        if server in self._accepting:
            self._accepting.remove(server)

    def connect(self, protocol: Any) -> bool:
        """A client, in the current process. False: refused."""
        open_ = [each for each in self._accepting if each.process.alive]
        if not open_:
            return False
        server = self._loop.random.choice(open_)
        ours, theirs = SimTransport.pair(self._loop, current(), server.process)
        ours.attach(protocol)
        server.process.call(theirs.attach, server.factory())
        return True


class SimServer:
    """What `create_server` returns: one process that accepts."""

    sockets = ()

    def __init__(self, listener: SimListener, process: Process, factory: Callable[[], Any]) -> None:
        self.process = process
        self.factory = factory
        self._listener = listener

    def close(self) -> None:
        self._listener.close(self)
