"""The ledger's drain: rows, the money they move and the journal's offset (docs: protocol, 3)."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.exc import DBAPIError

from db.journal_records import FLAG_CEILING_VIOLATION, FLAG_UNBACKED, Hold, Settle, Window
from db.ledger_rows import FLAGS, Booking, Row, book, lost_settlement, rollups, settled_row
from db.ledger_types import Batch, DeadLetter, Drained, LeaseState
from db.models import JournalOffset, Lease
from db.references import References, UnknownReference
from db.statements import (
    ADVANCE_OFFSET,
    BOOK_LEASES,
    BOOK_WINDOWS,
    FLAG_COSTS,
    INSERT_COSTS,
    UPSERT_ROLLUPS,
    insert_costs_returning,
    insert_new,
    table_of,
)
from db.transactions import is_retryable

FLAGGED = FLAG_CEILING_VIOLATION | FLAG_UNBACKED


class SomeExisted(Exception):
    """Some rows of a batch were there already, and the driver does not tell which."""


class Ended(NamedTuple):
    """A call that ended, with its row."""

    hold: Hold
    settle: Settle
    row: Row


def drain(
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
    moved = _advance(connection, batch)
    if moved is not None:
        return moved
    ended, dead = _rows(connection, references, batch, dead_letter)
    fresh, refused = _insert(connection, ended, dead_letter, careful)
    leases, unbacked = _book(connection, references, batch.epoch_id, fresh)
    if fresh:
        UPSERT_ROLLUPS.many(connection, rollups([each.row for each in fresh], host_id))
    return Drained(
        rows=len(fresh),
        duplicates=len(ended) - len(fresh) - refused,
        dead=dead + refused,
        unbacked=unbacked,
        leases=leases,
    )


def _advance(connection: Connection, batch: Batch) -> Drained | None:
    """Compare and set the offset; None: done."""
    values = (*batch.end, batch.finish, batch.truncated, batch.journal_id, *batch.start)
    if ADVANCE_OFFSET.one(connection, values).rowcount == 1:
        return None
    query = select(JournalOffset.segment, JournalOffset.offset, JournalOffset.finished)
    row = connection.execute(query.where(JournalOffset.journal_id == batch.journal_id)).one()
    return Drained(moved=(row[0], row[1]), finished=row[2])


def _rows(
    connection: Connection, references: References, batch: Batch, dead_letter: DeadLetter
) -> tuple[list[Ended], int]:
    ended: list[Ended] = []
    dead = 0
    for hold, settle in (*batch.settled, *((hold, None) for hold in batch.lost)):
        try:
            references.check_principal(connection, hold)
            if settle is None:
                units = [references.unit(connection, window[0]) for window, _ in hold.amounts]
                settle = lost_settlement(hold, units)
            windows = tuple([window for window, _ in settle.charges])
            row = settled_row(
                hold,
                settle,
                references.charge_set(connection, windows),
                references.user_id(connection, hold),
                references.price_id(connection, settle.price_version, settle.model),
            )
        except UnknownReference as exc:
            dead_letter(hold, settle, str(exc))
            dead += 1
            continue
        ended.append(Ended(hold, settle, row))
    return ended, dead


# --- insert --------------------------------------------------------------------------------


def _insert(
    connection: Connection, ended: list[Ended], dead_letter: DeadLetter, careful: bool
) -> tuple[list[Ended], int]:
    """The calls whose rows were inserted, and how many the database refused."""
    if careful:
        return _insert_each(connection, ended, dead_letter)
    if not ended:
        return ended, 0
    rows = [each.row for each in ended]
    if connection.dialect.name == "postgresql":
        inserted = insert_costs_returning(connection, rows)
        return [each for each in ended if each.row[0] in inserted], 0
    if INSERT_COSTS.many(connection, rows).rowcount != len(rows):
        raise SomeExisted
    return ended, 0


def _insert_each(
    connection: Connection, ended: list[Ended], dead_letter: DeadLetter
) -> tuple[list[Ended], int]:
    fresh, refused = [], 0
    for each in ended:
        row = tuple(x.replace("\0", "") if isinstance(x, str) else x for x in each.row)
        try:
            with connection.begin_nested():
                if INSERT_COSTS.one(connection, row).rowcount == 1:
                    fresh.append(Ended(each.hold, each.settle, row))
        except (DBAPIError, ValueError, OverflowError) as exc:
            if is_retryable(exc):
                raise
            dead_letter(each.hold, each.settle, str(getattr(exc, "orig", exc)))
            refused += 1
    return fresh, refused


# --- money ---------------------------------------------------------------------------------


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
    unflagged = []
    for hold, settle, row in fresh:
        unbacked = book(bookings, settle.charges, settle.held, hold.backed)
        if unbacked and not row[FLAGS] & FLAGGED:
            unflagged.append((row[FLAGS] | FLAG_UNBACKED, row[0]))
    order = sorted(ids.items(), key=lambda item: item[1])
    BOOK_LEASES.many(
        connection,
        [(bookings[w].granted, bookings[w].spent, id_, epoch_id) for w, id_ in order],
    )
    over = [(bookings[w].unbacked, bookings[w].unbacked, id_) for w, id_ in order]
    over = [row for row in over if row[0]]
    if over:
        BOOK_WINDOWS.many(connection, over)
    if unflagged:
        FLAG_COSTS.many(connection, unflagged)
    after = {window: LeaseState(b.granted, b.spent) for window, b in bookings.items()}
    return after, sum(row[0] for row in over)


def lock_leases(
    connection: Connection, epoch_id: int, window_ids: Sequence[int]
) -> dict[int, LeaseState]:
    """An epoch's leases in some windows, made where missing; locked in the order given."""
    states = _read_leases(connection, epoch_id, window_ids)
    missing = [id_ for id_ in window_ids if id_ not in states]
    if missing:
        rows = [
            {"window_id": id_, "epoch_id": epoch_id, "granted": 0, "spent": 0, "wanted": 0,
             "ticket": 0}
            for id_ in missing
        ]  # fmt: skip
        table = table_of(Lease)
        connection.execute(insert_new(connection, table, ("window_id", "epoch_id")), rows)
        states = _read_leases(connection, epoch_id, window_ids)
    return states


def _read_leases(
    connection: Connection, epoch_id: int, window_ids: Sequence[int]
) -> dict[int, LeaseState]:
    query = (
        select(Lease.window_id, Lease.granted, Lease.spent)
        .where(Lease.epoch_id == epoch_id, Lease.window_id.in_(window_ids))
        .order_by(Lease.window_id)
        .with_for_update()
    )
    rows = connection.execute(query) if window_ids else ()
    return {row[0]: LeaseState(row[1], row[2]) for row in rows}
