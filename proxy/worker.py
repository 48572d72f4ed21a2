"""A worker: one data-plane process (or part of one). Touches no database.

It connects to its control, opens a journal of its own, says hello, and serves once the first
snapshot has come. When control asks it to drain, or is gone, it stops accepting, finishes what
is in flight, closes its journal and exits.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from db.journal import JournalError, JournalWriter
from db.journal_files import SystemCalls
from pricing.errors import PricingError
from proxy.budgets import Budgets
from proxy.channel import connect
from proxy.client import Receive, Scope, Send
from proxy.config import ConfigError
from proxy.gateway import Gateway
from proxy.heap import settle_heap
from proxy.objects import Objects
from proxy.server import Server
from proxy.state import State
from proxy.telemetry import Telemetry
from proxy.tracing import Tracer
from proxy.upstream import Pool
from proxy.wire import (
    Ack,
    Answer,
    Channel,
    Drain,
    Hello,
    Message,
    Met,
    Settings,
    Slices,
    Snapshot,
    Welcome,
)

App = Callable[[Scope, Receive, Send], Awaitable[None]]
GARBAGE = 10_000  # objects between two looks; those of a call are freed without one


class Worker:
    """One life of a worker, over any channel: a process of its own, or inside another program."""

    def __init__(
        self,
        channel: Channel,
        *,
        now_s: Callable[[], float] = time.time,
        calls: SystemCalls = SystemCalls(),  # noqa: B008 (immutable)
    ) -> None:
        self._channel = channel
        self._now_s = now_s
        self._calls = calls  # the journal's
        self._welcome: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self._snapshot = asyncio.Event()
        self._over = asyncio.Event()
        self.welcome: Welcome | None = None
        self.gateway: Gateway | None = None
        self._journal: JournalWriter | None = None
        self._budgets: Budgets | None = None
        self._telemetry: Telemetry | None = None
        self._objects: Objects | None = None
        self._pool: Pool | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._syncing: asyncio.Future[None] | None = None  # `journal.sync: batch`
        self._settings = Settings()
        self._tracer: Tracer | None = None

    # --- start ---

    async def start(self) -> Gateway:
        """Open the journal, say hello, wait for the first snapshot.

        Raises ConnectionError when control goes away meanwhile, JournalError when the journal
        cannot be opened.
        """
        self._channel.start(self._on_message, self._on_close)
        self.welcome = welcome = await self._welcome
        self._journal = JournalWriter.create(
            Path(welcome.journal_dir),
            epoch_id=welcome.epoch_id,
            host_id=welcome.host_id,
            boot_id=welcome.boot_id,
            segment_bytes=welcome.segment_bytes,
            sync=welcome.journal_sync,
            calls=self._calls,
        )
        loop = asyncio.get_running_loop()
        telemetry = self._telemetry = Telemetry(loop)
        self._pool = Pool(clock=loop.time)
        self._budgets = Budgets(
            self._channel.send,
            self._journal,
            now_s=self._now_s,
            monotonic=loop.time,
            call_later=loop.call_later,
        )
        self._objects = Objects(
            self._channel.send,
            self._journal.append_note,
            lambda object_id, exc: telemetry.problem("not noted", object_id, exc),
        )
        self.gateway = Gateway(
            pool=self._pool,
            budgets=self._budgets,
            telemetry=self._telemetry,
            on_broken_journal=self.begin_drain,
            now_s=self._now_s,
            objects=self._objects,
        )
        self._channel.send(Hello(self._journal.journal_id, os.getpid()))
        self._tick()
        await self._snapshot.wait()
        if self.gateway.state is None:
            raise ConnectionError("control went away before the first snapshot")
        return self.gateway

    def application(self, gateway: Gateway) -> App:
        """The gateway, inside its middleware where there is any. Raises ConfigError."""
        assert self.welcome is not None
        found = self.welcome.middleware
        if found is None:
            return gateway
        from proxy.middleware import CutReplies, stack  # noqa: PLC0415 - few workers need it

        logging.getLogger("uvicorn.error").addFilter(CutReplies())
        return stack(found, gateway, lambda: gateway.state)

    # --- messages ---

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Slices):
            assert self._budgets is not None
            self._budgets.on_slices(message)
        elif isinstance(message, Met):
            assert self._budgets is not None
            self._budgets.on_met(message)
        elif isinstance(message, Snapshot):
            self._apply(message)
        elif isinstance(message, Answer):
            assert self._objects is not None
            self._objects.on_answer(message)
        elif isinstance(message, Welcome):
            self._welcome.set_result(message)
        elif isinstance(message, Drain):
            self.begin_drain()

    def _apply(self, snapshot: Snapshot) -> None:
        assert self.gateway is not None
        assert self._budgets is not None
        assert self._pool is not None
        assert self._telemetry is not None
        try:
            state = State(snapshot, self.gateway.state)
        except (OSError, PricingError, ValueError) as exc:  # a table that is gone, a bad address
            self._telemetry.problem("snapshot refused", "", exc)
            if self.gateway.state is None:
                self._on_close()
            return
        settings = self._settings = snapshot.settings
        self._pool.connect_timeout_s = settings.connect_timeout_s
        self._pool.first_byte_timeout_s = settings.first_byte_timeout_s
        self._pool.idle_timeout_s = settings.idle_timeout_s
        if any(provider.origin.tls for provider in state.providers.values()):
            _ = self._pool.tls  # loads the trust store now, not in the first call
        for provider in state.providers.values():
            if provider.auth is not None:
                provider.auth.warm()  # now, not in the first call
        self._budgets.apply(snapshot)
        self._telemetry.log_calls = settings.log_calls
        state.tracer = self._tracer = self._find_tracer(settings)
        self.gateway.state = state
        self._channel.send(Ack(snapshot.revision))
        self._snapshot.set()

    def _find_tracer(self, settings: Settings) -> Tracer | None:
        """The one there is, unless it is to do something else."""
        entry, known = settings.tracing, self._tracer
        if entry is None or (known is not None and known.entry == entry):
            return None if entry is None else known
        return Tracer(entry, propagate=settings.propagate_upstream)

    def _on_close(self) -> None:
        """Control is gone: its lease is ours to finish with, not to go on with."""
        if not self._welcome.done():
            self._welcome.set_exception(ConnectionError("control closed the connection"))
        if self._budgets is not None:
            self._budgets.control_gone()
        if self._objects is not None:
            self._objects.control_gone()
        self._snapshot.set()
        self.begin_drain()

    def _tick(self) -> None:
        """Each flush interval: tell control what is used and held, the metrics, and that this
        worker lives."""
        assert self._budgets is not None
        assert self._telemetry is not None
        self._report(self._budgets, self._telemetry)
        assert self.welcome is not None
        if self.welcome.journal_sync == "batch" and self._syncing is None:
            assert self._journal is not None
            loop = asyncio.get_running_loop()
            self._syncing = loop.run_in_executor(None, self._journal.sync)
            self._syncing.add_done_callback(self._synced)
        self._ticker = asyncio.get_running_loop().call_later(
            self._settings.flush_interval_ms / 1000, self._tick
        )

    def _report(self, budgets: Budgets, telemetry: Telemetry) -> None:
        if self.gateway is not None:
            telemetry.metrics.in_flight = len(self.gateway.in_flight)
        status = budgets.status()
        status.metrics = telemetry.metrics.encode()
        status.refused, status.refused_groups = telemetry.refused.take()
        if self._tracer is not None and not self._channel.congested:
            status.calls = self._tracer.take()
        self._channel.send(status)

    def _synced(self, done: asyncio.Future[None]) -> None:
        self._syncing = None
        exc = done.exception() if not done.cancelled() else None
        if exc is not None:
            assert self._telemetry is not None
            self._telemetry.problem("journal is broken", "", exc)
            self.begin_drain()

    # --- end ---

    def begin_drain(self) -> None:
        """Admit nothing more; `wait_over` returns."""
        if self.gateway is not None:
            self.gateway.drain()
        self._over.set()

    async def wait_over(self) -> None:
        """Until control asks for the end, or is gone."""
        await self._over.wait()

    async def finish(self) -> None:
        """Finish or cut what is in flight, then close journal, pool and channel."""
        if self.gateway is not None:
            self.gateway.drain()
            if not await self.gateway.wait_idle(self._settings.drain_s):
                self.gateway.cut_all()
                await self.gateway.wait_idle(5.0)
        if self._ticker is not None:
            self._ticker.cancel()
        if self._budgets is not None and self._telemetry is not None:
            self._report(self._budgets, self._telemetry)
        if self._syncing is not None:
            await asyncio.wait([self._syncing])
        if self._journal is not None:
            self._journal.close()
        if self._pool is not None:
            await self._pool.close()
        if self._telemetry is not None:
            self._telemetry.close()
        self._channel.close()


async def run(control: socket.socket, listener: socket.socket) -> None:
    """The life of a worker process."""
    try:
        worker = Worker(await connect(control))
        gateway = await worker.start()
        app = worker.application(gateway)
    except ConnectionError:
        return  # control stopped while we were starting
    except (ConfigError, JournalError, OSError) as exc:
        telemetry = Telemetry(asyncio.get_running_loop())
        telemetry.problem("worker cannot start", "", exc)
        telemetry.close()
        sys.exit(1)
    assert worker.welcome is not None
    settle_heap(GARBAGE)
    server = Server(
        app,
        direct=gateway.handle if app is gateway else None,
        keep_alive_s=worker.welcome.keep_alive_s,
        header_bytes_max=worker.welcome.header_bytes_max,
    )
    await server.start([listener])
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.begin_drain)
    await worker.wait_over()
    server.close_listeners()
    await worker.finish()
    await server.stop()
