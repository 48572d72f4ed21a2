"""Puts the planes together: both in one process (`create_app`), or as processes (`serve`)."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.channel import LocalChannel
from proxy.client import AsgiClient, Receive, Scope, Send
from proxy.config import Config
from proxy.config_loader import load
from proxy.control.alerts.alerting import Alerting
from proxy.control.clock import SYSTEM_CLOCK
from proxy.control.control import Control
from proxy.control.opening import middleware_of
from proxy.control.retaining import Retaining
from proxy.gateway import Gateway
from proxy.state import State
from proxy.worker import Worker

App = Callable[[Scope, Receive, Send], Awaitable[None]]
Handler = Callable[[AsgiClient], Awaitable[None]]


class Tollkeeper:
    """Control and one worker in this process, as an ASGI application.

    Started and stopped by ASGI's lifespan, or by `start` and `stop`. Mounted inside another
    application, whose lifespan must then be, or be inside, `lifespan`.
    """

    def __init__(self, config: Config, *, now_s: Callable[[], float] = time.time) -> None:
        self.config = config
        self._now_s = now_s
        self.control = Control(config, SYSTEM_CLOCK)
        self.gateway: Gateway | None = None
        self._alerting: Alerting | None = None
        self._retaining = Retaining(self.control)
        self._worker: Worker | None = None
        self._ending: asyncio.Task[None] | None = None
        self._app: App = self._enter
        if found := middleware_of(config):
            from proxy.middleware import stack  # noqa: PLC0415 - rarely needed

            self._app = stack(found, self._enter, self._state)

    def _state(self) -> State | None:
        return self.gateway.state if self.gateway is not None else None

    async def start(self) -> None:
        """Open the ledger, then serve. Raises JournalError, DatabaseError, PricingError."""
        await self.control.start()
        ours, theirs = LocalChannel.pair()
        self._worker = Worker(ours, now_s=self._now_s)
        self.control.connect(theirs)
        self.gateway = await self._worker.start()
        self._ending = asyncio.create_task(self._end(self._worker))
        self._alerting = Alerting(self.control)
        self._alerting.start()
        self._retaining.start()

    async def _end(self, worker: Worker) -> None:
        await worker.wait_over()
        await worker.finish()

    async def stop(self) -> None:
        """Finish what is in flight, commit everything, give the money back."""
        if self._alerting is not None:
            await self._alerting.close()
        await self._retaining.close()
        await self.control.stop()
        if self._ending is not None:
            await self._ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        else:
            await self._app(scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Behind the middleware."""
        assert self.gateway is not None, "start() must have returned"
        await self.gateway(scope, receive, send)

    @property
    def direct(self) -> Handler | None:
        """For our own server: without ASGI in between. None: there is middleware."""
        return self._handle if self._app == self._enter else None

    async def _handle(self, client: AsgiClient) -> None:
        assert self.gateway is not None, "start() must have returned"
        await self.gateway.handle(client)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """For `lifespan=` of the Starlette or FastAPI application it is mounted in."""
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
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
