"""Sums of the ledger by any dimension, from rollups where these have it, else from cost rows."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import and_, bindparam, func, literal_column, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.errors import ReportError
from db.ledger_rollups import folded_until
from db.ledger_tags import read_fold, rolled_up
from db.report_dimensions import (
    IN_ROLLUPS,
    IN_TAGS,
    ROLLUPS,
    ROWS,
    TIMES,
    TOKENS,
    Source,
    check_dimensions,
    condition,
    expression,
    from_clause,
    labels,
    tag_of,
)
from db.report_filters import Filters, Within
from db.report_parts import Folded, Part, parts_of, split_tag
from db.report_periods import Periods
from db.retention import require_rows
from pricing.money import usd_from_nano

# cost_usd is net: original_usd plus adjustment_usd. What providers reported in replies, and that
# less our price of the same calls, come last.
USD_FIELDS = ("cost_usd", "original_usd", "adjustment_usd", "provider_cost_usd", "drift_usd")
GROUP_FIELDS = ("calls", *TOKENS, *USD_FIELDS)
COST = 1 + len(TOKENS)  # the place of the cost in a group's sums
SUMS = COST + 1 + 3
ALL_SUMS = range(SUMS)
NOTHING = (0,) * SUMS  # the sums of no calls
GROUPS_MAX = 200_000

Sums = dict[tuple[Any, ...], list[int]]


async def grouped(
    connection: AsyncConnection,
    by: Sequence[str],
    filters: Filters = Filters(),  # noqa: B008 (immutable)
) -> list[dict[str, Any]]:
    """Sums per distinct value of the dimensions `by`, then GROUP_FIELDS; days and months in UTC.

    In the order of time where that is a dimension, else dearest first. Raises ReportError.
    """
    groups = await sums(connection, by, filters)
    in_time = any(dimension in TIMES for dimension in by)

    def order(group: tuple[tuple[str | None, ...], list[int]]) -> Any:
        text = tuple(label or "" for label in group[0])
        return text if in_time else (-group[1][COST], text)

    return [
        {**dict(zip(by, key, strict=True)), **group_fields(values)}
        for key, values in sorted(groups.items(), key=order)
    ]


async def sums(
    connection: AsyncConnection,
    by: Sequence[str],
    filters: Filters = Filters(),  # noqa: B008 (immutable)
    periods: Periods | None = None,
    only: Collection[int] = ALL_SUMS,
) -> Sums:
    """By the names of each group: calls, TOKENS, then amounts in nano-USD, the cost at COST.

    With `periods`, which cover the filters' time, the first part of a key is a period's number.
    Of the sums the calls and those at the places `only` are added up, the others are 0: that takes
    half the time.
    Whole days and hours are read from rollups where these have the dimensions; the rest from cost
    rows, while these are there, as are the parts of hours that periods begin in. Raises
    ReportError.
    """
    check_dimensions(by)
    dimensions = {*by, *filters.where}
    found: Sums = {}
    parts = parts_of(dimensions, filters, periods, await _folded(connection, dimensions))
    for part in parts:
        if part.source is ROWS:
            await require_rows(connection, part.since_ms, "this report")
        query = await _sums_query(connection, by, part, filters, periods, only)
        rows = (await connection.execute(query.limit(GROUPS_MAX + 1))).all()
        keyed = _keyed(rows, part, periods)
        for key, values in _untagged(keyed, by, part) if part.moves else keyed:
            _add(found, key, values)
        if max(len(rows), len(found)) > GROUPS_MAX:
            raise ReportError(f"more than {GROUPS_MAX} groups: ask for less time or dimensions")
    if any(part.hours or part.edges or part.moves for part in parts):  # leaves groups of nothing
        found = {key: values for key, values in found.items() if any(values)}
    return await _with_labels(connection, by, found)


async def in_rollups(connection: AsyncConnection, dimensions: Collection[str]) -> bool:
    """Whether rollups have these together: else a report by them reads every call."""
    tag, others = split_tag(dimensions)
    if not tag:
        return IN_ROLLUPS.issuperset(dimensions)
    return IN_TAGS.issuperset(others) and await connection.run_sync(rolled_up, tag)


async def _folded(connection: AsyncConnection, dimensions: Collection[str]) -> Folded:
    until_day = await connection.run_sync(folded_until)
    tag, _ = split_tag(dimensions)
    if not tag or not await connection.run_sync(rolled_up, tag):
        return Folded(until_day)
    return Folded(until_day, *await connection.run_sync(read_fold))


def _untagged(
    keyed: Iterable[tuple[tuple[Any, ...], list[int]]], by: Sequence[str], part: Part
) -> Iterator[tuple[tuple[Any, ...], list[int]]]:
    """They are no calls without the tag any more."""
    place = [tag_of(name) for name in by].index(part.tag) - len(by)
    for key, values in keyed:
        yield key, values
        without = list(key)
        without[place] = None
        yield tuple(without), [-value for value in values]


def _keyed(
    rows: Iterable[Any], part: Part, periods: Periods | None
) -> Iterator[tuple[tuple[Any, ...], list[int]]]:
    """Sums come as None of no rows, and as Decimal from PostgreSQL."""
    width = (periods is not None) + bool(part.hours)
    for row in rows:
        times, key = row[:width], tuple(row[width:-SUMS])
        values = [int(value or 0) for value in row[-SUMS:]]
        if periods is None:
            yield key, values
            continue
        period = periods.period_of(times[-1])
        yield (period, *key), values
        if part.hours or part.edges:
            before = periods.of_day(times[0]) if part.hours else period - 1
            yield (before, *key), [-value for value in values]


async def _sums_query(
    connection: AsyncConnection,
    by: Sequence[str],
    part: Part,
    filters: Filters,
    periods: Periods | None,
    only: Collection[int],
) -> Any:
    source = part.source
    columns = [expression(source, name).label(f"d{n}") for n, name in enumerate(by)]
    if periods is not None:
        columns.insert(0, periods.expression(source).label("period"))
    if part.hours:
        columns.insert(0, expression(source, "day").label("moved"))
    # Beside edges a time would be what the index is searched for, once for each of them.
    times = (None, None) if part.edges else (part.since_ms, part.until_ms)
    part_filters = Filters(*times, filters.where)
    wanted = (
        each if n == 0 or n in only else literal_column("0")
        for n, each in enumerate((source.calls, *_sum_columns(source)))
    )
    return (
        select(*columns, *wanted)
        .select_from(from_clause(source, {*by, *filters.where}))
        .where(*await conditions(connection, source, part_filters), *_of_part(part))
        .group_by(*(each.name for each in columns))
    )


def _within(time: Any, low: int, high: int) -> Any:
    return and_(time >= literal_column(str(low)), time < literal_column(str(high)))


def _of_part(part: Part) -> list[Any]:
    """Hours are written out: there may be more than a statement takes as parameters."""
    found: list[Any] = [part.source.table.c.tag == part.tag] if part.tag else []
    if part.edges:  # each a look into the index of times
        time = part.source.time
        found.append(or_(*(_within(time, *edge) for edge in part.edges)))
    if part.hours:
        hours: Any = bindparam("hours", part.hours, expanding=True, literal_execute=True)
        found.append(part.source.time.in_(hours))
    return found


async def time_span(connection: AsyncConnection) -> tuple[int, int] | None:
    """[first, last) of what the ledger knows, in unix milliseconds; None: nothing."""
    found: list[tuple[int, int]] = []
    for source in (ROWS, ROLLUPS):
        # One by one: each is a look into the index.
        first, last = [
            (await connection.execute(select(end(source.time)))).scalar()
            for end in (func.min, func.max)
        ]
        if first is not None and last is not None:
            found.append((first * source.unit_ms, (last + 1) * source.unit_ms))
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


async def conditions(connection: AsyncConnection, source: Source, filters: Filters) -> list[Any]:
    check_dimensions(filters.where)
    wanted: list[Any] = []
    if filters.since_ms is not None:
        wanted.append(source.time >= filters.since_ms // source.unit_ms)
    if filters.until_ms is not None:
        wanted.append(source.time < filters.until_ms // source.unit_ms)
    for dimension, value in filters.where.items():
        wanted.append(
            await condition(
                connection, source, dimension, value, known=not isinstance(filters.where, Within)
            )
        )
    return wanted


def _sum_columns(source: Source) -> list[Any]:
    columns = source.table.c
    return [
        *(func.sum(columns[name]) for name in (*TOKENS, "cost_nano")),
        source.adjusted,
        func.sum(columns.provider_cost_nano),
        func.sum(columns.drift_nano),
    ]


def _add(sums: Sums, key: tuple[Any, ...], values: list[int]) -> None:
    known = sums.get(key)
    sums[key] = values if known is None else [a + b for a, b in zip(known, values, strict=True)]


async def _with_labels(connection: AsyncConnection, by: Sequence[str], found: Sums) -> Sums:
    """Ids in the last parts of the keys as names."""
    first = len(next(iter(found), ())) - len(by) if found else 0
    names = [
        await labels(connection, dimension, list({key[first + n] for key in found}))
        for n, dimension in enumerate(by)
    ]
    groups: Sums = {}
    for key, values in found.items():
        named = (names[n][value] for n, value in enumerate(key[first:]))
        _add(groups, (*key[:first], *named), values)
    return groups


def group_fields(values: Sequence[int]) -> dict[str, Any]:
    """GROUP_FIELDS of the sums of a group."""
    return {
        **dict(zip(GROUP_FIELDS, values[:COST], strict=False)),
        **_usd_fields(*values[COST:]),
    }


def _usd_fields(net: int, adjusted: int, reported: int, drift: int) -> dict[str, str]:
    values = (net, net - adjusted, adjusted, reported, drift)
    return dict(zip(USD_FIELDS, map(usd_from_nano, values), strict=True))
