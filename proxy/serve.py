"""`tollkeeper serve`: control in this process, the workers in processes of their own."""

import asyncio
import errno
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from db.errors import reason
from proxy import __version__
from proxy.config import Config, ConfigError
from proxy.config_loader import load
from proxy.control.supervisor import Supervisor, WorkerProcess, spawn
from proxy.heap import loading, settle_heap, share_one_arena
from proxy.serve_log import configure_logging
from proxy.upstream_origin import Proxies

if TYPE_CHECKING:
    from proxy.control.alerts.alerting import Alerting
    from proxy.control.control import Control
    from proxy.control.retaining import Retaining
    from proxy.server import Server

log = logging.getLogger("tollkeeper")

BACKLOG = 2048
LISTEN_S = 3.0  # workers of a control that was killed close their door, but not in no time
LISTEN_STEP_S = 0.05
SILENT_S = 15.0  # a worker sends its status each flush interval: one that does not hangs
SILENT_INTERVALS = 4
LEDGER_NICE = 15  # 3 % of a core that a worker would use all of
SERVED_S_MAX = 5.0
SERVED_STEP_S = 0.01
GARBAGE = 50_000  # objects between two looks; those of a batch of rows are freed without one


def serve(path: Path | None, config: Config) -> int:
    """Run until SIGTERM or Ctrl-C; the exit code. `path` is where the configuration is from, to be
    read again on SIGHUP. Raises ConfigError, JournalError, DatabaseError and PricingError where it
    cannot start."""
    loading()
    share_one_arena()
    check_proxies(os.environ)
    check_middleware(config)
    configure_logging(config.log.level)
    server, admin = config.server, config.admin
    with (
        listen(server.host, server.port, "server") as listener,
        listen(admin.host, admin.port, "admin") as admin_listener,
    ):
        # Before control's imports: the two take about equally long.
        workers = [spawn(listener) for _ in range(server.workers)]
        try:
            return uvloop.run(run(path, config, listener, admin_listener, workers))
        finally:
            for worker in workers:
                worker.channel.close()  # EOF: whatever still runs drains and exits


def check_proxies(environ: Mapping[str, str]) -> None:
    """Raises ConfigError for a proxy variable that cannot be used, naming it."""
    try:
        Proxies.from_environ(environ)
    except ValueError as exc:
        raise ConfigError([str(exc)]) from exc


def check_middleware(config: Config) -> None:
    """Raises ConfigError for what cannot be imported, before a worker is started with it."""
    if config.middleware or any(each.middleware for each in config.providers.values()):
        from proxy.control.opening import middleware_of  # noqa: PLC0415
        from proxy.middleware import check  # noqa: PLC0415

        found = middleware_of(config)
        assert found is not None
        check(found)


def listen(host: str, port: int, section: str) -> socket.socket:
    """A listening socket. Raises ConfigError, naming the key, when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    patience = time.monotonic() + LISTEN_S
    while True:
        try:
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as exc:
            in_use = exc.errno == errno.EADDRINUSE
            why = "is in use" if in_use else f"cannot be listened on: {exc.strerror}"
            if not in_use or time.monotonic() > patience:
                raise ConfigError([f"{section}.port: {host}:{port} {why}"]) from exc
        time.sleep(LISTEN_STEP_S)


def _explain(*about: Any) -> Any:
    """As `proxy.control.api.explain.Explain`: the data plane is loaded when somebody asks."""
    from proxy.cli_explain import explain_call  # noqa: PLC0415

    return explain_call(*about)


async def run(
    path: Path | None,
    config: Config,
    listener: socket.socket,
    admin_listener: socket.socket,
    workers: list[WorkerProcess],
) -> int:
    """Start control, serve its port, keep the workers; end in good order, also where the start
    fails."""
    # These imports take as long as the workers' own start, which goes on meanwhile.
    from proxy.control.clock import SYSTEM_CLOCK  # noqa: PLC0415
    from proxy.control.control import Control  # noqa: PLC0415

    began = time.monotonic()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    control = Control(config, SYSTEM_CLOCK, ledger_nice=LEDGER_NICE)
    silent_s = max(SILENT_S, SILENT_INTERVALS * config.journal.flush_interval_ms / 1000)
    supervisor = Supervisor(control.connect, listener, silent_s=silent_s)
    await supervisor.start(workers)
    reloading = asyncio.create_task(_reload_on_sighup(control, path))
    extras = _Extras(control, admin_listener)
    try:
        await control.start()
        log.info("ready", extra=_ready(config, control, began))
        await _until_served(control, stop)
        await extras.start()
        settle_heap(GARBAGE)
        code = await _until_stopped(stop, control)
    finally:
        reloading.cancel()
        supervisor.stopping()
        await extras.close_chores()
        await control.stop()
        await supervisor.stop()
        await extras.close_admin()
    log.info("stopped")
    return code


async def _until_served(control: "Control", stop: asyncio.Event) -> None:
    """Until the workers serve, or a stop: what calls do not need can wait, but not for ever."""
    patience = time.monotonic() + SERVED_S_MAX
    while not (control.in_force or stop.is_set() or time.monotonic() > patience):  # noqa: ASYNC110
        await asyncio.sleep(SERVED_STEP_S)


class _Extras:
    """What no call needs, started once the workers serve: alerts, retention, the admin port."""

    def __init__(self, control: "Control", listener: socket.socket) -> None:
        self._control = control
        self._listener = listener
        self._chores: list[Alerting | Retaining] = []
        self._admin: Server | None = None

    async def start(self) -> None:
        """They are loaded in a thread, so that no lease waits for it."""
        chores, app, server = await asyncio.to_thread(_load_extras)
        self._chores = [chore(self._control) for chore in chores]
        for chore in self._chores:
            chore.start()
        self._admin = server(
            app(self._control, _explain), keep_alive_s=75, header_bytes_max=64 * 1024
        )
        await self._admin.start([self._listener])

    async def close_chores(self) -> None:
        for chore in self._chores:
            await chore.close()

    async def close_admin(self) -> None:
        if self._admin is not None:
            await self._admin.stop()


def _load_extras() -> tuple[tuple[Any, ...], Any, Any]:
    from proxy.control.admin import admin_app  # noqa: PLC0415
    from proxy.control.alerts.alerting import Alerting  # noqa: PLC0415
    from proxy.control.retaining import Retaining  # noqa: PLC0415
    from proxy.server import Server  # noqa: PLC0415

    return (Alerting, Retaining), admin_app, Server


def _ready(config: Config, control: "Control", began: float) -> dict[str, object]:
    """What an operator wants to see first."""
    assert control.snapshot is not None
    server, admin = config.server, config.admin
    return {
        "version": __version__,
        "data": f"http://{server.host}:{server.port}",
        "admin": f"http://{admin.host}:{admin.port}",
        "providers": sorted(config.providers),
        "keys": len(control.snapshot.keys),
        "budgets": len(control.snapshot.budgets),
        "prices": control.snapshot.prices.version,
        "workers": server.workers,
        "start_ms": int((time.monotonic() - began) * 1000),
    }


async def _until_stopped(stop: asyncio.Event, control: "Control") -> int:
    """0 after a signal; 1 when control cannot go on with this epoch."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (stop, control.fatal)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for future in waiting:
        future.cancel()
    if stop.is_set():
        log.info("stopping: calls in flight are finished first")
        return 0
    log.critical("stopping: start again, with a new epoch")
    return 1


async def _reload_on_sighup(control: "Control", path: Path | None) -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    while await asked.wait():
        asked.clear()
        if control.ready:
            await _reload(control, path)


async def _reload(control: "Control", path: Path | None) -> None:
    """An invalid file keeps the old configuration, and says so."""
    try:
        config = load(path, os.environ)
        await control.reload(config)
    except ConfigError as exc:
        for problem in exc.problems:
            log.error("not reloaded: %s", problem)
    except Exception as exc:
        log.error("not reloaded: %s", reason(exc))
    else:
        log.info("reloaded")
