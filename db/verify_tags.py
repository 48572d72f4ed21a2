"""Rollups by tag are the sums of the rows they stand for."""

from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy import Integer, func, literal_column, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from db.ledger_rows import ROLLUP_SUMS
from db.ledger_tags import PLACES, Fold, Groups, Tags, as_tags, group, read_fold, tagged_calls
from db.models import TagName, UsageCost
from db.report_dimensions import DAY_MS, HOUR_MS, TAG_DAYS, TAG_HOURS, Source
from db.retention import read_horizon
from db.streaming import stream
from db.verify_types import Finding

CALLS_AT_ONCE = 10_000


async def check_tags(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    """One by one since the horizon of retention; and days of all that is added up, by hours."""
    fold = await connection.run_sync(read_fold)
    since_ms = max(fold.since_ms, await read_horizon(connection))
    first = -(-since_ms // HOUR_MS)
    names = select(TagName.tag).where(TagName.wide.is_(False))
    narrow = set((await connection.execute(names)).scalars())
    differences = await _of_rows(connection, Fold(first * HOUR_MS, fold.until_ms), narrow)
    await _less_rollups(connection, differences, first, narrow)
    for (hour, tag, value, place), sums in differences.items():
        if any(sums):
            yield _finding(f"unix hour {hour}, {tag}={value}, team {place[1]}", "rows", sums)
    async for finding in _check_days(connection):
        yield finding


async def _of_rows(connection: AsyncConnection, fold: Fold, narrow: set[str]) -> Groups:
    at = UsageCost.at_ms
    query = tagged_calls().where(at >= fold.since_ms, at < fold.until_ms)
    found: Groups = {}
    calls: list[Tags] = []
    async for row in stream(connection, query):
        calls.append(as_tags(row))
        if len(calls) == CALLS_AT_ONCE:
            _merge(found, group(calls), narrow)
            calls = []
    _merge(found, group(calls), narrow)
    return found


def _merge(found: Groups, more: Groups, narrow: set[str]) -> None:
    for key, sums in more.items():
        if key[1] in narrow:
            known = found.get(key, [0] * len(sums))
            found[key] = [a + b for a, b in zip(known, sums, strict=True)]


async def _less_rollups(
    connection: AsyncConnection, found: Groups, first_hour: int, narrow: set[str]
) -> None:
    table = TAG_HOURS.table.c
    names = ("hour", "tag", "value", *PLACES, *ROLLUP_SUMS)
    query = select(*(table[name] for name in names)).where(table.hour >= first_hour)
    async for row in stream(connection, query):
        if row.tag in narrow:
            key = row.hour, row.tag, row.value, tuple(row[3:6])
            known = found.get(key, [0] * len(ROLLUP_SUMS))
            found[key] = [a - b for a, b in zip(known, row[6:], strict=True)]


async def _check_days(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    both = union_all(_by_day(TAG_HOURS, "1"), _by_day(TAG_DAYS, "-1")).subquery()
    differences = [func.sum(both.c[name] * both.c.sign).label(name) for name in ROLLUP_SUMS]
    who = [both.c[name] for name in ("day", "tag", "value", *PLACES)]
    query = select(*who, *differences).group_by(*who)
    query = query.having(or_(*(difference.element != 0 for difference in differences)))
    async for row in stream(connection, query):
        subject = f"unix day {row.day}, {row.tag}={row.value}, team {row.team_id}"
        yield _finding(subject, "hours", [int(value) for value in row[len(who) :]])


def _by_day(source: Source, sign: str) -> Any:
    table = source.table.c
    day = source.time // literal_column(str(DAY_MS // source.unit_ms), Integer)
    what = (table[name] for name in ("tag", "value", *PLACES, *ROLLUP_SUMS))
    return select(day.label("day"), *what, literal_column(sign, Integer).label("sign"))


def _finding(subject: str, of: str, sums: list[int]) -> Finding:
    wrong = ", ".join(
        f"{name} by {-value:+d}" for name, value in zip(ROLLUP_SUMS, sums, strict=True) if value
    )
    return Finding("rollups", subject, f"differ from {of}: {wrong}")
