"""How the ledger's transactions are run: one at a time, each as one function on a connection.

PostgreSQL goes through its asynchronous driver. SQLite gets threads and a connection of its own:
a whole transaction costs one hop between threads instead of one per statement.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from db.engine import open_engine, open_sqlite_writer
from db.errors import reason
from db.ledger_types import OutcomeUnknown
from db.threads import Threads

T = TypeVar("T")
Work = Callable[[Connection], T]

# Class 40: serialization failures and deadlocks. 57: going down.
CONFLICT_SQLSTATES = ("40001", "40P01")  # serialization failure, deadlock
ATTEMPTS_MAX = 5
LOCK_NOT_AVAILABLE = "55P03"
RETRYABLE_SQLSTATES = ("40", "53", LOCK_NOT_AVAILABLE, "57", "08")


class Transactions(Protocol):
    dialect: str

    async def run(self, work: Work[T]) -> T:
        """Run `work` in a transaction and commit. Raises OutcomeUnknown if COMMIT failed; after
        any other exception nothing has happened."""

    async def close(self) -> None: ...


def is_retryable(error: BaseException) -> bool:
    """Whether the same statements may succeed later: outages, locks, conflicts."""
    if isinstance(error, (OutcomeUnknown, OSError, asyncio.TimeoutError)):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None) or ""
    return state.startswith(RETRYABLE_SQLSTATES)


def is_conflict(error: BaseException) -> bool:
    """Whether another transaction was in the way, and this one has been undone in whole."""
    return isinstance(error, DBAPIError) and (
        getattr(error.orig, "sqlstate", None) in CONFLICT_SQLSTATES
    )


def is_lock_timeout(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE


async def with_retries(
    work: Callable[[], Awaitable[T]], passes: Callable[[BaseException], bool] = is_retryable
) -> T:
    """`work` is one transaction. What passes, a lock, a deadlock, a conflict, is tried again a few
    times; raises what the last attempt raised."""
    retrying = AsyncRetrying(
        retry=retry_if_exception(passes),
        stop=stop_after_attempt(ATTEMPTS_MAX),
        wait=wait_random_exponential(multiplier=0.05, max=2.0),
        reraise=True,
    )

    async def tried() -> T:  # tenacity awaits what it recognises as a coroutine function
        return await work()

    return await retrying(tried)


def open_transactions(url: str, threads: Threads | None = None) -> Transactions:
    """`threads`: where SQLite's are run. Raises DatabaseUnusable."""
    engine = open_sqlite_writer(url)
    if engine is None:
        return AsyncTransactions(open_engine(url))
    return ThreadTransactions(engine, threads or Threads())


def _run(connection: Connection, work: Work[T]) -> T:
    transaction = connection.begin()
    try:
        result = work(connection)
    except BaseException:
        transaction.rollback()
        raise
    try:
        transaction.commit()
    except Exception as exc:
        raise OutcomeUnknown(f"commit failed: {reason(exc)}") from exc
    return result


class AsyncTransactions:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.dialect = engine.dialect.name

    async def run(self, work: Work[T]) -> T:
        async with self._engine.connect() as connection:
            return await connection.run_sync(_run, work)

    async def close(self) -> None:
        await self._engine.dispose()


class ThreadTransactions:
    """The connection stays open between transactions; one that failed is not used again."""

    def __init__(self, engine: Engine, threads: Threads) -> None:
        self._engine = engine
        self.dialect = engine.dialect.name
        self._threads = threads
        self._connection: Connection | None = None

    async def run(self, work: Work[T]) -> T:
        return await self._threads.run(lambda: self._run(work))

    def _run(self, work: Work[T]) -> T:
        if self._connection is None:
            self._connection = self._engine.connect()
        try:
            return _run(self._connection, work)
        except BaseException:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        await self._threads.run(self._disconnect)
        self._threads.close()
        self._engine.dispose()
