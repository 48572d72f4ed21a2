"""One seed: hosts, provider and clients under faults, then healed, then audited."""

import asyncio
import itertools
import logging
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock
from zlib import crc32

from db.journal_files import HEADER_BYTES, list_journals
from db.journal_reader import JournalReader
from db.journal_records import DECODERS, Hold, Segment, Settle
from db.notifications import Listener
from tests.simulation.chaos import Chaos
from tests.simulation.clients import KEY, ClientConnection, SimCall, a_call
from tests.simulation.database import Notifications, Server, SimDatabase
from tests.simulation.ending import end
from tests.simulation.host import Host
from tests.simulation.invariants import Invariants, Violation
from tests.simulation.kernel import Kernel
from tests.simulation.loop import Process, SimLoop, Stuck, current
from tests.simulation.network import SimTransport
from tests.simulation.provider import Provider
from tests.simulation.scenario import Scenario

START_S = 1_774_738_000.0  # 2026-03-28T22:46:40Z
STEPS_MAX = 400_000
TRACE_LINES = 120
VERIFY_EVERY = 40  # commits


class World:
    def __init__(self, scenario: Scenario, directory: Path, tables: Path) -> None:
        self.scenario = scenario
        seed = scenario.seed
        self.random = Random(f"world {seed}")
        self.loop = SimLoop(Random(f"loop {seed}"))
        self.kernel = Kernel(self.loop, Random(f"kernel {seed}"))
        self.kernel.started_s = START_S + self.random.random() * 7_200 - self.loop.now
        self.provider = Provider(self.loop, Random(f"provider {seed}"))
        self.calls: dict[int, SimCall] = {}
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self.digest = 0  # of everything that happened: a replay has the same
        self.failure: Violation | None = None
        self.restored = False
        self.finished_calls = 0
        self._numbers = itertools.count(1)
        self.database = SimDatabase(
            Server.shared(),
            self.loop,
            Random(f"database {seed}"),
            lambda: self.kernel.wall_ns() // 10**6,
        )
        self.invariants = Invariants(self)
        self.config = scenario.config(directory)
        self.hosts = [self._host(name, directory, tables) for name in "abc"[: scenario.hosts]]
        self.chaos = Chaos(self)
        self._wire()

    def _host(self, name: str, directory: Path, tables: Path) -> Host:
        host = Host(
            name,
            directory / name,
            loop=self.loop,
            random=Random(f"host {name} {self.scenario.seed}"),
            kernel=self.kernel,
            database=self.database,
            config=self.scenario.config(directory / name),
            tables=tables,
            dialect="sqlite" if self.scenario.hosts == 1 else "postgresql",
            on_event=self.event,
        )
        self.kernel.disks.append(host.disk)
        return host

    def _wire(self) -> None:
        self.loop.on_error = self._on_error
        self.loop.on_event = self.event
        self.loop.connect = self._connect
        self.kernel.on_write = self._on_write
        self.kernel.on_log = self._on_log
        self.provider.on_request = self.invariants.on_request
        self.provider.on_event = lambda text: self.event(None, text)
        self.database.on_event = self.event
        self.database.on_commit = self._on_commit

    # --- what happens

    def event(self, process: Process | None, text: str) -> None:
        who = f"{process.name}: " if process is not None else ""
        line = f"{self.loop.now:10.4f} {who}{text}"
        self.digest = crc32(line.encode(), self.digest)
        self.trace.append(line)

    def fail(self, text: str) -> None:
        if self.failure is None:
            self.failure = Violation(text)

    def _on_error(self, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        for each in (exc, exc.__cause__, exc.__context__) if exc is not None else ():
            if isinstance(each, Violation):
                self.failure = self.failure or each
                return
        shown = "".join(traceback.format_exception(exc)[-4:]) if exc is not None else ""
        self.fail(f"unexpected: {context.get('message')}: {shown}")

    def _on_write(self, process: Process, data: bytes) -> None:
        record = DECODERS[data[12] - 1](data[HEADER_BYTES:])
        if isinstance(record, (Hold, Settle)):
            self.invariants.on_record(process.host, record)
            amounts = record.amounts if isinstance(record, Hold) else record.charges
            what = f"{type(record).__name__} {record.call_id.hex()[-6:]} {amounts}"
            if isinstance(record, Hold):
                what += f" (call {record.tags['sim']}{'' if record.backed else ', unbacked'})"
            self.event(process, what)
        elif isinstance(record, Segment):
            process.host.own_journals.add(record.journal_id.hex())
            self.event(process, f"Segment {record.number}, {len(record.open_holds)} open holds")

    def _on_log(self, process: Process | None, data: bytes) -> None:
        text = data.decode(errors="replace")
        self.event(process, f"logs {text[:300]}")
        for bug in ("internal error", "metering failed", "snapshot refused"):
            if bug in text:
                self.fail(f"a worker logs a bug of ours: {text}")

    def _on_commit(self) -> None:
        before = self.invariants.books.granted
        try:
            self.invariants.after_commit()
            returned = self.invariants.books.granted < before
            for host in self.hosts:
                if host.power_cut_after == "commit" or returned:
                    host.power_cut_after = ""
            if self.database.commits % VERIFY_EVERY == 0:
                self.invariants.verify()
        except Violation as violation:
            self.failure = self.failure or violation

    async def _connect(self, factory: Any, _host: str, _port: int) -> Any:
        """A worker connects to the provider."""
        ours, theirs = SimTransport.pair(self.loop, current(), self.loop.world)
        await asyncio.sleep(self.loop.latency())
        self.loop.world.call(theirs.attach, self.provider.connection())
        protocol = factory()
        ours.attach(protocol)
        return ours, protocol

    async def _listen(self) -> Notifications:
        """A control begins to listen to what other hosts tell it."""
        await asyncio.sleep(self.loop.latency())
        return Notifications(self.database)

    # --- running

    def run(self) -> None:
        """Raises Violation."""
        with ExitStack() as stack:
            stack.enter_context(self._logging())
            stack.enter_context(mock.patch("db.registry.database_now_ms", self.database.julianday))
            for module in ("db.ledger_leases", "db.catalog"):
                stack.enter_context(mock.patch(f"{module}.notify", self.database.notify))
            stack.enter_context(mock.patch.object(Listener, "_connect", self._listen))
            stack.enter_context(self.kernel.in_force())
            stack.enter_context(self.loop.running())
            try:
                self._run()
            finally:
                self.loop.bury()

    def _run(self) -> None:
        for host in self.hosts:
            host.start()
        main = self.loop.create_task(self._main())
        steps = 0
        try:
            while not main.done():
                self.invariants.after_step(self.loop.step())
                self._cut_power()
                if self.failure is not None:
                    raise self.failure
                steps += 1
                if steps > STEPS_MAX:
                    raise Violation(f"no end after {STEPS_MAX} steps")
        except Stuck as exc:
            raise Violation(f"stuck: {exc}") from exc
        main.result()

    async def _main(self) -> None:
        clients = [self.loop.create_task(self.client(n)) for n in self._shares()]
        await self.chaos.run(clients)
        await end(self)

    def _shares(self) -> list[int]:
        """Calls of each client."""
        left, shares = self.scenario.calls, []
        while left > 0:
            shares.append(min(left, self.random.randint(1, 3)))
            left -= shares[-1]
        return shares

    async def client(self, calls: int) -> None:
        """A few calls, one after the other, on as few connections as it takes."""
        await asyncio.sleep(self.random.random() * 6)
        connection: ClientConnection | None = None
        for _ in range(calls):
            call = self.new_call()
            hang_up = "hang_ups" in self.scenario.faults and self.random.random() < 0.3
            after_s = self.random.random() * 0.5 if hang_up else None
            connection = await self.make(call, connection, after_s)
            await asyncio.sleep(self.random.random() * 0.5)
        if connection is not None:
            connection.transport.close()

    def new_call(self) -> SimCall:
        call = a_call(next(self._numbers), self.random)
        if self.scenario.customers:
            call.customer = f"c-{call.number % self.scenario.customers}"
        self.calls[call.number] = call
        return call

    async def make(
        self,
        call: SimCall,
        connection: ClientConnection | None = None,
        hang_up_after_s: float | None = None,
        host: Host | None = None,
    ) -> ClientConnection | None:
        if connection is None or connection.lost or connection.transport.is_closing():
            connection = ClientConnection(self.loop)
            where = host or self.random.choice(self.hosts)
            if not where.listener.connect(connection):
                self.event(None, f"client: call {call.number} refused by the kernel")
                return None
        self.event(None, f"client: call {call.number}{' streams' if call.stream else ''}")
        await connection.send(call, KEY, hang_up_after_s)
        outcome = f"{call.status} {call.code}" if call.completed else "broken off"
        self.event(None, f"client: call {call.number} ends: {outcome}")
        return connection

    # --- power

    def power_loss(self, host: Host) -> None:
        lost = host.lose_power()
        self.event(None, f"{host.name}: power cut, lost {lost}")
        if len(self.hosts) == 1:  # the database is on this host
            self.database.lose_power()
        holds: set[bytes] = set()
        settles: set[bytes] = set()
        for journal_id in list_journals(host.disk.directory):
            for record in records_left(host.disk.directory, journal_id):
                if isinstance(record, Hold):
                    holds.add(record.call_id)
                elif isinstance(record, Settle):
                    settles.add(record.call_id)
                elif isinstance(record, Segment):
                    holds.update(hold.call_id for hold in record.open_holds)
        self.invariants.on_power_loss(host, holds, settles)

    def _cut_power(self) -> None:
        for host in self.hosts:
            if host.power_cut_in_steps and not host.power_cut_after:
                host.power_cut_in_steps -= 1
                if not host.power_cut_in_steps:
                    self.power_loss(host)

    @contextmanager
    def _logging(self) -> Iterator[None]:
        """What control logs goes into the trace; what it did not expect is a finding."""
        handler = _Log(self)
        loggers = [logging.getLogger(name) for name in ("proxy", "db")]
        for logger in loggers:
            logger.addHandler(handler)
            logger.propagate = False
            logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
                logger.propagate = True
                logger.setLevel(logging.NOTSET)


class _Log(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.event(None, f"control logs: {record.getMessage()}")
        if record.exc_info and record.exc_info[1] is not None:
            shown = "".join(traceback.format_exception(record.exc_info[1])[-6:])
            self._world.fail(f"control did not expect: {shown}")


def records_left(directory: Path, journal_id: bytes) -> Iterator[object]:
    try:
        reader = JournalReader(directory, journal_id)
    except Exception:
        return
    reader.sealed = True
    try:
        while entries := reader.read():
            yield from (entry.record for entry in entries)
    finally:
        reader.close()
