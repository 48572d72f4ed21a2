"""Puts the planes together: both in one process (`create_app`), or as processes (`serve`)."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from proxy.channel import LocalChannel
from proxy.client import AsgiClient, Receive, Scope, Send
from proxy.config import Config
from proxy.config_loader import load
from proxy.control.clock import SYSTEM_CLOCK
from proxy.control.control import Control
from proxy.gateway import Gateway
from proxy.worker import Worker


class Tollkeeper:
    """Control and one worker in this process, as an ASGI application.

    Started and stopped by ASGI's lifespan, or by `start` and `stop`. Mounted inside another
    application, whose lifespan must then call `start` and `stop`.
    """

    def __init__(self, config: Config, *, now_s: Callable[[], float] = time.time) -> None:
        self.config = config
        self._now_s = now_s
        self.control = Control(config, SYSTEM_CLOCK)
        self.gateway: Gateway | None = None
        self._worker: Worker | None = None
        self._ending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the ledger, then serve. Raises JournalError, DatabaseError, PricingError."""
        await self.control.start()
        ours, theirs = LocalChannel.pair()
        self._worker = Worker(ours, now_s=self._now_s)
        self.control.connect(theirs)
        self.gateway = await self._worker.start()
        self._ending = asyncio.create_task(self._end(self._worker))

    async def _end(self, worker: Worker) -> None:
        await worker.wait_over()
        await worker.finish()

    async def stop(self) -> None:
        """Finish what is in flight, commit everything, give the money back."""
        await self.control.stop()
        if self._ending is not None:
            await self._ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        assert self.gateway is not None, "start() must have returned"
        await self.gateway(scope, receive, send)

    async def handle(self, client: AsgiClient) -> None:
        """One request of our own server."""
        assert self.gateway is not None, "start() must have returned"
        await self.gateway.handle(client)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


def create_app(config: Config | str | Path | None = None) -> Tollkeeper:
    """Tollkeeper as an ASGI application. `config`: a file, a Config, or None (personal mode).

    Raises ConfigError.
    """
    if not isinstance(config, Config):
        config = load(config, os.environ)
    return Tollkeeper(config)
