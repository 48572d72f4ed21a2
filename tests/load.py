"""Mixed load, and a provider that keeps books of its own.

Every call has a number: the provider finds it in the body, the cost row in a tag. So what was
billed, what a client saw and what the ledger says can be compared call by call.
"""

import asyncio
import random
import threading
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import httpx

from pricing.money import nano_from_usd
from tests.processes import KEY, Serving, wait_for
from tests.replay import Gate, ReplayServer, Reply, Request, json_reply, sse, sse_reply

ROUTE = "/v1/chat/completions"
MODEL = "gpt-4o-mini"
INPUT_NANO, OUTPUT_NANO = 150, 600  # per token: 0.15 and 0.60 USD per million
MAX_TOKENS = 400
SLOW_S = (0.05, 0.4)  # how long a slow reply takes
PAUSE_S = 0.2  # of a client that found nobody
KINDS = ("json", "json", "slow_json", "stream", "stream", "slow_stream")
Usage = tuple[int, int]  # input, output


def request_body(number: int, *, stream: bool) -> dict[str, Any]:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "How are the trains today?"}],
        "max_tokens": MAX_TOKENS,
        "user": str(number),
    }
    return {**body, "stream": True} if stream else body


def headers(number: int, key: str = KEY) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "x-tollkeeper-tags": f"n={number}"}


def nano(usage: Usage) -> int:
    return usage[0] * INPUT_NANO + usage[1] * OUTPUT_NANO


def number_of(row: dict[str, Any]) -> int:
    return int(row["tags"]["n"])


def cost_of(row: dict[str, Any]) -> int:
    """Nano-USD."""
    return nano_from_usd(Decimal(row["cost_usd"]))


class Provider:
    """Answers chat completions, each with a usage of its own, and bills them as they come."""

    def __init__(self, seed: int) -> None:
        self.server = ReplayServer()
        self.billed: dict[int, list[Usage]] = {}  # by call; more than one: it came twice
        self._random = random.Random(seed)
        self._slow: set[int] = set()
        self._gates: dict[int, Gate] = {}
        self.server.on("/chat/completions", self._answer)

    @property
    def url(self) -> str:
        return self.server.url

    def slow(self, number: int) -> None:
        """This call will be answered slowly."""
        self._slow.add(number)

    def held(self, number: int) -> Gate:
        """This call is answered (a stream: further than its first event) when the gate opens."""
        return self._gates.setdefault(number, Gate())

    def has(self, number: int) -> None:
        """Wait until this call has come."""
        wait_for(f"call {number} at the provider", lambda: number in self.billed)

    def _answer(self, request: Request) -> Reply:
        body = request.json()
        number = int(body["user"])
        usage = (self._random.randint(1, 60), self._random.randint(1, MAX_TOKENS))
        self.billed.setdefault(number, []).append(usage)
        gate = self._gates.get(number) or (self._gate() if number in self._slow else None)
        if not body.get("stream"):
            return json_reply(_completion(number, usage), before=gate)
        events = _events(number, usage)
        return sse_reply(events, stall_after=len(events[0]) if gate else None, until=gate)

    def _gate(self) -> Gate:
        gate = Gate()
        asyncio.get_running_loop().call_later(self._random.uniform(*SLOW_S), gate.open)
        return gate

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for gate in self._gates.values():
            gate.open()
        self.server.__exit__(kind, exc, trace)


def _usage(usage: Usage) -> dict[str, int]:
    inputs, outputs = usage
    total = inputs + outputs
    return {"prompt_tokens": inputs, "completion_tokens": outputs, "total_tokens": total}


def _head(number: int, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{number}", "object": kind, "created": 1, "model": MODEL}


def _completion(number: int, usage: Usage) -> dict[str, Any]:
    message = {"role": "assistant", "content": "They run. " * usage[1]}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {**_head(number, "chat.completion"), "choices": [choice], "usage": _usage(usage)}


def _events(number: int, usage: Usage) -> list[bytes]:
    head = _head(number, "chat.completion.chunk")
    words = [
        {**head, "choices": [{"index": 0, "delta": {"content": "They run. "}}], "usage": None}
        for _ in range(1 + usage[1] // 20)
    ]
    last = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None}
    total = {**head, "choices": [], "usage": _usage(usage)}
    return [*(sse(event) for event in [*words, last, total]), sse("[DONE]")]


@dataclass
class Seen:
    """What a client saw of a call."""

    kind: str
    status: int = 0  # 0: no answer
    complete: bool = False
    request_id: str = ""


class Load:
    """Clients that call one after the other, in a thread of their own, until `stop`."""

    def __init__(self, url: str, provider: Provider, *, clients: int = 32, seed: int = 0) -> None:
        self.seen: dict[int, Seen] = {}
        self.completed: dict[int, Seen] = {}  # the client has the whole reply
        self._url = url + ROUTE
        self._provider = provider
        self._clients = clients
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """No new calls; those in flight are waited for."""
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "a call does not end"

    def wait_completed(self, more: int, timeout_s: float = 30) -> None:
        """Wait until so many calls more have completed."""
        goal = len(self.completed) + more
        wait_for(f"{goal} calls", lambda: len(self.completed) >= goal, timeout_s)

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=self._clients)
        async with httpx.AsyncClient(timeout=20, limits=limits, verify=False) as client:
            await asyncio.gather(*(self._client(client) for _ in range(self._clients)))

    async def _client(self, client: httpx.AsyncClient) -> None:
        while not self._over.is_set():
            number = len(self.seen) + 1
            seen = self.seen[number] = Seen(self._random.choice(KINDS))
            if seen.kind.startswith("slow"):
                self._provider.slow(number)
            try:
                await self._call(client, number, seen)
            except httpx.TransportError:
                await asyncio.sleep(PAUSE_S)

    async def _call(self, client: httpx.AsyncClient, number: int, seen: Seen) -> None:
        body = request_body(number, stream="stream" in seen.kind)
        async with client.stream("POST", self._url, json=body, headers=headers(number)) as reply:
            seen.status = reply.status_code
            seen.request_id = reply.headers.get("x-tollkeeper-request-id", "")
            data = await reply.aread()
        end = b"data: [DONE]\n\n" if "stream" in seen.kind else b"}"
        seen.complete = seen.status == 200 and data.endswith(end)
        if seen.complete:
            self.completed[number] = seen
        if seen.status != 200:
            await asyncio.sleep(PAUSE_S)


# --- single calls --------------------------------------------------------------------------


def post(serving: Serving, number: int, key: str = KEY) -> httpx.Response:
    url, body, own = serving.url + ROUTE, request_body(number, stream=False), headers(number, key)
    return httpx.post(url, json=body, headers=own, timeout=20, verify=False)


def served(serving: Serving, number: int, key: str = KEY) -> None:
    """A call that must be answered by the provider."""
    reply = post(serving, number, key)
    assert reply.status_code == 200, f"{reply.status_code} {reply.text}"


class OpenCall(threading.Thread):
    """A call that is in flight while the test goes on."""

    def __init__(self, serving: Serving, number: int, *, stream: bool) -> None:
        super().__init__(daemon=True)
        self.data = b""
        self.status = 0
        self.cut = False  # no clean end of the body
        self._url = serving.url + ROUTE
        self._number, self._stream = number, stream

    def run(self) -> None:
        body, own = request_body(self._number, stream=self._stream), headers(self._number)
        try:
            with (
                httpx.Client(timeout=30, verify=False) as client,
                client.stream("POST", self._url, json=body, headers=own) as reply,
            ):
                self.status = reply.status_code
                for piece in reply.iter_raw():
                    self.data += piece
        except httpx.RemoteProtocolError:
            self.cut = True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.join(30)
        assert not self.is_alive(), "the call does not end"

    def wait_data(self) -> None:
        wait_for("the first event", lambda: self.data)
