"""From a configuration to an open ledger: what a start of control does, in order."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from db import schema
from db.audited_sync import sync_config
from db.catalog import bump_revision
from db.dead_letters import DeadLetters
from db.engine import open_engine
from db.journal import JournalError, Lock, lock_control
from db.ledger import Ledger
from db.price_versions import StoredVersion, load_versions, store_version
from db.threads import Threads
from db.transactions import Transactions, open_transactions
from db.writer import Flush, Writer
from proxy.config import Config, Middleware
from proxy.control import host
from proxy.control.customers import Customers
from proxy.control.declared import declared
from proxy.control.leases import Leases
from proxy.control.objects import Objects
from proxy.control.prices import Prices
from proxy.control.readers import Readers
from proxy.control.recovery import Recovery
from proxy.wire import MiddlewareEntry, MiddlewareSet, Welcome

IDLE_MS = 60_000  # unused money goes back to the ledger after this long, if nobody asks sooner

OpenLedger = Callable[[str, Threads], Awaitable[Transactions]]  # from the database's URL


@dataclass(slots=True)
class Parts:
    """What exists once control has started."""

    lock: Lock
    threads: Threads
    transactions: Transactions
    ledger: Ledger
    writer: Writer
    leases: Leases
    recovery: Recovery
    objects: Objects
    readers: Readers
    customers: Customers
    epoch_id: int
    welcome: Welcome

    def fail(self) -> None:
        """The ledger is out of reach: whoever waits for it is told."""
        self.leases.set_outage(True)
        self.objects.fail()
        self.customers.fail()

    async def close(self) -> None:
        self.writer.close()
        await self.readers.close()
        await self.ledger.close()
        self.threads.close()
        self.lock.release()


def declare(config: Config, prices: StoredVersion, now_ms: int) -> Callable[[Connection], None]:
    """The transaction that makes rows of what a configuration declares, its price version among
    them. Raises CatalogError."""

    def work(connection: Connection) -> None:
        store_version(connection, prices, now_ms)
        if sync_config(connection, declared(config), now_ms):
            bump_revision(connection)

    return work


async def open_ledger(url: str, threads: Threads) -> Transactions:
    """The database behind `url`, migrated and checked. Raises DatabaseError."""
    engine = open_engine(url)
    try:
        await schema.ensure(engine)
    finally:
        await engine.dispose()
    return open_transactions(url, threads)


async def open_parts(
    config: Config,
    prices: Prices,
    version: str,
    dead_letters: DeadLetters,
    now_ms: Callable[[], int],
    threads: Threads,
    monotonic: Callable[[], float],
    open_ledger: OpenLedger = open_ledger,
) -> Parts:
    """`version` is the price version to begin with. Raises JournalError, DatabaseError and
    PricingError, each with one line that says why."""
    directory = Path(config.journal.dir)
    try:
        host.prepare_directory(directory)
        lock = lock_control(directory)
    except OSError as exc:
        raise JournalError(f"journal {directory} cannot be used: {exc.strerror}") from exc
    try:
        transactions = await open_ledger(config.database.url, threads)
    except BaseException:
        lock.release()
        raise
    try:
        return await _open(
            config,
            prices,
            version,
            dead_letters,
            now_ms,
            threads,
            monotonic,
            lock,
            transactions,
        )
    except BaseException:
        await transactions.close()
        lock.release()
        raise


async def _open(
    config: Config,
    prices: Prices,
    version: str,
    dead_letters: DeadLetters,
    now_ms: Callable[[], int],
    threads: Threads,
    monotonic: Callable[[], float],
    lock: Lock,
    transactions: Transactions,
) -> Parts:
    directory = Path(config.journal.dir)
    host_id, boot_id = host.host_id(directory), host.boot_id()
    await transactions.run(declare(config, prices.stored(version), now_ms()))
    prices.remember(await transactions.run(load_versions))
    ledger = Ledger(
        transactions,
        host_id=host_id,
        describe_price=prices.describe,
        dead_letter=dead_letters.record,
        now_ms=now_ms,
        find_book=prices.book,
    )
    epoch_id = await ledger.register_epoch(boot_id)
    writer = Writer(
        directory,
        ledger,
        dead_letters,
        boot_id=boot_id,
        always_synced=config.journal.sync == "always",
        threads=threads,
    )
    shared = transactions.dialect != "sqlite"
    interval_ms = config.journal.flush_interval_ms
    leases = Leases(
        epoch_id,
        ledger,
        now_ms=now_ms,
        sync=writer.sync,
        idle_ms=IDLE_MS,
        interval_ms=interval_ms,
        shared=shared,
    )
    objects = Objects(ledger, monotonic=monotonic, refresh=leases.refresh, shared=shared)

    def on_flush(flush: Flush) -> None:
        leases.on_flush(flush)
        objects.on_flush(flush)

    writer.on_flush = on_flush
    recovery = Recovery(directory, ledger, writer, epoch_id=epoch_id, host_id=host_id)
    await recovery.find()
    welcome = _welcome(config, epoch_id, host_id, boot_id)
    readers = Readers(config.database.url, threads.nice)
    return Parts(
        lock,
        threads,
        transactions,
        ledger,
        writer,
        leases,
        recovery,
        objects,
        readers,
        Customers(transactions, leases, now_ms),
        epoch_id,
        welcome,
    )


def middleware_of(config: Config) -> MiddlewareSet | None:
    """None: there is none, and requests need not come through ASGI."""
    of_all = _entries(config.middleware)
    of_providers = {
        name: _entries(provider.middleware)
        for name, provider in config.providers.items()
        if provider.middleware
    }
    if not (of_all or of_providers):
        return None
    return MiddlewareSet(config.middleware_dir, of_all, of_providers)


def _entries(found: list[Middleware]) -> tuple[MiddlewareEntry, ...]:
    return tuple(MiddlewareEntry(each.path, each.options) for each in found)


def _welcome(config: Config, epoch_id: int, host_id: str, boot_id: str) -> Welcome:
    return Welcome(
        epoch_id=epoch_id,
        host_id=host_id,
        boot_id=boot_id,
        journal_dir=str(Path(config.journal.dir).absolute()),
        journal_sync=config.journal.sync,
        segment_bytes=config.journal.segment_mb * 2**20,
        keep_alive_s=config.server.keep_alive_s,
        header_bytes_max=config.server.max_header_kb * 1024,
        middleware=middleware_of(config),
    )
