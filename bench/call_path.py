"""What one call costs inside the worker, without sockets: the least of many batches.

    python bench/call_path.py [--profile]

The call path with everything on (key, facts, price, three budgets, journal, meter, cost, metrics,
log line) between a client and a provider that are plain objects. The minimum over batches is
stable on a noisy machine, so it shows what a change to the path bought.
"""

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from db.journal import JournalWriter
from pricing.table import choose_table, list_tables
from proxy.budgets import Budgets
from proxy.client import AsgiClient
from proxy.gateway import Gateway
from proxy.state import State
from proxy.telemetry import LineLog, Telemetry
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
REPLY_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(REPLY)),
    *((b"x-header-%d" % i, b"some value of a usual length") for i in range(16)),
]
REQUEST_HEADERS = [
    (b"host", b"127.0.0.1:4000"),
    (b"authorization", b"Bearer " + KEY),
    (b"content-type", b"application/json"),
    (b"accept", b"application/json"),
    (b"user-agent", b"OpenAI/Python 2.54.0"),
    *((b"x-stainless-%d" % i, b"value") for i in range(7)),
    (b"accept-encoding", b"gzip, deflate"),
]


class CannedExchange:
    """A provider's whole answer."""

    status = 200
    headers = REPLY_HEADERS
    complete = False
    sent = True

    async def read(self) -> bytes:
        if self.complete:
            return b""
        self.complete = True
        return REPLY

    def release(self) -> None:
        pass


class CannedPool:
    def exchange(self) -> CannedExchange:
        return CannedExchange()

    async def send(self, *_: object) -> None:
        pass


class SilentClient(AsgiClient):
    """A client that has sent its body and takes whatever comes."""

    __slots__ = ("_body",)

    def __init__(self, body: bytes) -> None:
        scope = {
            "method": "POST",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "headers": REQUEST_HEADERS,
        }
        super().__init__(scope, self._no, self._no)
        self._body = body

    async def _no(self, *_: object) -> Any:
        raise AssertionError

    async def body(self, limit: int) -> bytes:
        return self._body

    async def answer(self, status: int, headers: Any, body: bytes) -> None:
        assert status == 200

    def watch(self, on_gone: Any) -> None:
        pass

    def unwatch(self) -> None:
        pass


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


def gateway(directory: Path) -> Gateway:
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
    found = snapshot()
    budgets.apply(found)
    gate = Gateway(
        pool=CannedPool(),  # type: ignore[arg-type]
        budgets=budgets,
        telemetry=Telemetry(loop, log),
        on_broken_journal=lambda: None,
    )
    gate.state = State(found)
    return gate


async def measure(profile: cProfile.Profile | None) -> float:
    body = (HERE / "bodies/openai_json.json").read_bytes()
    least = float("inf")
    with tempfile.TemporaryDirectory() as directory:
        gate = gateway(Path(directory))
        first = SilentClient(body)
        await gate.serve(first)
        for _ in range(BATCHES):
            if profile is not None:
                profile.enable()
            start = time.process_time()
            for _ in range(BATCH):
                client = SilentClient(body)
                client.arrival = first.arrival  # as on a kept connection
                await gate.serve(client)
            spent = time.process_time() - start
            if profile is not None:
                profile.disable()
            least = min(least, spent / BATCH * 1e6)
            await asyncio.sleep(0)
        assert not gate.in_flight
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true")
    profile = cProfile.Profile() if parser.parse_args().profile else None
    print(f"{asyncio.run(measure(profile)):.1f} us a call")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
