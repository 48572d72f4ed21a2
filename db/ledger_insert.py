"""The drain's cost rows: built from records, inserted once each. Moves no money."""

from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from db.journal_records import Hold, Settle
from db.ledger_rows import Row, lost_settlement, settled_row
from db.ledger_types import Batch, DeadLetter
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


def cost_rows(
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
                references.charge_set_id(connection, windows),
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


def insert_rows(
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
