"""The only code that changes money: the statements of the money protocol (docs: protocol, 3).

Each is one short transaction. Where several rows are locked, leases come before windows, each in
the order of window ids, so that no two transactions wait for each other in a circle.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import DBAPIError

from db.journal_records import Window
from db.ledger_drain import SomeExisted, drain, lock_leases
from db.ledger_types import (
    Batch,
    DeadLetter,
    DescribePrice,
    Drained,
    EpochClosed,
    JournalState,
    LeaseOutcome,
    LeaseRequest,
    LeaseState,
)
from db.models import Budget, Epoch, JournalOffset, Lease
from db.models import Window as WindowRow
from db.references import References, UnknownReference
from db.statements import (
    BOOK_LEASES,
    BOOK_WINDOWS,
    database_now_ms,
    insert_new,
    table_of,
)
from db.transactions import T, Transactions, Work, is_retryable

ADJUSTMENTS = 0  # the epoch of no host: corrections are booked under it


class Ledger:
    """Not for concurrent use: one statement at a time, as control's loop makes them."""

    def __init__(
        self,
        transactions: Transactions,
        *,
        host_id: str,
        describe_price: DescribePrice,
        dead_letter: DeadLetter,
        now_ms: Callable[[], int],
    ) -> None:
        self._transactions = transactions
        self._host_id = host_id
        self._dead_letter = dead_letter
        self._now_ms = now_ms
        self._references = References(describe_price, now_ms)

    async def _run(self, work: Work[T]) -> T:
        try:
            return await self._transactions.run(work)
        except BaseException:
            self._references.forget()  # it may remember rows that were never committed
            raise

    # --- lives: epochs and journals

    async def register_epoch(self, boot_id: str) -> int:
        """Open this control's epoch; before anything is leased."""
        return await self._run(lambda c: _register_epoch(c, self._host_id, boot_id))

    async def register_journal(self, journal_id: bytes, epoch_id: int) -> None:
        """Before its worker gets a slice. Again is harmless. Raises EpochClosed."""

        def work(connection: Connection) -> None:
            _require_open(connection, epoch_id)
            row = {"journal_id": journal_id, "epoch_id": epoch_id, "segment": 0, "offset": 0}
            statement = insert_new(connection, table_of(JournalOffset), ("journal_id",))
            connection.execute(statement, {**row, "finished": False, "truncated": False})

        await self._run(work)

    async def touch_epoch(self, epoch_id: int) -> int:
        """Show that this control lives. Returns the database's clock in unix milliseconds."""

        def work(connection: Connection) -> int:
            now = connection.execute(select(database_now_ms(connection))).scalar_one()
            seen = update(Epoch).where(Epoch.id == epoch_id, Epoch.state != "closed")
            if connection.execute(seen.values(seen_at_ms=now, state="open")).rowcount == 0:
                raise EpochClosed(f"epoch {epoch_id} is closed")
            return int(now)

        return await self._run(work)

    async def mark_lost(self, unseen_ms: int) -> list[int]:
        """Label epochs whose control was not seen for a while; their money stays committed."""

        def work(connection: Connection) -> list[int]:
            limit = database_now_ms(connection) - unseen_ms
            unseen = (Epoch.state == "open", Epoch.id != ADJUSTMENTS, Epoch.seen_at_ms < limit)
            lost = list(connection.execute(select(Epoch.id).where(*unseen)).scalars())
            connection.execute(update(Epoch).where(*unseen).values(state="lost"))
            return lost

        return await self._run(work)

    async def unclosed_epochs(self) -> list[tuple[int, str]]:
        """Epochs of this host that are not closed, with their boot ids; oldest first."""
        query = select(Epoch.id, Epoch.boot_id).where(
            Epoch.host_id == self._host_id, Epoch.state != "closed"
        )
        rows = await self._run(lambda c: c.execute(query.order_by(Epoch.id)).all())
        return [(row[0], row[1]) for row in rows]

    async def journal(self, journal_id: bytes) -> JournalState | None:
        """Read under a lock: waits for a commit of unknown outcome (R4). None: not registered."""
        columns = (
            JournalOffset.epoch_id,
            JournalOffset.segment,
            JournalOffset.offset,
            JournalOffset.finished,
            JournalOffset.truncated,
        )
        query = select(*columns).where(JournalOffset.journal_id == journal_id).with_for_update()
        row = await self._run(lambda c: c.execute(query).first())
        return None if row is None else JournalState(row[0], (row[1], row[2]), row[3], row[4])

    async def close_epoch(self, epoch_id: int) -> bool:
        """Free what the epoch did not spend. False: a journal of it is not finished or lacks
        something, so nobody knows what that is."""
        return await self._run(lambda c: _close_epoch(c, epoch_id, unfinished_too=False))

    async def release_epoch(self, epoch_id: int) -> bool:
        """The same on an operator's word that the host is off; late rows will be unbacked."""
        return await self._run(lambda c: _close_epoch(c, epoch_id, unfinished_too=True))

    # --- money

    async def lease(self, epoch_id: int, requests: Sequence[LeaseRequest]) -> list[LeaseOutcome]:
        """Lease or give back, several windows at once, each on its own. Raises EpochClosed."""
        return await self._run(lambda c: _lease(c, self._references, epoch_id, requests))

    async def leases(self, epoch_id: int) -> dict[Window, LeaseState]:
        """An epoch's leases that are not used up, read under a lock (R4)."""
        query = (
            select(WindowRow.budget_id, WindowRow.starts_at, Lease.granted, Lease.spent)
            .join(WindowRow, WindowRow.id == Lease.window_id)
            .where(Lease.epoch_id == epoch_id)
            .order_by(Lease.window_id)
            .with_for_update(of=Lease)
        )
        rows = await self._run(lambda c: c.execute(query).all())
        return {(row[0], row[1]): LeaseState(row[2], row[3]) for row in rows}

    async def drain(self, batches: Sequence[Batch]) -> list[Drained]:
        """Rows, money and offsets of what was read, in one transaction. A batch whose journal is
        elsewhere is left out and says so."""
        try:
            return await self._drain(batches, careful=False)
        except (SomeExisted, DBAPIError, ValueError, OverflowError) as exc:
            if is_retryable(exc):
                raise
            return await self._drain(batches, careful=True)

    async def _drain(self, batches: Sequence[Batch], *, careful: bool) -> list[Drained]:
        self._references.trim()

        def work(connection: Connection) -> list[Drained]:
            return [
                drain(
                    connection,
                    self._references,
                    batch,
                    host_id=self._host_id,
                    dead_letter=self._dead_letter,
                    careful=careful,
                )
                for batch in batches
            ]

        return await self._run(work)

    async def close(self) -> None:
        await self._transactions.close()


# --- the transactions ----------------------------------------------------------------------


def _register_epoch(connection: Connection, host_id: str, boot_id: str) -> int:
    table = table_of(Epoch)
    now = connection.execute(select(database_now_ms(connection))).scalar_one()
    times = {"state": "open", "opened_at_ms": now, "seen_at_ms": now}
    nobody = {"id": ADJUSTMENTS, "host_id": "", "boot_id": "", **times}
    connection.execute(insert_new(connection, table, ("id",)), nobody)
    row = {"host_id": host_id, "boot_id": boot_id, **times}
    inserted = connection.execute(table.insert().returning(table.c.id), row)
    return int(inserted.scalar_one())


def _require_open(connection: Connection, epoch_id: int) -> None:
    query = select(Epoch.state).where(Epoch.id == epoch_id).with_for_update(read=True)
    state = connection.execute(query).scalar_one_or_none()
    if state is None or state == "closed":
        raise EpochClosed(f"epoch {epoch_id} is {state or 'not registered'}")


def _close_epoch(connection: Connection, epoch_id: int, *, unfinished_too: bool) -> bool:
    epoch = select(Epoch.state).where(Epoch.id == epoch_id).with_for_update()
    state = connection.execute(epoch).scalar_one_or_none()
    if state is None or state == "closed" or epoch_id == ADJUSTMENTS:
        return False
    unsure = select(JournalOffset.journal_id).where(
        JournalOffset.epoch_id == epoch_id,
        JournalOffset.finished.is_(False) | JournalOffset.truncated.is_(True),
    )
    if not unfinished_too and connection.execute(unsure).first() is not None:
        return False
    unspent = (
        select(Lease.window_id, Lease.granted, Lease.spent)
        .where(Lease.epoch_id == epoch_id, Lease.granted > Lease.spent)
        .order_by(Lease.window_id)
        .with_for_update()
    )
    leases = connection.execute(unspent).all()
    _lock_windows(connection, [row.window_id for row in leases])
    if leases:
        freed = [(row.spent - row.granted, 0, row.window_id) for row in leases]
        BOOK_WINDOWS.many(connection, freed)
        BOOK_LEASES.many(connection, [(x.spent, x.spent, x.window_id, epoch_id) for x in leases])
    connection.execute(update(Epoch).where(Epoch.id == epoch_id).values(state="closed"))
    return True


def _lock_windows(connection: Connection, window_ids: Sequence[int]) -> Sequence[Any]:
    """Their rows, with the limits in force (rule R6), locked in the order of their ids."""
    limit = (Budget.limit_value + WindowRow.extra).label("limit_value")
    query = (
        select(WindowRow.id, WindowRow.committed, limit)
        .join(Budget, Budget.id == WindowRow.budget_id)
        .where(WindowRow.id.in_(window_ids))
        .order_by(WindowRow.id)
        .with_for_update(of=WindowRow)
    )
    return connection.execute(query).all() if window_ids else []


def _lease(
    connection: Connection,
    references: References,
    epoch_id: int,
    requests: Iterable[LeaseRequest],
) -> list[LeaseOutcome]:
    _require_open(connection, epoch_id)
    wanted: dict[int, LeaseRequest] = {}
    for request in requests:
        with contextlib.suppress(UnknownReference):  # its budget is not in this database
            wanted[references.window_id(connection, request.window)] = request
    states = lock_leases(connection, epoch_id, sorted(wanted))
    spent = _spent_totals(connection, list(wanted))
    outcomes, leases, windows = [], [], []
    for window_id, committed, limit in _lock_windows(connection, sorted(wanted)):
        request, lease = wanted[window_id], states[window_id]
        delta = _allowed(request, lease, limit - committed)
        if delta:
            leases.append((lease.granted + delta, lease.spent, window_id, epoch_id))
            windows.append((delta, 0, window_id))
        outcomes.append(
            LeaseOutcome(
                window=request.window,
                delta=delta,
                granted=lease.granted + delta,
                spent=lease.spent,
                limit=limit,
                committed=committed + delta,
                spent_total=spent.get(window_id, 0),
            )
        )
    if leases:
        BOOK_LEASES.many(connection, leases)
        BOOK_WINDOWS.many(connection, windows)
    return outcomes


def _allowed(request: LeaseRequest, lease: LeaseState, room: int) -> int:
    """What of a request can be granted; 0: nothing."""
    if request.expected != lease.granted:
        return 0
    if request.delta <= 0:
        return request.delta if lease.granted + request.delta >= lease.spent else 0
    delta = min(request.delta, room)
    return delta if delta >= max(1, request.at_least or request.delta) else 0


def _spent_totals(connection: Connection, window_ids: Sequence[int]) -> dict[int, int]:
    query = (
        select(Lease.window_id, func.sum(Lease.spent))
        .where(Lease.window_id.in_(window_ids))
        .group_by(Lease.window_id)
    )
    return {row[0]: int(row[1]) for row in connection.execute(query)}
