"""The drain's cost rows: built from records, inserted once each. Moves no money."""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from db.customers import remake
from db.journal_records import CUSTOMER_TAG, Hold, Settle
from db.ledger_rows import Row, lost_settlement, settled_row
from db.ledger_types import Batch, DeadLetter
from db.pauses import in_pieces
from db.references import References, UnknownReference
from db.statements import INSERT_COSTS, insert_costs_returning
from db.transactions import is_retryable


class SomeExisted(Exception):
    """Some rows of a batch were there already, and the driver does not tell which."""


class Ended(NamedTuple):
    """A call that ended, with its row."""

    hold: Hold
    settle: Settle
    row: Row


class Inserted(NamedTuple):
    fresh: list[Ended]  # rows that were not there before
    duplicates: int
    dead: int


def insert_calls(
    connection: Connection, references: References, batch: Batch, dead_letter: DeadLetter
) -> Inserted:
    """All rows in one statement. Raises SomeExisted, and what the database says of a row that it
    does not take; then `insert_calls_carefully` tells the good from the bad."""
    ended: list[Ended] = []
    dead = 0
    for hold, settle in in_pieces(_records(batch)):
        try:
            ended.append(_ended(connection, references, hold, settle))
        except UnknownReference as exc:
            dead_letter(hold, settle, str(exc))
            dead += 1
    if not ended:
        return Inserted([], 0, dead)
    rows = [each.row for each in ended]
    if connection.dialect.name == "postgresql":
        inserted = insert_costs_returning(connection, rows)
        fresh = [each for each in ended if each.row[0] in inserted]
        return Inserted(fresh, len(ended) - len(fresh), dead)
    if INSERT_COSTS.many(connection, rows).rowcount != len(rows):
        raise SomeExisted
    return Inserted(ended, 0, dead)


def insert_calls_carefully(
    connection: Connection, references: References, batch: Batch, dead_letter: DeadLetter
) -> Inserted:
    """One by one, each in a savepoint: none stops the others."""
    fresh: list[Ended] = []
    duplicates = dead = 0
    for hold, settle in _records(batch):
        try:
            with connection.begin_nested():
                each = _ended(connection, references, hold, settle)
                row = tuple(x.replace("\0", "") if isinstance(x, str) else x for x in each.row)
                if INSERT_COSTS.one(connection, row).rowcount == 1:
                    fresh.append(each._replace(row=row))
                else:
                    duplicates += 1
        except (UnknownReference, DBAPIError, ValueError, TypeError, OverflowError) as exc:
            if is_retryable(exc):
                raise
            references.forget()  # some of what it remembers may just have been rolled back
            dead_letter(hold, settle, str(getattr(exc, "orig", exc)))
            dead += 1
    return Inserted(fresh, duplicates, dead)


def _records(batch: Batch) -> Iterator[tuple[Hold, Settle | None]]:
    yield from batch.settled
    for hold in batch.lost:
        yield hold, None


def _ended(
    connection: Connection, references: References, hold: Hold, settle: Settle | None
) -> Ended:
    """Raises UnknownReference."""
    try:
        return _ended_now(connection, references, hold, settle)
    except UnknownReference:
        if not _remade(connection, hold):
            raise
    return _ended_now(connection, references, hold, settle)


def _remade(connection: Connection, hold: Hold) -> bool:
    """Whether budgets of the call's customer were lacking, and are there now."""
    customer = (hold.tags or {}).get(CUSTOMER_TAG)
    if not customer:
        return False
    return remake(connection, {window[0] for window, _ in hold.amounts}, customer, hold.at_ms)


def _ended_now(
    connection: Connection, references: References, hold: Hold, settle: Settle | None
) -> Ended:
    if settle is None:
        units = [references.unit(connection, window[0]) for window, _ in hold.amounts]
        settle = lost_settlement(hold, units)
    windows = tuple([window for window, _ in settle.charges])
    refers = references.of_row(connection, hold, windows, settle.price_version, settle.model)
    return Ended(hold, settle, settled_row(hold, settle, *refers))
