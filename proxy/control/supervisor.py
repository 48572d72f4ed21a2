"""Keeps the workers of this host running.

A worker is a process with two inherited sockets: the listening one, shared by all, and its end
of a socket pair to control. One that dies is replaced, one that does not answer is killed first;
its journal is finished by control once its lock is free. Whether a worker is dead its lock says,
never its pid.
"""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from proxy.channel import SocketChannel, connect
from proxy.wire import Channel

log = logging.getLogger(__name__)

RESPAWN_S_MIN = 0.1
RESPAWN_S_MAX = 5.0
HEALTHY_S = 30.0  # a life this long makes the next death the first one again
KILL_S = 10.0
LOOKS = 5  # without a message in between: a worker hangs. Time alone would blame it for our stall
LOOKS_AT_START = 20


class WorkerProcess(NamedTuple):
    process: subprocess.Popen[bytes]
    channel: socket.socket  # control's end
    born: float


def spawn(listener: socket.socket) -> WorkerProcess:
    """Start a worker. It waits for its welcome, so it may start before control is ready."""
    ours, theirs = socket.socketpair()
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [
                *(sys.executable, "-m", "proxy.worker_process"),
                *(str(listener.fileno()), str(theirs.fileno())),
            ],
            pass_fds=(listener.fileno(), theirs.fileno()),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    return WorkerProcess(process, ours, time.monotonic())


@dataclass(slots=True)
class _Watched:
    process: subprocess.Popen[bytes]
    channel: SocketChannel
    born: float
    heard: int = 0
    silent: int = 0  # looks at it in a row that found nothing new

    def look(self) -> bool:
        """True: it hangs. It need not say anything before control has begun to listen."""
        heard, self.heard = self.heard, self.channel.heard
        self.silent = 0 if heard != self.heard or not self.channel.started else self.silent + 1
        return self.silent >= (LOOKS if self.heard else LOOKS_AT_START)


class Supervisor:
    """`start` with processes spawned before, `stop` after control has drained them. A worker
    that sends nothing for about `silent_s` (four times that while it starts) is killed (R1)."""

    def __init__(
        self, connect: Callable[[Channel], None], listener: socket.socket, *, silent_s: float
    ) -> None:
        self._connect = connect
        self._listener = listener
        self._look_s = silent_s / LOOKS
        self._looking: asyncio.TimerHandle | None = None
        self._workers: dict[int, _Watched] = {}  # by pidfd
        self._tasks: set[asyncio.Task[None]] = set()
        self._early_deaths = 0
        self._stopping = False
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers.values()]

    async def start(self, workers: list[WorkerProcess]) -> None:
        for worker in workers:
            await self._watch(worker)
        self._look()

    async def _watch(self, worker: WorkerProcess) -> None:
        channel = await connect(worker.channel)
        pidfd = os.pidfd_open(worker.process.pid)
        self._workers[pidfd] = _Watched(worker.process, channel, worker.born)
        self._all_gone.clear()
        asyncio.get_running_loop().add_reader(pidfd, self._exited, pidfd)
        self._connect(channel)

    def _look(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(self._look_s, self._look)
        for worker in self._workers.values():
            if worker.look():
                log.error("worker %d does not answer; killing it", worker.process.pid)
                worker.process.kill()

    def _exited(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        worker = self._workers.pop(pidfd)
        code = worker.process.wait()
        if not self._workers:
            self._all_gone.set()
        if self._stopping:
            return
        log.error("worker %d ended (%s); starting another", worker.process.pid, _reason(code))
        if time.monotonic() - worker.born > HEALTHY_S:
            self._early_deaths = 0
        delay = min(RESPAWN_S_MIN * 2**self._early_deaths, RESPAWN_S_MAX)
        self._early_deaths = min(self._early_deaths + 1, 16)
        task = asyncio.get_running_loop().create_task(self._respawn(delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _respawn(self, delay: float) -> None:
        await asyncio.sleep(delay)
        if not self._stopping:
            await self._watch(spawn(self._listener))

    def stopping(self) -> None:
        """From now on a worker that ends is not replaced."""
        self._stopping = True
        self._listener.close()

    async def stop(self) -> None:
        """Wait for the workers, which control has asked to drain; kill what does not go."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_gone.wait(), KILL_S)
        for worker in self._workers.values():
            log.error("worker %d does not end; killing it", worker.process.pid)
            worker.process.kill()
        await self._all_gone.wait()
        if self._looking is not None:
            self._looking.cancel()


def _reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
