"""What reports group and filter by, as expressions over cost rows and over their rollups."""

from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Integer, String, case, cast, func, literal_column, null
from sqlalchemy.ext.asyncio import AsyncConnection

from db.errors import ReportError
from db.journal_records import CUSTOMER_TAG
from db.models import (
    CostAnalytics,
    CostDay,
    ModelCost,
    PriceVersion,
    TagDay,
    TagHour,
    UsageCost,
)
from db.paths import PATHS

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
TAG = "tag:"
CUSTOMER = "customer"
TIMES = ("hour", "day", "month")
PLAIN = ("provider", "model", "route", "ending")
DIMENSIONS = (*PATHS, CUSTOMER, *PLAIN, *TIMES, "price_version")
IN_ROLLUPS = frozenset((*PATHS, "provider", "model", *TIMES))
IN_DAYS = IN_ROLLUPS - {"hour"}
IN_TAGS = frozenset(("organization", "team", "project", *TIMES))  # beside one tag
IDS_PER_QUERY = 1_000

TOKENS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)


class Source(NamedTuple):
    """Where sums come from: cost rows, the hourly rollups of them, or the daily ones of these."""

    table: Any
    time: ColumnElement[int]  # in units of `unit_ms`
    unit_ms: int
    calls: ColumnElement[int]
    adjusted: ColumnElement[int]  # nano-USD of adjustments


ROWS = Source(
    UsageCost.__table__,
    UsageCost.__table__.c.at_ms,
    1,
    func.sum(case((UsageCost.adjusts.is_(None), 1), else_=0)),
    func.sum(case((UsageCost.adjusts.is_(None), 0), else_=UsageCost.cost_nano)),
)
ROLLUPS = Source(
    CostAnalytics.__table__,
    CostAnalytics.__table__.c.hour,
    HOUR_MS,
    func.sum(CostAnalytics.calls),
    func.sum(CostAnalytics.adjusted_nano),
)
DAYS = Source(
    CostDay.__table__,
    CostDay.__table__.c.day,
    DAY_MS,
    func.sum(CostDay.calls),
    func.sum(CostDay.adjusted_nano),
)
TAG_HOURS = Source(
    TagHour.__table__,
    TagHour.__table__.c.hour,
    HOUR_MS,
    func.sum(TagHour.calls),
    func.sum(TagHour.adjusted_nano),
)
TAG_DAYS = Source(
    TagDay.__table__,
    TagDay.__table__.c.day,
    DAY_MS,
    func.sum(TagDay.calls),
    func.sum(TagDay.adjusted_nano),
)
OF_DAYS = (DAYS, TAG_DAYS)
OF_TAGS = (TAG_HOURS, TAG_DAYS)


def tag_of(dimension: str) -> str:
    """The tag's name; "": the dimension is none."""
    if dimension == CUSTOMER:
        return CUSTOMER_TAG
    return dimension.removeprefix(TAG) if dimension.startswith(TAG) else ""


def check_dimensions(names: Iterable[str]) -> None:
    """Raises ReportError naming the first that is unknown."""
    for name in names:
        if name not in DIMENSIONS and not (name.startswith(TAG) and name != TAG):
            raise ReportError(
                f"cannot group or filter by {name!r}; possible: {', '.join(DIMENSIONS)}, tag:NAME"
            )


def expression(source: Source, dimension: str) -> ColumnElement[Any]:
    """The value rows are grouped by: an id of the hierarchy, a number of hours or days, or text."""
    if dimension in PATHS:
        column: ColumnElement[Any] = source.table.c[f"{dimension}_id"]
        return column
    if dimension in TIMES:
        length_ms = HOUR_MS if dimension == "hour" else DAY_MS
        return source.time // literal_column(str(length_ms // source.unit_ms), Integer)
    if dimension == "price_version":
        return PriceVersion.__table__.c.version
    if tag_of(dimension):
        return _tag(source, tag_of(dimension))
    plain: ColumnElement[Any] = source.table.c[dimension]
    return plain


def _tag(source: Source, name: str) -> ColumnElement[Any]:
    """Rollups that are not of tags are of calls without, whatever these have."""
    if source in OF_TAGS:
        value: ColumnElement[Any] = source.table.c.value
    elif source is ROWS:
        value = source.table.c.tags[name].as_string()
    else:
        value = cast(null(), String)
    return value


def from_clause(source: Source, dimensions: Container[str]) -> Any:
    if "price_version" not in dimensions:
        return source.table
    return source.table.join(
        ModelCost.__table__, UsageCost.price_id == ModelCost.id, isouter=True
    ).join(PriceVersion.__table__, ModelCost.price_version_id == PriceVersion.id, isouter=True)


# --- values as people write and read them --------------------------------------------------


async def condition(
    connection: AsyncConnection, source: Source, dimension: str, value: str, *, known: bool = True
) -> ColumnElement[bool]:
    """The rows whose dimension has a value. Raises ReportError for a name nobody has, if it must be
    `known`."""
    if dimension in TIMES:
        raise ReportError(f"filter by time with since and until, not by {dimension}")
    if dimension in PATHS:
        ids = await ids_of(connection, dimension, value, known=known)
        return expression(source, dimension).in_(ids)
    return expression(source, dimension) == value


async def ids_of(
    connection: AsyncConnection, dimension: str, value: str, *, known: bool = True
) -> list[int]:
    """Whose name or whole path this is. Raises ReportError for nobody's, if it must be `known`."""
    query = PATHS[dimension]
    name = list(query.selected_columns)[-1]
    names = {part for width in range(3) for part in value.split("/", width)[-1:]}
    found = [
        row[0]
        for row in await connection.execute(query.where(name.in_(names)))
        if value in (row[-1], "/".join(row[1:]))
    ]
    if known and not found:
        raise ReportError(f"no such {dimension}: {value!r}")
    return found


async def labels(
    connection: AsyncConnection, dimension: str, values: Sequence[Any]
) -> dict[Any, str | None]:
    """What to print for each value: the name, or the whole path where two have the same name."""
    if dimension in TIMES:
        return {value: _time_label(dimension, value) for value in values}
    if dimension not in PATHS:
        return {value: value for value in values}
    paths: dict[int, tuple[str, ...]] = {}
    ids = [value for value in values if value is not None]
    for start in range(0, len(ids), IDS_PER_QUERY):
        query = PATHS[dimension]
        some = query.where(
            next(iter(query.selected_columns)).in_(ids[start : start + IDS_PER_QUERY])
        )
        paths.update((row[0], tuple(row[1:])) for row in await connection.execute(some))
    names = [path[-1] for path in paths.values()]
    twice = (
        {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
    )
    return {None: None} | {
        id_: "/".join(path) if path[-1] in twice else path[-1] for id_, path in paths.items()
    }


def _time_label(dimension: str, value: int) -> str:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    if dimension == "hour":
        return f"{epoch + timedelta(hours=value):%Y-%m-%dT%H:00Z}"
    return f"{epoch + timedelta(days=value):%Y-%m-%d}"[: 7 if dimension == "month" else None]
