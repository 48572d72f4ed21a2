"""The database server of a world, and what its clients see of it: delays, outages, lost answers.

One SQLite database in memory serves all worlds of a Python process in turn, so that statements
are compiled once. A transaction runs as a whole: what may happen between two of them is what
matters to the protocol.
"""

import re
import sqlite3
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, literal
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

import db.engine
from db.ledger_types import OutcomeUnknown
from db.models import Base
from tests.simulation.loop import Process, SimLoop, current

READ = re.compile(r"(?:FROM|JOIN) (ai_\w+)")
WRITTEN = re.compile(r"(?:INSERT INTO|UPDATE|DELETE FROM) (ai_\w+)")
HEARD = 0.9  # share of notifications that arrive
T = TypeVar("T")
Work = Callable[[Connection], T]


def outage(what: str) -> OperationalError:
    return OperationalError(what, {}, Exception("server closed the connection"))


class Server:
    """The engine, and the empty database that each world begins with."""

    _shared: "Server | None" = None

    def __init__(self) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.engine: Engine = create_engine(
            "sqlite://", creator=lambda: self.raw, poolclass=StaticPool
        )
        db.engine._prepare_sqlite(self.engine, read_only=False)
        event.listen(self.engine, "before_execute", self._before_execute)
        event.listen(self.engine, "before_cursor_execute", self._before_cursor_execute)
        self.locked: set[str] = set()  # tables, by the transaction that runs
        self.written: set[str] = set()
        self._locks = False
        with self.engine.begin() as connection:
            Base.metadata.create_all(connection)
            prepare(connection)
        self.empty = self.raw.serialize()

    @classmethod
    def shared(cls) -> "Server":
        if cls._shared is None:
            cls._shared = cls()
        return cls._shared

    def restore(self, content: bytes) -> None:
        self.raw.deserialize(content)
        self.raw.execute("PRAGMA foreign_keys=ON")

    def begin(self) -> None:
        self.locked, self.written = set(), set()

    def _before_execute(self, _connection: Any, statement: Any, *_: object) -> None:
        self._locks = getattr(statement, "_for_update_arg", None) is not None

    def _before_cursor_execute(
        self, _connection: Any, _cursor: Any, statement: str, *_: object
    ) -> None:
        if self._locks:
            self.locked.update(READ.findall(statement))
        self._locks = False
        self.written.update(WRITTEN.findall(statement))


def prepare(connection: Connection) -> None:
    """What migrations put into an empty database."""
    table = Base.metadata.tables["ai_revisions"]
    connection.execute(table.insert().values(id=1, revision=0))


class InDoubt:
    """A transaction whose client was told nothing: it takes effect, or fails, at some time."""

    def __init__(self, process: Process, work: Work[Any], tables: set[str]) -> None:
        self.process = process
        self.work = work
        self.tables = tables  # with rows that it holds


class SimDatabase:
    def __init__(self, server: Server, loop: SimLoop, random: Random, now_ms: Any) -> None:
        self.server = server
        self.loop = loop
        self.random = random
        self.now_ms = now_ms
        self.absent = False
        self.slow = False
        self.faults: dict[str, float] = {}  # kind -> probability, while faults are on
        self.on_commit: Callable[[], None] = lambda: None
        self.on_event: Callable[[Any, str], None] = lambda process, text: None
        self.in_doubt: list[InDoubt] = []
        self.commits = 0
        self.backups: list[bytes] = []
        self.listening: list[Notifications] = []
        self._notes: list[str] = []  # of the transaction that runs
        self._durable = server.empty
        server.restore(server.empty)

    def julianday(self, connection: Connection) -> Any:
        """The database's clock, in place of `database_now_ms`."""
        return literal(self.now_ms())

    # --- transactions

    def execute(self, work: Work[T]) -> T:
        """Now and as a whole. Raises what `work` raises; then nothing has happened."""
        server = self.server
        with server.engine.connect() as connection:
            transaction = connection.begin()
            server.begin()
            self._notes = []
            try:
                result = work(connection)
            except BaseException:
                transaction.rollback()
                raise
            if not server.written and self._holder(server.locked) is not None:
                # A locking read waits for transactions that hold the rows (R4).
                transaction.rollback()
                while (holder := self._holder(server.locked)) is not None:
                    self.land(holder, commits=self.random.random() < 0.5)
                return self.execute(work)
            transaction.commit()
        if server.written:
            self._committed()
        for what in self._notes:
            self._tell(what)
        return result

    def notify(self, _connection: Connection, what: str) -> None:
        """In place of `db.notifications.notify`."""
        self._notes.append(what)

    def _tell(self, what: str) -> None:
        for each in self.listening:
            if each.process.alive and self.random.random() < HEARD:
                delay, context = self.loop.latency(), each.process.context
                self.loop.call_later(delay, each.heard, each, 0, "", what, context=context)

    def _holder(self, locked: set[str]) -> int | None:
        return next((i for i, tx in enumerate(self.in_doubt) if tx.tables & locked), None)

    def read(self, work: Work[T]) -> T:
        """What a checker sees: nobody waits for it."""
        with self.server.engine.connect() as connection:
            return work(connection)

    def select(self, query: str) -> list[Any]:
        """The same in plain SQL."""
        return self.server.raw.execute(query).fetchall()

    def roll_back(self, work: Work[Any]) -> set[str]:
        """Returns the tables it would have written."""
        with self.server.engine.connect() as connection:
            transaction = connection.begin()
            self.server.begin()
            try:
                work(connection)
            finally:
                transaction.rollback()
        return self.server.written

    def _committed(self) -> None:
        self.commits += 1
        if not self.synchronous and self.random.random() < 0.2:
            self._durable = self.server.raw.serialize()
        self.on_commit()

    @property
    def synchronous(self) -> bool:
        """As the connection's pragmas say: whether a commit survives a power cut."""
        return any("synchronous=FULL" in pragma for pragma in db.engine._sqlite_pragmas(False))

    def lose_power(self) -> None:
        if not self.synchronous:
            self.server.restore(self._durable)
            self.on_event(None, "the database lost commits that were not synced")

    # --- what happens later

    def land(self, index: int, *, commits: bool) -> None:
        tx = self.in_doubt.pop(index)
        self.on_event(tx.process, f"a commit in doubt {'lands' if commits else 'fails'}")
        if commits:
            try:
                self.execute(tx.work)
            except Exception as exc:
                self.on_event(tx.process, f"...and is refused: {exc}")
        control = tx.process.host.control
        if control is not None and control.parts is not None:  # it was done in its name
            control.parts.ledger._references.forget()

    def land_late(self, tx: InDoubt) -> None:
        if tx in self.in_doubt:
            self.land(self.in_doubt.index(tx), commits=self.random.random() < 0.7)

    def land_all(self) -> None:
        while self.in_doubt:
            self.land(0, commits=self.random.random() < 0.5)

    # --- backups

    def back_up(self) -> None:
        self.backups.append(self.server.raw.serialize())

    def restore(self) -> None:
        self.in_doubt.clear()
        self.server.restore(self.backups.pop())
        self.on_commit()


class Notifications:
    """LISTEN: a connection as `db.notifications.Listener` has one."""

    def __init__(self, database: SimDatabase) -> None:
        self.process = current()
        self.heard: Callable[..., object] = lambda *_: None
        self._database = database

    def add_termination_listener(self, on_lost: Callable[[object], object]) -> None:
        pass

    async def add_listener(self, _channel: str, heard: Callable[..., object]) -> None:
        self.heard = heard
        self._database.listening.append(self)

    def terminate(self) -> None:
        self._database.listening.remove(self)


class SimTransactions:
    """One control's connection, as `db.transactions.Transactions`."""

    def __init__(self, database: SimDatabase, dialect: str) -> None:
        self.dialect = dialect  # "postgresql": other hosts use the database, too
        self._database = database
        self._loop = database.loop

    async def run(self, work: Work[T]) -> T:
        process = current()
        process.in_transaction = True
        try:
            return await self._run(process, work)
        finally:
            process.in_transaction = False

    async def _run(self, process: Process, work: Work[T]) -> T:
        database, random = self._database, self._database.random
        await self._pass_time()
        if database.absent:
            await self._pass_time(0.1)
            raise outage("BEGIN")
        fault = _draw(random, database.faults)
        if fault is not None:
            database.on_event(process, f"database: {fault} ({_name(work)})")
        if fault == "refused":
            raise outage("BEGIN")
        if fault == "rolled back":
            database.roll_back(work)
            raise outage("UPDATE")
        if fault == "in doubt":
            tables = database.roll_back(work)
            if tables:  # else there is nothing to be in doubt of
                tx = InDoubt(process, work, tables)
                database.in_doubt.append(tx)
                delay, world = random.random() * 1.5, self._loop.world
                self._loop.call_later(delay, database.land_late, tx, context=world.context)
                await self._pass_time(0.05)
                raise OutcomeUnknown("no answer to COMMIT")
        if fault == "killed before commit":
            database.roll_back(work)
            process.die()
        result = database.execute(work)
        if database.server.written:
            database.on_event(process, f"database: {_name(work)}")
        if fault == "killed after commit":
            process.die()
        if fault == "answer lost" and database.server.written:
            raise OutcomeUnknown("the answer to COMMIT was lost")
        await self._pass_time()
        return result

    async def _pass_time(self, most_s: float = 0.0) -> None:
        delay = self._loop.latency() + self._database.random.random() * most_s
        if self._database.slow:
            delay += self._database.random.random() * 3
        waiter = self._loop.create_future()
        self._loop.call_later(delay, _wake, waiter)
        await waiter

    async def close(self) -> None:
        pass


def _wake(waiter: Any) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _draw(random: Random, faults: dict[str, float]) -> str | None:
    drawn = random.random()
    for kind, probability in faults.items():
        drawn -= probability
        if drawn < 0:
            return kind
    return None


def _name(work: Any) -> str:
    """Which statement this is, for people; the same in every process."""
    if isinstance(work, partial):
        work = work.func
    name: str = getattr(work, "__qualname__", str(work))
    names = getattr(getattr(work, "__code__", None), "co_names", ())
    return next((each for each in names if each.islower() and len(each) > 5), name)
