"""One worker as control sees it: its channel, its journal, and what it has acknowledged."""

from collections.abc import Callable
from typing import Protocol

from proxy.wire import (
    PROTOCOL_VERSION,
    Ack,
    Answer,
    Ask,
    Channel,
    Drain,
    Hello,
    Meet,
    Message,
    Met,
    Slices,
    Snapshot,
    Status,
    Unwant,
    Want,
    Welcome,
)


class Host(Protocol):
    """What a session tells control."""

    def on_hello(self, session: "Session") -> None: ...

    def on_status(self, session: "Session", status: Status) -> None: ...

    def on_want(self, session: "Session", want: Want) -> None: ...

    def on_unwant(self, session: "Session", unwant: Unwant) -> None: ...

    def on_ask(self, session: "Session", ask: Ask | Meet) -> None: ...

    def on_gone(self, session: "Session") -> None: ...


class Session:
    """Messages of a worker that breaks the protocol end its connection, nothing else."""

    def __init__(self, channel: Channel, host: Host) -> None:
        self.journal_id = b""  # b"": hello has not come
        self.pid = 0
        self.sent = -1  # the newest revision it was sent,
        self.acked = -1  # and the newest in force there
        self.gone = False
        self._channel = channel
        self._host = host
        self._handlers: dict[type[Message], Callable[..., None]] = {
            Hello: self._on_hello,
            Ack: self._on_ack,
            Status: lambda status: host.on_status(self, status),
            Want: lambda want: host.on_want(self, want),
            Unwant: lambda unwant: host.on_unwant(self, unwant),
            Ask: lambda ask: host.on_ask(self, ask),
            Meet: lambda meet: host.on_ask(self, meet),
        }

    def start(self, welcome: Welcome) -> None:
        self._channel.start(self._on_message, self._on_close)
        self._channel.send(welcome)

    def send(self, message: Snapshot | Slices | Answer | Met) -> None:
        self._channel.send(message)

    def drain(self) -> None:
        self._channel.send(Drain())

    def close(self) -> None:
        self._channel.close()

    def _on_close(self) -> None:
        self.gone = True
        self._host.on_gone(self)

    def _on_message(self, message: Message) -> None:
        handler = self._handlers.get(type(message))
        if handler is None or (not self.journal_id and not isinstance(message, Hello)):
            self._channel.close()
            return
        handler(message)

    def _on_hello(self, hello: Hello) -> None:
        if self.journal_id or hello.version != PROTOCOL_VERSION or len(hello.journal_id) != 16:
            self._channel.close()
            return
        self.journal_id, self.pid = hello.journal_id, hello.pid
        self._host.on_hello(self)

    def _on_ack(self, ack: Ack) -> None:
        self.acked = max(self.acked, ack.revision)
