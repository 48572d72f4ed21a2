"""A simulated host: its disk, its control, its workers, and who starts them again."""

import logging
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from db.errors import DatabaseError
from db.journal import JournalError
from proxy.channel import SocketChannel
from proxy.config import Config
from proxy.control.clock import Clock
from proxy.control.control import Control
from proxy.server import Server
from proxy.wire import Message, Slices, Status, Unwant, Want
from proxy.worker import Worker
from tests.simulation.database import SimDatabase, SimTransactions
from tests.simulation.kernel import Disk, Kernel
from tests.simulation.loop import Process, SimLoop
from tests.simulation.network import SimListener, SimTransport

log = logging.getLogger(__name__)
RESPAWN_S = (0.01, 0.1, 1.0)
REPEATABLE = (Slices, Status, Want, Unwant)


class FlakyChannel(SocketChannel):
    """A real channel on a simulated transport, that may repeat or lose messages."""

    def __init__(self, name: str, random: Random, host: "Host") -> None:
        super().__init__()
        self.name = name
        self.lossy = False  # has lost something: its worker is out of step until it is replaced
        self._random = random
        self._host = host
        self._last: dict[type[Message], Message] = {}
        self._shown: dict[type[Message], str] = {}

    def send(self, message: Message) -> None:
        text = shown(message)
        if self._shown.get(type(message)) != text:
            self._shown[type(message)] = text
            self._host.on_event(f"{self.name}: {type(message).__name__.lower()} {text}")
        repeats, loses = self._host.repeating, self._host.losing
        repeatable = isinstance(message, REPEATABLE)
        if repeatable and loses and self._random.random() < loses:
            self.lossy = True
            self._host.on_event(f"{self.name}: a {type(message).__name__.lower()} is lost")
            return
        super().send(message)
        if repeatable and repeats:
            known = self._last.get(type(message))
            if known is not None and self._random.random() < repeats:
                self._host.on_event(f"{self.name}: again {shown(known)}")
                super().send(known)
            self._last[type(message)] = message


def shown(message: Message) -> str:
    if isinstance(message, Slices):
        more = " outage" if message.outage else ""
        scarce = [room.window for room in message.room if room.scarce]
        return f"{message.granted} answered={len(message.answered)} scarce={scarce}{more}"
    if isinstance(message, Status):
        each = [
            f"{s.window} -{s.returned_total} used {s.used} held {s.held}" for s in message.slices
        ]
        return "; ".join(each)
    if isinstance(message, Want):
        return f"{message.call_id.hex()[-6:]} {message.amounts}"
    if isinstance(message, Unwant):
        return message.call_id.hex()[-6:]
    return ""


class WorkerLife:
    """One life of a worker process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        process.life = self
        self.worker: Worker | None = None
        self.channels: list[FlakyChannel] = []


class Host:
    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        loop: SimLoop,
        random: Random,
        kernel: Kernel,
        database: SimDatabase,
        config: Config,
        tables: Path,
        dialect: str,
        on_event: Callable[[Any, str], None],
    ) -> None:
        self.name = name
        self.loop = loop
        self.random = random
        self.kernel = kernel
        self.database = database
        self.config = config
        self.tables = tables
        self.dialect = dialect
        directory.mkdir(parents=True)
        self.disk = Disk(directory, random)
        self.boots = 1
        self.clock_shift_s = 0.0  # of the wall clock
        self.repeating = self.losing = 0.0  # share of messages
        self.power_cut_after = ""  # commit | return: then begin to count
        self.power_cut_in_steps = 0
        self.listener = SimListener(loop)
        self.control: Control | None = None  # of the newest life
        self.control_process: Process | None = None
        self.workers: list[WorkerLife] = []  # dead ones too
        self.lives = 0
        self.own_journals: set[str] = set()  # not copies of another host's
        self._on_event = on_event
        self._starting = False
        self.stopping = False

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot-{self.boots}"

    @property
    def live_workers(self) -> list[WorkerLife]:
        return [life for life in self.workers if life.process.alive]

    @property
    def control_alive(self) -> bool:
        return self.control_process is not None and self.control_process.alive

    def on_event(self, text: str) -> None:
        self._on_event(None, text)

    def now_s(self) -> float:
        return self.kernel.started_s + self.loop.now + self.clock_shift_s

    # --- control

    def start(self) -> None:
        """`tollkeeper serve`: control and its workers."""
        self._starting = False
        if self.control_alive or self.stopping:
            return
        self.lives += 1
        process = self.control_process = self._process(f"{self.name}.control{self.lives}")
        self.control = Control(
            self.config,
            Clock(lambda: int(self.now_s() * 1000), lambda: self.loop.now),
            tables=self.tables,
            open_ledger=self._open_ledger,
        )
        process.start(self._serve(self.control))
        process.on_death.append(self._control_died)
        for _ in range(self.config.server.workers):
            self._spawn(process, self.control)

    async def _open_ledger(self, _url: str, _threads: object) -> SimTransactions:
        return SimTransactions(self.database, self.dialect)

    async def _serve(self, control: Control) -> None:
        try:
            await control.start()
        except (DatabaseError, JournalError, OSError) as exc:
            self.on_event(f"{self.name}: control cannot start: {exc}")
            await control.stop()
            return
        except Exception as exc:  # the database went away meanwhile
            self.on_event(f"{self.name}: control cannot start: {exc!r:.200}")
            await control.stop()
            return
        await control.fatal.wait()
        self.on_event(f"{self.name}: control must start anew")
        await control.stop()

    async def stop(self) -> None:
        """In good order, as on SIGTERM."""
        self.stopping = True
        if self.control_alive and self.control is not None:
            await self.control.stop()

    def _control_died(self) -> None:
        if not self.stopping and not self._starting:
            self._starting = True
            self.loop.call_later(
                self.random.choice(RESPAWN_S), self.start, context=self.loop.world.context
            )

    # --- workers

    def _spawn(self, parent: Process, control: Control) -> None:
        life = WorkerLife(self._process(f"{self.name}.worker{len(self.workers) + 1}"))
        self.workers.append(life)
        ours, theirs = SimTransport.pair(self.loop, parent, life.process)
        for transport, to in ((ours, life.process), (theirs, parent)):
            channel = FlakyChannel(f"{transport.process.name} > {to.name}", self.random, self)
            life.channels.append(channel)
            transport.process.call(transport.attach, channel)
        parent.call(control.connect, life.channels[0])
        life.process.start(self._work(life, life.channels[1]))
        life.process.on_death.append(lambda: self._worker_died(parent, control))

    async def _work(self, life: WorkerLife, channel: FlakyChannel) -> None:
        """As `proxy.worker.run`."""
        try:
            life.worker = worker = Worker(channel, now_s=self.now_s, calls=self.kernel.calls())
            gateway = await worker.start()
        except ConnectionError as exc:
            self.on_event(f"{life.process.name} ends: {exc}")
            return
        except (JournalError, OSError) as exc:
            self.on_event(f"{life.process.name} cannot start: {exc}")
            return
        server = Server(gateway, direct=gateway.handle, keep_alive_s=75, header_bytes_max=64 * 1024)
        await server.start([self.listener])  # type: ignore[list-item]
        await worker.wait_over()
        server.close_listeners()
        await worker.finish()
        await server.stop()

    def _worker_died(self, parent: Process, control: Control) -> None:
        """What the supervisor does."""
        if parent.alive and not self.stopping:
            delay = self.random.choice(RESPAWN_S)
            self.loop.call_later(
                delay, self._respawn, parent, control, context=self.loop.world.context
            )

    def _respawn(self, parent: Process, control: Control) -> None:
        if parent.alive and not control.fatal.is_set() and not self.stopping:
            self._spawn(parent, control)

    def _process(self, name: str) -> Process:
        process = self.loop.process(name)
        process.host = self
        return process

    # --- faults

    def lose_power(self) -> list[str]:
        self.boots += 1
        for process in [life.process for life in self.workers] + [self.control_process]:
            if process is not None:
                process.die()
        return self.disk.lose_power()
