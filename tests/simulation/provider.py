"""The simulated provider: answers chat completions, and keeps the bill."""

import asyncio
import json
from dataclasses import dataclass
from random import Random
from typing import Any

import httptools

from tests.simulation.loop import SimLoop

INPUT_NANO, OUTPUT_NANO = 1_000, 10_000  # per token; see `tests.factories.an_entry`
CUT_AFTER_S = 7.0  # later than a stale connection would die, so it is not sent again


@dataclass
class Bill:
    """What one request used. `final`: its usage was reported in full."""

    call: int
    input_tokens: int
    output_tokens: int = 0
    final: bool = False

    @property
    def nano(self) -> int:
        return self.input_tokens * INPUT_NANO + self.output_tokens * OUTPUT_NANO

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class Provider:
    """`bills` by call number; `requests` counts what came, billed or not."""

    def __init__(self, loop: SimLoop, random: Random) -> None:
        self.loop = loop
        self.random = random
        self.bills: dict[int, Bill] = {}
        self.requests: dict[int, int] = {}
        self.failing = 0.0  # share of requests that go wrong
        self.violating = 0.0  # share that costs more than its ceiling
        self.on_request: Any = lambda call: None
        self.on_event: Any = lambda text: None

    def connection(self) -> "ProviderConnection":
        return ProviderConnection(self)


class ProviderConnection(asyncio.Protocol):
    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._transport: Any = None
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        request = json.loads(self._body)
        provider = self._provider
        number = int(request["messages"][0]["content"].split()[1])
        provider.requests[number] = provider.requests.get(number, 0) + 1
        provider.on_request(number)
        self._task = provider.loop.create_task(self._answer(number, request))

    async def _answer(self, number: int, request: dict[str, Any]) -> None:
        provider, random = self._provider, self._provider.random
        failure = ""
        if random.random() < provider.failing:
            failure = random.choice(["500", "429", "silent", "cut", "mute", "hang"])
            provider.on_event(f"provider: call {number} goes wrong: {failure}")
        await asyncio.sleep(random.choice((0.0, 0.001, 0.02, 0.3, 1.5)))
        if failure in ("500", "429"):
            self._send_json(int(failure), {"error": {"message": "no", "type": "server_error"}})
            return
        if failure == "silent":  # broke off before an answer, and did nothing
            await asyncio.sleep(CUT_AFTER_S)
            self._transport.close()
            return
        if failure == "hang":
            await asyncio.sleep(3_000)
            self._transport.close()
            return
        bill = self._bill(number, request)
        if request.get("stream"):
            await self._stream(bill, request, failure)
        else:
            await self._plain(bill, failure)

    def _bill(self, number: int, request: dict[str, Any]) -> Bill:
        provider, random = self._provider, self._provider.random
        asked = request.get("max_tokens") or request.get("max_completion_tokens") or 8_000
        output = random.choice((1, random.randint(0, asked), min(asked, 40), asked))
        input_tokens = random.randint(5, len(self._body))
        if random.random() < provider.violating:
            input_tokens = len(self._body) + 2_048 + random.randint(2_000, 9_000)
            output = asked
        bill = Bill(number, input_tokens, output)
        assert number not in provider.bills, "billed twice"
        provider.bills[number] = bill
        return bill

    async def _plain(self, bill: Bill, failure: str) -> None:
        if failure == "cut":
            head = self._head(200, b"application/json", b"content-length: 500")
            self._transport.write(head + b'{"id":')
            await asyncio.sleep(0.01)
            self._transport.close()
            return
        usage = None if failure == "mute" else _usage(bill)
        bill.final = usage is not None
        message = {"role": "assistant", "content": "word " * 3}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send_json(200, _completion(bill, choices=[choice], usage=usage))

    async def _stream(self, bill: Bill, request: dict[str, Any], failure: str) -> None:
        """Bills what it has produced when the connection breaks."""
        random, total = self._provider.random, bill.output_tokens
        self._transport.write(self._head(200, b"text/event-stream", b"transfer-encoding: chunked"))
        pieces = random.randint(1, 5)
        bill.output_tokens = 0
        for piece in range(pieces):
            if failure == "cut" and piece == pieces - 1:
                self._transport.close()
                return
            bill.output_tokens = total * (piece + 1) // pieces
            delta = {"index": 0, "delta": {"content": "word"}, "finish_reason": None}
            self._event(_completion(bill, choices=[delta]))
            await asyncio.sleep(random.choice((0.0, 0.005, 0.1, 0.8)))
        bill.output_tokens = total
        if failure != "mute":
            bill.final = True
            self._event(_completion(bill, choices=[], usage=_usage(bill)))
        self._chunk(b"data: [DONE]\n\n")
        self._transport.write(b"0\r\n\r\n")

    # --- wire format

    def _send_json(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        length = b"content-length: %d" % len(body)
        self._transport.write(self._head(status, b"application/json", length) + body)

    @staticmethod
    def _head(status: int, kind: bytes, framing: bytes) -> bytes:
        return b"HTTP/1.1 %d X\r\ncontent-type: %b\r\n%b\r\n\r\n" % (status, kind, framing)

    def _event(self, value: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


def _usage(bill: Bill) -> dict[str, int]:
    return {
        "prompt_tokens": bill.input_tokens,
        "completion_tokens": bill.output_tokens,
        "total_tokens": bill.tokens,
    }


def _completion(bill: Bill, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{bill.call}",
        "object": "chat.completion.chunk",
        "model": "model-1",
    } | fields
