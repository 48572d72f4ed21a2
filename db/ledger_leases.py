"""LEASE: money from a window to a control and back, and whose turn it is among hosts.

A waiting call's ticket stands in the lease row of its host, so every LEASE in that window sees it
under the window's lock: while one is open, only the oldest gets money (protocol section 8).
"""

import contextlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, func, literal_column, select

from db import registry
from db.journal_records import Window
from db.ledger_booking import (
    BOOK_LEASES,
    BOOK_WINDOWS,
    PUBLISH_TICKETS,
    lock_leases,
    lock_limits,
    lock_windows,
)
from db.ledger_types import LeaseOutcome, LeaseRequest, LeaseState, OpenTicket
from db.models import Epoch, Lease
from db.models import Window as WindowRow
from db.notifications import TICKETS, notify
from db.references import References, UnknownReference

Others = dict[int, list[OpenTicket]]  # by window id


def lease(
    connection: Connection,
    references: References,
    epoch_id: int,
    requests: Iterable[LeaseRequest],
    ignored: Collection[OpenTicket] | None,
) -> list[LeaseOutcome]:
    registry.require_open(connection, epoch_id)
    wanted: dict[int, LeaseRequest] = {}
    for request in requests:
        with contextlib.suppress(UnknownReference):  # its budget is not in this database
            wanted[references.window_id(connection, request.window)] = request
    order = sorted(wanted)
    states = lock_leases(connection, epoch_id, order)
    limits = lock_limits(connection, {request.window[0] for request in wanted.values()})
    windows = lock_windows(connection, order)
    spent = _spent_totals(connection, order)
    others = {} if ignored is None else _tickets(connection, epoch_id, order)
    outcomes = []
    for row in windows:
        request, state = wanted[row.id], states[row.id]
        tickets = [each for each in others.get(row.id, ()) if each not in (ignored or ())]
        first = min(tickets, default=None)
        limit = limits[row.budget_id] + row.extra
        delta = _allowed(request, state, limit - row.committed)
        if delta > 0 and not _is_first(request, epoch_id, first):
            delta = 0
        outcomes.append(
            LeaseOutcome(
                window=request.window,
                delta=delta,
                granted=state.granted + delta,
                spent=state.spent,
                limit=limit,
                committed=row.committed + delta,
                spent_total=spent.get(row.id, 0),
                first=first,
                newest=max((each.number for each in others.get(row.id, ())), default=0),
            )
        )
    _move(
        connection, epoch_id, [(row.id, each) for row, each in zip(windows, outcomes, strict=True)]
    )
    _publish(connection, epoch_id, wanted)
    return outcomes


def _allowed(request: LeaseRequest, state: LeaseState, room: int) -> int:
    """What of a request can be granted; 0: nothing."""
    if request.expected != state.granted:
        return 0
    if request.delta <= 0:
        return request.delta if state.granted + request.delta >= state.spent else 0
    delta = min(request.delta, room)
    return delta if delta >= max(1, request.at_least or request.delta) else 0


def _is_first(request: LeaseRequest, epoch_id: int, first: OpenTicket | None) -> bool:
    """Nobody leases ahead, and no younger ticket is served, while one of another host is open."""
    return first is None or (request.ticket > 0 and (request.ticket, epoch_id) < first)


def _move(connection: Connection, epoch_id: int, outcomes: list[tuple[int, LeaseOutcome]]) -> None:
    moved = [(id_, outcome) for id_, outcome in outcomes if outcome.delta]
    if moved:
        leases = [(each.granted, each.spent, id_, epoch_id) for id_, each in moved]
        BOOK_LEASES.many(connection, leases)
        BOOK_WINDOWS.many(connection, [(each.delta, 0, id_) for id_, each in moved])


def _publish(connection: Connection, epoch_id: int, wanted: dict[int, LeaseRequest]) -> None:
    published = [
        (request.ticket, request.wanted, id_, epoch_id)
        for id_, request in sorted(wanted.items())
        if request.publish
    ]
    if published:
        PUBLISH_TICKETS.many(connection, published)
        notify(connection, TICKETS)


def open_tickets(connection: Connection, epoch_id: int) -> dict[Window, list[OpenTicket]]:
    """Of all other hosts, by window."""
    query = _of_others(epoch_id, WindowRow.budget_id, WindowRow.starts_at)
    rows = connection.execute(query.join(WindowRow, WindowRow.id == Lease.window_id))
    tickets: dict[Window, list[OpenTicket]] = {}
    for row in rows:
        tickets.setdefault((row.budget_id, row.starts_at), []).append(
            OpenTicket(row.ticket, row.epoch_id)
        )
    return tickets


def _tickets(connection: Connection, epoch_id: int, window_ids: Sequence[int]) -> Others:
    query = _of_others(epoch_id, Lease.window_id).where(Lease.window_id.in_(window_ids))
    tickets: Others = {}
    for row in connection.execute(query):
        tickets.setdefault(row.window_id, []).append(OpenTicket(row.ticket, row.epoch_id))
    return tickets


def _of_others(epoch_id: int, *columns: Any) -> Any:
    """A lost host's calls have long been refused. The zero is written out: with a parameter in its
    place, an engine may not see that the partial index of tickets has all there is."""
    return (
        select(Lease.ticket, Lease.epoch_id, *columns)
        .join(Epoch, Epoch.id == Lease.epoch_id)
        .where(
            Lease.ticket > literal_column("0"), Lease.epoch_id != epoch_id, Epoch.state == "open"
        )
    )


def _spent_totals(connection: Connection, window_ids: Sequence[int]) -> dict[int, int]:
    query = (
        select(Lease.window_id, func.sum(Lease.spent))
        .where(Lease.window_id.in_(window_ids))
        .group_by(Lease.window_id)
    )
    return {row[0]: int(row[1]) for row in connection.execute(query)}
