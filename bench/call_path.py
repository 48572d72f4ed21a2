"""What one call costs inside the worker, without sockets: the least of many batches.

    python bench/call_path.py [--profile]

From the bytes of a request to the bytes of its answer, with everything on (both parsers, key,
facts, price, three budgets, journal, meter, cost, metrics, log line), between transports that lead
nowhere. The minimum over batches is stable on a noisy machine: it shows what a change bought.
"""

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from db.journal import JournalWriter
from pricing.table import choose_table, list_tables
from proxy.budgets import Budgets
from proxy.gateway import Gateway
from proxy.server_direct import DirectConnection
from proxy.state import State
from proxy.telemetry import LineLog, Telemetry
from proxy.tracing import Tracer
from proxy.upstream import Origin, Pool
from proxy.upstream_connection import Connection
from proxy.wire import (
    BudgetEntry,
    KeyEntry,
    PricesEntry,
    ProviderEntry,
    Room,
    Settings,
    Slices,
    Snapshot,
    Want,
)

HERE = Path(__file__).resolve().parent
BATCH = 200
BATCHES = 60
KEY = b"sk-tollkeeper-bench-0123456789"
REPLY = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1763751600,'
    b'"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Hello! How can I help you today?","refusal":null,"annotations":[]},'
    b'"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":412,'
    b'"completion_tokens":23,"total_tokens":435,"prompt_tokens_details":{"cached_tokens":128,'
    b'"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}},'
    b'"service_tier":"default","system_fingerprint":"fp_0123456789"}'
)
REPLY_BYTES = b"\r\n".join(
    (
        *(b"HTTP/1.1 200 OK", b"Content-Type: application/json"),
        *(b"X-Header-%d: some value of a usual length" % i for i in range(8)),
        *(b"Content-Length: %d" % len(REPLY), b"", REPLY),
    )
)
REQUEST_HEAD = b"\r\n".join(
    (
        *(b"POST /v1/chat/completions HTTP/1.1", b"Host: 127.0.0.1:4000"),
        *(b"Authorization: Bearer " + KEY, b"Content-Type: application/json"),
        *(b"Accept: application/json", b"User-Agent: OpenAI/Python 2.54.0"),
        *(b"X-Stainless-%d: value" % i for i in range(7)),
        *(b"Accept-Encoding: gzip, deflate", b"Content-Length: %d", b"", b""),
    )
)


class ProviderTransport(asyncio.Transport):
    """The provider's end of a connection: answers every request with the same bytes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        self._loop = loop
        self._connection = connection

    def write(self, data: Any) -> None:
        self._loop.call_soon(self._connection.data_received, REPLY_BYTES)

    def is_closing(self) -> bool:
        return False


class CannedPool(Pool):
    """A pool whose connections lead nowhere."""

    async def _open(self, origin: Origin) -> Connection:
        connection = Connection(self, origin.key)
        connection.connection_made(ProviderTransport(self.loop, connection))
        return connection


class ClientTransport(asyncio.Transport):
    """The client's end: notes that an answer has come."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.answered: asyncio.Future[None]

    def write(self, data: Any) -> None:
        assert data.startswith(b"HTTP/1.1 200 OK"), data
        self.answered.set_result(None)

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def snapshot() -> Snapshot:
    table = choose_table(list_tables(), "2026-11-21")
    scopes = (("organization/acme", "month"), ("team/acme/search", "day"), ("key/bench", "hour"))
    return Snapshot(
        1,
        1,
        (KeyEntry(1, sha256(KEY).hexdigest(), "bench", 1, "acme", 1, "search"),),
        (),
        tuple(
            BudgetEntry(i, scope, "usd", 10**15, period)
            for i, (scope, period) in enumerate(scopes, 1)
        ),
        PricesEntry(table.id, str(table.path), table.sha256),
        (ProviderEntry("openai", "openai", "http://127.0.0.1:9", "sk-up", "", "openai"),),
        Settings(),
    )


def gateway(directory: Path, found: Snapshot) -> Gateway:
    loop = asyncio.get_running_loop()
    journal = JournalWriter.create(
        directory, epoch_id=1, host_id="h", boot_id="b", segment_bytes=2**26, sync="os"
    )

    def send(message: object) -> None:  # a control that grants whatever is asked for
        if isinstance(message, Want):
            granted = [(window, 10**14) for window, _ in message.amounts]
            room = [Room(window, 10**15, 0, 10**14, 9 * 10**14) for window, _ in message.amounts]
            loop.call_soon(budgets.on_slices, Slices(granted, room, [message.call_id]))

    budgets = Budgets(
        send, journal, now_s=time.time, monotonic=loop.time, call_later=loop.call_later
    )
    with open("/dev/null", "wb") as null:
        log = LineLog(loop, null.fileno())
    budgets.apply(found)
    gate = Gateway(
        pool=CannedPool(),
        budgets=budgets,
        telemetry=Telemetry(loop, log),
        on_broken_journal=lambda: None,
    )
    gate.state = State(found)
    return gate


def caller(gate: Gateway) -> Callable[[], Awaitable[None]]:
    """A client on one connection; each call of it is one request and its answer."""
    body = (HERE / "bodies/openai_json.json").read_bytes()
    request = REQUEST_HEAD % len(body) + body
    loop = asyncio.get_running_loop()
    config = uvicorn.Config(None, lifespan="off", log_config=None)  # type: ignore[arg-type]
    config.load()
    served = type("Served", (DirectConnection,), {"handler": staticmethod(gate.handle)})
    connection = served(config, ServerState(), {})
    transport = ClientTransport()
    connection.connection_made(transport)

    async def call() -> None:
        transport.answered = loop.create_future()
        connection.data_received(request)
        await transport.answered

    return call


async def measure(profile: cProfile.Profile | None, tracer: Tracer | None = None) -> float:
    """Microseconds a call, the least of the batches."""
    least = float("inf")
    with tempfile.TemporaryDirectory() as directory:
        gate = gateway(Path(directory), snapshot())
        assert gate.state is not None
        gate.state.tracer = tracer
        call = caller(gate)
        await call()
        for batch in range(BATCHES):
            if profile is not None:
                profile.enable()
            start = time.process_time()
            for _ in range(BATCH):
                await call()
            spent = time.process_time() - start
            if profile is not None:
                profile.disable()
            least = min(least, spent / BATCH * 1e6)
            if tracer is not None:
                assert len(tracer.take()) == BATCH + (batch == 0)  # and the first call
            await asyncio.sleep(0)
        assert not gate.in_flight
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true")
    profile = cProfile.Profile() if parser.parse_args().profile else None
    print(f"{uvloop.run(measure(profile)):.1f} us a call")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
