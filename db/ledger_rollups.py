"""Rollups: hourly ones grow with the rows, in their transaction; of days that are over, control
makes daily ones, so that reports of months read few rows.

A row that arrives later grows the day, too, whenever that is folded. Nobody can miss the other:
SQLite has one writer at a time; on PostgreSQL a fold waits for everybody who has written hourly
rollups, and who comes later sees that it was made. So it does not matter when a day is folded.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Integer, String, cast, func, insert, literal_column, select

from db.ledger_rows import (
    DAY_COLUMNS,
    HOURS_PER_DAY,
    ROLLUP_SUMS,
    ROLLUP_WHO,
    Row,
    day_rollups,
    rollups,
)
from db.ledger_tags import add_late
from db.models import CostAnalytics, CostDay, FoldedDay
from db.rollup_lock import lock_rollups
from db.statements import LAST_FOLDED, UPSERT_DAYS, UPSERT_ROLLUPS, table_of

MS_PER_DAY = 86_400_000
REST_MS = 3_600_000  # after its end most of a day's rows are there
_HOURS = table_of(CostAnalytics)
_DAYS = table_of(CostDay)


def roll_up(connection: Connection, rows: Sequence[Row], host_id: str, calls: int = 1) -> None:
    """Add inserted rows to their hours, and to their days where these are folded; to those of
    their tags where these are."""
    hourly = rollups(rows, host_id, calls)
    UPSERT_ROLLUPS.many(connection, hourly)
    late = day_rollups(hourly, folded_until(connection))
    if late:
        UPSERT_DAYS.many(connection, late)
    add_late(connection, rows, calls)


def folded_until(connection: Connection) -> int:
    """The first day, in unix days, that is not folded."""
    last = LAST_FOLDED.one(connection, ()).scalar()
    return 0 if last is None else int(last) + 1


def fold_day(connection: Connection, now_ms: int) -> int | None:
    """Fold the first day that is over and is not folded yet. None: there is none. Raises what the
    database raises where somebody writes rollups for longer than the lock may be waited for."""
    until = (now_ms - REST_MS) // MS_PER_DAY
    if _next_day(connection, until) is None:
        return None
    lock_rollups(connection)
    day = _next_day(connection, until)  # another host may have been faster
    if day is not None:
        connection.execute(insert(_DAYS).from_select(DAY_COLUMNS, _sums_of(day)))
        connection.execute(insert(FoldedDay).values(day=day, folded_at_ms=now_ms))
    return day


def _next_day(connection: Connection, until: int) -> int | None:
    """Days that nobody called on are passed over."""
    first = func.min(_HOURS.c.hour)
    query = select(first).where(_HOURS.c.hour >= folded_until(connection) * HOURS_PER_DAY)
    hour = connection.execute(query).scalar()
    return None if hour is None or hour // HOURS_PER_DAY >= until else int(hour // HOURS_PER_DAY)


def _sums_of(day: int) -> Any:
    number = literal_column(str(day), Integer)
    who = [_HOURS.c[name] for name in ROLLUP_WHO]
    first = day * HOURS_PER_DAY
    return (
        select(_shard(day), number, *who, *(func.sum(_HOURS.c[name]) for name in ROLLUP_SUMS))
        .where(_HOURS.c.hour >= first, _HOURS.c.hour < first + HOURS_PER_DAY)
        .group_by(*who)
    )


def _shard(day: int) -> Any:
    """As `day_rollups` makes it."""
    key, project, user = (
        func.coalesce(cast(_HOURS.c[name], String), "")
        for name in ("key_id", "project_id", "user_id")
    )
    parts = (key, project, user, _HOURS.c.provider, _HOURS.c.model)
    shard: Any = literal_column(f"'{day}'", String)
    for part in parts:
        shard = shard + literal_column("':'", String) + part
    return shard
