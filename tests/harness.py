"""A whole Tollkeeper for tests: both planes, real sockets, SQLite in a temporary directory.

It runs in a thread of its own, so that tests may use synchronous SDKs, block, or be async.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import open_engine
from db.reports import Filters, calls
from db.verify import Finding, verify
from proxy.app import Tollkeeper
from proxy.config import Config
from proxy.server import Server

T = TypeVar("T")
KEY = "tk-test-key"
PROVIDERS = ("openai", "anthropic", "gemini")


def a_config(directory: Path, base_url: str, **changes: Any) -> Config:
    """A configuration with one organization, team and key, and every dialect at `base_url`."""
    data: dict[str, Any] = {
        "server": {"port": 0, "drain_s": 5},
        "database": {"url": f"sqlite+aiosqlite:///{directory / 'ledger.db'}"},
        "journal": {"dir": str(directory / "journal"), "flush_interval_ms": 20},
        "providers": {
            name: {
                "base_url": base_url,
                "dialect": name,
                "api_key": f"sk-upstream-{name}",
                "prices": name,
            }
            for name in PROVIDERS
        },
        "organizations": {
            "acme": {
                "teams": {
                    "search": {
                        "keys": [
                            {"name": "search-prod", "key_sha256": sha256(KEY.encode()).hexdigest()}
                        ],
                        "projects": {"ranking": {}},
                    }
                }
            }
        },
        "budgets": [],
        "log": {"calls": False},
    }
    for name, value in changes.items():
        if isinstance(value, dict):
            data[name] = data.get(name, {}) | value
        else:
            data[name] = value
    return msgspec.convert(data, Config)


class Running:
    """A running Tollkeeper. `url` is its data port; `rows()` drains the journal first."""

    def __init__(self, config: Config, now_s: Callable[[], float] = time.time) -> None:
        self.config = config
        self._now_s = now_s
        self.url = ""
        self._engine: AsyncEngine | None = None
        self.app: Tollkeeper
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: Server

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float = 60) -> T:
        """Run a coroutine on Tollkeeper's own loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    async def _start(self) -> None:
        self.app = Tollkeeper(self.config, now_s=self._now_s)
        await self.app.start()
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = Server(
            self.app, direct=self.app.direct, keep_alive_s=75, header_bytes_max=64 * 1024
        )
        await self._server.start([listener])

    async def _stop(self) -> None:
        self._server.close_listeners()
        await self.app.stop()
        await self._server.stop()
        if self._engine is not None:
            await self._engine.dispose()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.run(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def rows(self, since_ms: int | None = None) -> list[dict[str, Any]]:
        """All cost rows, or those of calls since a moment, as `report --by call` gives them, the
        journal drained first."""
        self.run(self.app.control.flush())
        return self.run(self._rows(Filters(since_ms)))

    async def _rows(self, filters: Filters) -> list[dict[str, Any]]:
        async with self._reader().connect() as connection:
            return [row async for row in calls(connection, filters)]

    def _reader(self) -> AsyncEngine:
        if self._engine is None:
            self._engine = open_engine(self.config.database.url, read_only=True)
        return self._engine

    def findings(self) -> list[Finding]:
        """What `tollkeeper verify` says."""
        self.run(self.app.control.flush())
        return self.run(self._verify())

    async def _verify(self) -> list[Finding]:
        return list(await verify(self._reader()))
