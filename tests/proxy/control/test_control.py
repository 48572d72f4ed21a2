"""Control with workers in the same process, on SQLite."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from proxy.channel import LocalChannel
from proxy.config import Budget, Config, Database, Journal, Key, Organization, Provider, Team
from proxy.control.control import Clock, Control
from tests.proxy.control.workers import FakeWorker

CLOCK = Clock(lambda: time.time_ns() // 10**6, time.monotonic)


def a_config(directory: Path, limit_usd: str = "1") -> Config:
    return Config(
        database=Database(f"sqlite+aiosqlite:///{directory}/ledger.db"),
        journal=Journal(dir=str(directory / "journal"), flush_interval_ms=10),
        providers={"openai": Provider(base_url="http://127.0.0.1:9", dialect="openai")},
        organizations={"acme": Organization(teams={"search": Team(keys=[Key("k", key="s" * 32)])})},
        budgets=[Budget("team/acme/search", period="total", limit_usd=limit_usd)],
    )


async def settled(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_x(tmp_path: Path) -> None:
    control = Control(a_config(tmp_path), CLOCK)
    t = time.time()
    await control.start()
    print("start", time.time() - t)
    near, far = LocalChannel.pair()
    control.connect(near)
    worker = FakeWorker(far)
    await settled(lambda: bool(worker.snapshots))
    print(worker.snapshots)
    b = worker.snapshots[0].budgets[0]
    w = (b.id, 0)
    worker.want([(w, 10**8)])
    await settled(lambda: worker.granted.get(w, 0) >= 10**8)
    print(worker.messages[-1])
    await control.stop()
