"""Simulated clients: one connection and a few calls on it, or a hang-up half-way."""

import asyncio
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httptools

from tests.simulation.loop import SimLoop

KEY = "tk-simulation"


@dataclass
class SimCall:
    """One call as its client sees it."""

    number: int
    stream: bool = False
    max_tokens: int | None = 100
    customer: str = ""
    status: int = 0  # 0: no answer
    code: str = ""  # of a refusal
    completed: bool = False  # the whole reply is here
    sent: bool = False
    body: bytes = field(default=b"", repr=False)


class ClientConnection(asyncio.Protocol):
    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self.transport: Any = None
        self.lost = False
        self.call: SimCall | None = None
        self._parser: Any = None
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._parser is not None and self.call is not None:
            self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._wake()

    def eof_received(self) -> None:
        pass

    def on_body(self, body: bytes) -> None:
        assert self.call is not None
        self.call.body += body

    def on_headers_complete(self) -> None:
        assert self.call is not None
        self.call.status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        assert self.call is not None
        self.call.completed = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def send(self, call: SimCall, key: str, hang_up_after_s: float | None) -> None:
        """Send a call and wait for its reply, or hang up."""
        self.call, self._parser = call, httptools.HttpResponseParser(self)
        request: dict[str, Any] = {
            "model": "model-1",
            "messages": [{"role": "user", "content": f"call {call.number} please"}],
        }
        if call.max_tokens is not None:
            request["max_tokens"] = call.max_tokens
        if call.stream:
            request["stream"] = True
        body = json.dumps(request).encode()
        head = (
            f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: t\r\n"
            f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
            f"x-tollkeeper-tags: sim={call.number}\r\ncontent-length: {len(body)}\r\n"
        )
        if call.customer:
            head += f"x-tollkeeper-customer: {call.customer}\r\n"
        self._waiter = self.loop.create_future()
        waiter = self._waiter
        self.transport.write(head.encode() + b"\r\n" + body)
        call.sent = True
        if hang_up_after_s is None:
            await waiter
        else:
            await asyncio.wait([waiter], timeout=hang_up_after_s)
        if not call.completed:
            self.transport.close()
        elif call.status >= 400:
            call.code = _code(call.body)


def _code(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(error.get("code") or error.get("type") or "")


def a_call(number: int, random: Random) -> SimCall:
    return SimCall(
        number,
        stream=random.random() < 0.5,
        max_tokens=random.choice((1, 50, 100, 100, 300, None)),
    )
