"""Locking leases and windows, and booking money in them. Only the ledger's transactions do."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from db.ledger_types import LeaseState
from db.models import Budget, Lease
from db.models import Window as WindowRow
from db.raises import amount_in_force
from db.statements import Statement, insert_new, leases_statement, table_of

_LEASES = table_of(Lease)
_WINDOWS = table_of(WindowRow)

BOOK_LEASES = Statement(
    lambda _: (
        update(_LEASES)
        .values(granted=bindparam("to_granted"), spent=bindparam("to_spent"))
        .where(_LEASES.c.window_id == bindparam("window"), _LEASES.c.epoch_id == bindparam("epoch"))
    ),
    ("to_granted", "to_spent", "window", "epoch"),
)

PUBLISH_TICKETS = Statement(
    lambda _: (
        update(_LEASES)
        .values(ticket=bindparam("to_ticket"), wanted=bindparam("to_wanted"))
        .where(_LEASES.c.window_id == bindparam("window"), _LEASES.c.epoch_id == bindparam("epoch"))
    ),
    ("to_ticket", "to_wanted", "window", "epoch"),
)

# Relative: another host may have leased meanwhile. `over` is the part nobody was asked for.
BOOK_WINDOWS = Statement(
    lambda _: (
        update(_WINDOWS)
        .values(
            committed=_WINDOWS.c.committed + bindparam("change"),
            overage=_WINDOWS.c.overage + bindparam("over"),
        )
        .where(_WINDOWS.c.id == bindparam("window"))
    ),
    ("change", "over", "window"),
)

# The same of money that was not asked for, and calls that a budget spared.
BOOK_OVERAGE = Statement(
    lambda _: (
        update(_WINDOWS)
        .values(
            committed=_WINDOWS.c.committed + bindparam("change"),
            overage=_WINDOWS.c.overage + bindparam("over"),
            spared=_WINDOWS.c.spared + bindparam("calls"),
        )
        .where(_WINDOWS.c.id == bindparam("window"))
    ),
    ("change", "over", "calls", "window"),
)

READ_AT_ONCE = 64  # leases; a statement of its own for each number of windows


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
    states: dict[int, LeaseState] = {}
    for start in range(0, len(window_ids), READ_AT_ONCE):
        some = window_ids[start : start + READ_AT_ONCE]
        rows: Any = leases_statement(len(some)).one(connection, (epoch_id, *some))
        states.update({id_: LeaseState(granted, spent) for id_, granted, spent in rows})
    return states


def lock_windows(connection: Connection, window_ids: Sequence[int]) -> Sequence[Any]:
    """(id, budget_id, committed, extra), locked in the order of their ids."""
    query = (
        select(WindowRow.id, WindowRow.budget_id, WindowRow.committed, WindowRow.extra)
        .where(WindowRow.id.in_(window_ids))
        .order_by(WindowRow.id)
        .with_for_update()
    )
    return connection.execute(query).all() if window_ids else []


def lock_limits(connection: Connection, budget_ids: Collection[int]) -> dict[int, int]:
    """The limits in force (rule R6), raises included. The budgets' own stay so until this
    transaction has ended: nothing is leased by a limit that is being lowered at that moment."""
    query = (
        select(Budget.id, Budget.limit_value + amount_in_force(connection))
        .where(Budget.id.in_(budget_ids))
        .order_by(Budget.id)
        .with_for_update(read=True)
    )
    return {row[0]: row[1] for row in connection.execute(query)}
