"""The only code that changes money: the statements of the money protocol (docs: protocol, 3).

Each is one short transaction. Where several rows are locked, leases come before windows, each in
the order of window ids, so that no two transactions wait for each other in a circle.
"""

from collections.abc import Callable, Collection, Sequence

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import DBAPIError

from db import registry
from db.journal_records import FLAG_UNBACKED, FLAGS_OVERAGE, Window
from db.ledger_booking import BOOK_LEASES, BOOK_OVERAGE, BOOK_WINDOWS, lock_leases, lock_windows
from db.ledger_corrections import adjust
from db.ledger_insert import Ended, SomeExisted, insert_calls, insert_calls_carefully
from db.ledger_leases import lease, open_tickets
from db.ledger_objects import Identity, apply_notes, find_object, forget_objects
from db.ledger_open import FindBook, settle_open, try_again
from db.ledger_repricing import begin_repricing, end_repricing, reprice
from db.ledger_rollups import roll_up
from db.ledger_rows import FLAGS, Booking, book
from db.ledger_types import (
    Adjusted,
    AskedRepricing,
    Batch,
    Correction,
    DeadLetter,
    DescribePrice,
    Drained,
    FoundObject,
    JournalState,
    LeaseOutcome,
    LeaseRequest,
    LeaseState,
    OpenTicket,
    Read,
    Run,
    Settled,
)
from db.models import Epoch, JournalOffset, Lease
from db.models import Window as WindowRow
from db.pauses import in_pieces
from db.references import References
from db.registry import ADJUSTMENTS
from db.statements import FLAG_COSTS
from db.transactions import T, Transactions, Work, is_conflict, is_retryable, with_retries


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
        find_book: FindBook = lambda version: None,
    ) -> None:
        self._find_book = find_book
        self._transactions = transactions
        self._host_id = host_id
        self._dead_letter = dead_letter
        self._now_ms = now_ms
        self._references = References(describe_price, now_ms)

    async def _run(self, work: Work[T]) -> T:
        """Again after a deadlock or a serialization failure: nobody is to wait for the next turn,
        nor to take it for an outage, because two hosts met."""

        async def attempt() -> T:
            try:
                return await self._transactions.run(work)
            except BaseException:
                self._references.forget()  # it may remember rows that were never committed
                raise

        try:
            return await attempt()
        except DBAPIError as exc:
            if not is_conflict(exc):
                raise
        return await with_retries(attempt, is_conflict)

    # --- lives: epochs and journals

    async def register_epoch(self, boot_id: str) -> int:
        """Open this control's epoch; before anything is leased."""
        return await self._run(lambda c: registry.register_epoch(c, self._host_id, boot_id))

    async def register_journal(self, journal_id: bytes, epoch_id: int) -> None:
        """Before its worker gets a slice. Again is harmless. Raises EpochClosed."""
        await self._run(lambda c: registry.register_journal(c, journal_id, epoch_id))

    async def touch_epoch(self, epoch_id: int) -> int:
        """Show that this control lives. Returns the database's clock in unix milliseconds.
        Raises EpochClosed."""
        return await self._run(lambda c: registry.touch_epoch(c, epoch_id))

    async def mark_lost(self, unseen_ms: int) -> list[int]:
        """Label epochs whose control was not seen for a while; their money stays committed."""
        return await self._run(lambda c: registry.mark_lost(c, unseen_ms))

    async def unclosed_epochs(self) -> list[tuple[int, str]]:
        """Epochs of this host that are not closed, with their boot ids; oldest first."""
        return await self._run(lambda c: registry.unclosed_epochs(c, self._host_id))

    async def host_of(self, epoch_id: int) -> str:
        """The host of an epoch; "": there is no such epoch."""
        return await self._run(lambda c: registry.host_of(c, epoch_id))

    async def journal(self, journal_id: bytes) -> JournalState | None:
        """Read under a lock: waits for a commit of unknown outcome (R4). None: not registered."""
        return await self._run(lambda c: registry.journal_state(c, journal_id))

    async def close_epoch(self, epoch_id: int) -> bool:
        """Free what the epoch did not spend. False: a journal of it is not finished or lacks
        something, so nobody knows what that is."""
        return await self._run(lambda c: close_epoch(c, epoch_id, unfinished_too=False))

    async def release_epoch(self, epoch_id: int) -> bool:
        """The same on an operator's word that the host is off; late rows will be unbacked."""
        return await self._run(lambda c: close_epoch(c, epoch_id, unfinished_too=True))

    # --- money

    async def lease(
        self,
        epoch_id: int,
        requests: Sequence[LeaseRequest],
        ignored: Collection[OpenTicket] | None = None,
    ) -> list[LeaseOutcome]:
        """Lease or give back, several windows at once, each on its own. While a ticket of another
        host is open nobody leases but the oldest; `ignored` are those nobody waits for any more,
        None: there is no other host. Raises EpochClosed."""
        return await self._run(lambda c: lease(c, self._references, epoch_id, requests, ignored))

    async def tickets(self, epoch_id: int) -> dict[Window, list[OpenTicket]]:
        """The open tickets of other hosts."""
        return await self._run(lambda c: open_tickets(c, epoch_id))

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
        except (SomeExisted, DBAPIError, ValueError, TypeError, OverflowError) as exc:
            if is_retryable(exc):
                raise
            return await self._drain(batches, careful=True)

    async def _drain(self, batches: Sequence[Batch], *, careful: bool) -> list[Drained]:
        self._references.trim()

        def work(connection: Connection) -> list[Drained]:
            return [
                _drain(
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

    async def adjust(self, correction: Correction) -> bool:
        """Book the difference between what a call was charged and its true cost, under the epoch
        of no host. False: this correction was booked before. Raises UnknownCall."""
        adjusted = await self._run(
            lambda c: adjust(c, self._references, [correction], self._host_id)
        )
        return adjusted.calls > 0

    # --- what providers keep

    async def find_object(self, identity: Identity) -> FoundObject | None:
        return await self._run(lambda c: find_object(c, identity))

    async def settle_open(self) -> tuple[list[Settled], list[str]]:
        """Settle some of the open calls whose final usage is known, each once, whoever tries;
        and why others cannot be settled."""
        return await self._run(
            lambda c: settle_open(
                c, self._references, self._find_book, self._now_ms(), self._host_id
            )
        )

    async def try_again(self) -> None:
        """Offer open calls that could not be settled to `settle_open` once more."""
        await self._run(try_again)

    async def forget_objects(self, before_ms: int) -> int:
        """Forget what was noted before and concerns no call."""
        return await self._run(lambda c: forget_objects(c, before_ms))

    # --- repricing

    async def begin_repricing(self, asked: AskedRepricing) -> Run:
        """A run of repricing, or one that was asked for in the same words and has not ended."""
        return await self._run(
            lambda c: begin_repricing(c, self._references, asked, self._now_ms())
        )

    async def reprice(self, run_id: int, corrections: Sequence[Correction], read: Read) -> Adjusted:
        """Book corrections, and that the run has read this far. What has not changed is left out;
        corrections that were booked before are, too."""
        return await self._run(
            lambda c: reprice(c, self._references, run_id, corrections, read, self._host_id)
        )

    async def end_repricing(self, run_id: int) -> None:
        await self._run(lambda c: end_repricing(c, run_id, self._now_ms()))

    async def close(self) -> None:
        await self._transactions.close()


# --- the transactions ----------------------------------------------------------------------


def _drain(
    connection: Connection,
    references: References,
    batch: Batch,
    *,
    host_id: str,
    dead_letter: DeadLetter,
    careful: bool,
) -> Drained:
    """Only rows that were really inserted move money. `careful` inserts them one by one: some
    exist already, or one is refused by the database and must not stop the others."""
    moved = registry.advance_offset(connection, batch)
    if moved is not None:
        return moved
    insert = insert_calls_carefully if careful else insert_calls
    fresh, duplicates, dead = insert(connection, references, batch, dead_letter)
    leases, unbacked = _book(connection, references, batch.epoch_id, fresh)
    if fresh:
        roll_up(connection, [each.row for each in fresh], host_id)
    opened = any(each.settle.opens for each in fresh)
    ready = 0
    if batch.notes or opened:
        ready = apply_notes(connection, batch.notes, fresh, careful=careful)
    return Drained(
        rows=len(fresh),
        duplicates=duplicates,
        dead=dead,
        unbacked=unbacked,
        leases=leases,
        ready=ready,
    )


def _book(
    connection: Connection, references: References, epoch_id: int, fresh: list[Ended]
) -> tuple[dict[Window, LeaseState], int]:
    """Move the money of inserted rows; flag those that were not backed."""
    ids = {
        window: references.window_id(connection, window)
        for window in {window for each in fresh for window, _ in each.settle.charges}
    }
    if not ids:
        return {}, 0
    states = lock_leases(connection, epoch_id, sorted(ids.values()))
    bookings = {window: Booking(*states[id_]) for window, id_ in ids.items()}
    unflagged, spared = [], dict.fromkeys(ids, 0)
    for hold, settle, row in in_pieces(fresh):
        unbacked = book(bookings, settle.charges, settle.held, hold.backed)
        for window in hold.spared:
            if window in spared:  # a cap per request has none
                spared[window] += 1
        if unbacked and not row[FLAGS] & FLAGS_OVERAGE:
            unflagged.append((row[FLAGS] | FLAG_UNBACKED, row[0]))
    order = sorted(ids.items(), key=lambda item: item[1])
    BOOK_LEASES.many(
        connection,
        [(bookings[w].granted, bookings[w].spent, id_, epoch_id) for w, id_ in order],
    )
    over = [(bookings[w].unbacked, bookings[w].unbacked, spared[w], id_) for w, id_ in order]
    over = [row for row in over if row[0] or row[2]]
    if over:
        BOOK_OVERAGE.many(connection, over)
    if unflagged:
        FLAG_COSTS.many(connection, unflagged)
    after = {window: LeaseState(b.granted, b.spent) for window, b in bookings.items()}
    return after, sum(row[0] for row in over)


def close_epoch(connection: Connection, epoch_id: int, *, unfinished_too: bool) -> bool:
    """Free what an epoch did not spend. False: it is not there, closed already, or not sure yet."""
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
    nobody = update(Lease).where(Lease.epoch_id == epoch_id, Lease.ticket > 0)
    connection.execute(nobody.values(ticket=0, wanted=0))
    unspent = (
        select(Lease.window_id, Lease.granted, Lease.spent)
        .where(Lease.epoch_id == epoch_id, Lease.granted > Lease.spent)
        .order_by(Lease.window_id)
        .with_for_update()
    )
    leases = connection.execute(unspent).all()
    lock_windows(connection, [row.window_id for row in leases])
    if leases:
        freed = [(row.spent - row.granted, 0, row.window_id) for row in leases]
        BOOK_WINDOWS.many(connection, freed)
        BOOK_LEASES.many(connection, [(x.spent, x.spent, x.window_id, epoch_id) for x in leases])
    connection.execute(update(Epoch).where(Epoch.id == epoch_id).values(state="closed"))
    return True
