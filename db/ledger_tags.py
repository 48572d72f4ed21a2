"""Rollups by tag: control adds calls up in the order of their time, some at once, up to a moment
that moves on; a row that arrives later for a time before it adds itself, in its transaction.

Nobody can miss the other, as with days (`ledger_rollups`): a fold takes the same lock, and who
writes rows looks where it stands after having written rollups. What is added up are the first
`NAMES_MAX` tags, but for wide ones: their values are too many to be worth it.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    Connection,
    Integer,
    Text,
    case,
    cast,
    func,
    insert,
    literal_column,
    select,
    update,
)

from db.ledger_rows import ROLLUP_SUMS, Row
from db.models import Retention, TagDay, TagFold, TagHour, TagName, UsageCost
from db.rollup_lock import lock_rollups
from db.statements import Statement, insert_new, table_of, upsert

SLICE_CALLS = 2_000
REST_MS = 300_000  # what is younger may still arrive
NAMES_MAX = 64
VALUES_MAX = 500  # of a tag in one hour, each of each place
HOUR_MS, HOURS_PER_DAY = 3_600_000, 24

PLACES = ("organization_id", "team_id", "project_id")
_CALLS = table_of(UsageCost)
_HOURS = table_of(TagHour)
_NAMES = table_of(TagName)
_FOLDS = table_of(TagFold)
_TAGS_PLACE = 34  # of a row's tags, as JSON text

Place = tuple[int, int, int | None]
Groups = dict[tuple[int, str, str, Place], list[int]]  # by hour, tag, value and place


class Tags(NamedTuple):
    """Of calls and adjustments that have the same: `sums` as ROLLUP_SUMS."""

    hour: int
    place: Place
    tags: str
    sums: tuple[int, ...]


class Fold(NamedTuple):
    since_ms: int
    until_ms: int


LOOK = Statement(lambda _: select(_FOLDS.c.since_ms, _FOLDS.c.until_ms), ())


def _columns(unit: str) -> tuple[str, ...]:
    return ("shard", unit, "tag", "value", *PLACES, *ROLLUP_SUMS)


UPSERT_HOURS = Statement(upsert(_HOURS, _columns("hour")), _columns("hour"))
UPSERT_DAYS = Statement(upsert(table_of(TagDay), _columns("day")), _columns("day"))
_decode = msgspec.json.Decoder(dict[str, str]).decode


def read_fold(connection: Connection) -> Fold:
    row = LOOK.one(connection, ()).first()
    return Fold(0, 0) if row is None else Fold(row.since_ms, row.until_ms)


def rolled_up(connection: Connection, tag: str) -> bool:
    """Whether the rollups have all there is of a tag."""
    wide = connection.execute(select(_NAMES.c.wide).where(_NAMES.c.tag == tag)).scalar()
    if wide is not None:
        return not wide
    names = connection.execute(select(func.count()).select_from(_NAMES)).scalar_one()
    return names < NAMES_MAX  # one that is new will be among them


def add_late(connection: Connection, rows: Iterable[Row], calls: int) -> None:
    """Rows just written, after their rollups: those of times that are added up already."""
    tagged = [row for row in rows if row[_TAGS_PLACE] is not None]
    if not tagged:
        return
    fold = read_fold(connection)
    late = [_of_row(row, calls) for row in tagged if fold.since_ms <= row[1] < fold.until_ms]
    if late:
        _add(connection, late)


def _of_row(row: Row, calls: int) -> Tags:
    cost, reported, drift = row[23], row[35], row[36]
    adjusted = 0 if row[8] is None else cost
    figures = (0, 0) if drift is None else (reported or 0, drift)
    sums = (calls, *row[16:21], cost, adjusted, *figures)
    return Tags(row[1] // HOUR_MS, (row[3], row[4], row[5]), row[_TAGS_PLACE], sums)


# --- a fold --------------------------------------------------------------------------------


def fold_tags(connection: Connection, now_ms: int) -> bool:
    """Add up the next calls, if there are any to add. Raises what the database raises where
    somebody writes rollups for longer than the lock may be waited for."""
    until = now_ms - REST_MS
    if _first_call(connection, read_fold(connection).until_ms, until) is None:
        return False
    lock_rollups(connection)
    fold = read_fold(connection)  # another host may have been faster
    # Rows before the horizon are on their way out.
    since = connection.execute(select(func.max(Retention.horizon_ms))).scalar() or 0
    if since <= fold.until_ms:
        since = fold.since_ms
    first = _first_call(connection, max(fold.until_ms, since), until)
    if first is None:
        return False
    end = min(_end_of_slice(connection, first), until)
    groups = _add(connection, _between(connection, first, end))
    _note_wide(connection, groups)
    values = {"since_ms": since, "until_ms": end}
    if connection.execute(update(_FOLDS).values(values)).rowcount == 0:
        connection.execute(insert(_FOLDS).values(id=1, **values))
    return True


def _first_call(connection: Connection, since_ms: int, until_ms: int) -> int | None:
    at = func.min(_CALLS.c.at_ms)
    query = select(at).where(_CALLS.c.at_ms >= since_ms, _CALLS.c.at_ms < until_ms)
    return connection.execute(query).scalar()


def _end_of_slice(connection: Connection, first_ms: int) -> int:
    at = _CALLS.c.at_ms
    query = select(at).where(at >= first_ms).order_by(at).offset(SLICE_CALLS).limit(1)
    end = connection.execute(query).scalar()
    return 2**62 if end is None else max(int(end), first_ms + 1)


def tagged_calls() -> Any:
    """Of rows: what `Tags` has, column by column."""
    adjusts, cost = _CALLS.c.adjusts, _CALLS.c.cost_nano
    sums = (
        case((adjusts.is_(None), 1), else_=0),
        *(_CALLS.c[name] for name in ROLLUP_SUMS[1:7]),
        case((adjusts.is_(None), 0), else_=cost),
        *(
            case((_CALLS.c.drift_nano.is_(None), 0), else_=func.coalesce(_CALLS.c[name], 0))
            for name in ROLLUP_SUMS[8:]
        ),
    )
    hour = (_CALLS.c.at_ms // literal_column(str(HOUR_MS), Integer)).label("hour")
    tags = cast(_CALLS.c.tags, Text).label("named")
    places = [_CALLS.c[name] for name in PLACES]
    query = select(hour, *places, tags, *map(func.sum, sums))
    return query.where(_CALLS.c.tags.is_not(None)).group_by("hour", *places, "named")


def as_tags(row: Any) -> Tags:
    return Tags(row[0], tuple(row[1:4]), row[4], tuple(map(int, row[5:])))


def _between(connection: Connection, first_ms: int, end_ms: int) -> Iterator[Tags]:
    query = tagged_calls().where(_CALLS.c.at_ms >= first_ms, _CALLS.c.at_ms < end_ms)
    return map(as_tags, connection.execute(query))


# --- adding up -----------------------------------------------------------------------------


def group(calls: Iterable[Tags]) -> Groups:
    groups: Groups = {}
    for call in calls:
        for tag, value in _decode(call.tags).items():
            key = call.hour, tag, value, call.place
            known = groups.get(key)
            groups[key] = (
                list(call.sums)
                if known is None
                else [a + b for a, b in zip(known, call.sums, strict=True)]
            )
    return groups


def _add(connection: Connection, calls: Iterable[Tags]) -> Groups:
    """Returns what was added, by hour."""
    groups = group(calls)
    narrow = _narrow(connection, {key[1] for key in groups})
    groups = {key: sums for key, sums in groups.items() if key[1] in narrow}
    days: Groups = {}
    for (hour, tag, value, place), sums in groups.items():
        day = days.setdefault((hour // HOURS_PER_DAY, tag, value, place), [0] * len(sums))
        for n, each in enumerate(sums):
            day[n] += each
    if groups:
        UPSERT_HOURS.many(connection, _rows(groups))
        UPSERT_DAYS.many(connection, _rows(days))
    return groups


def _rows(groups: Groups) -> list[Row]:
    """In one order, so that nobody waits for a row of somebody who waits for one of theirs."""
    return sorted(
        (f"{time}:{place[1]}:{place[2] or ''}:{len(value)}:{value}:{tag}", time, tag, value,
         *place, *sums)
        for (time, tag, value, place), sums in groups.items()
    )  # fmt: skip


def _narrow(connection: Connection, tags: set[str]) -> set[str]:
    """Those of these tags that are added up, new ones among them."""
    rows = connection.execute(select(_NAMES.c.tag, _NAMES.c.wide))
    known: dict[str, bool] = {row.tag: row.wide for row in rows}
    for tag in sorted(tags - known.keys()):
        if len(known) < NAMES_MAX:
            known[tag] = False
            connection.execute(insert_new(connection, _NAMES, ["tag"]).values(tag=tag, wide=False))
    return {tag for tag in tags if known.get(tag) is False}


def _note_wide(connection: Connection, groups: Groups) -> None:
    counted = func.count().label("counted")
    for tag, hour in sorted({(tag, hour) for hour, tag, _, _ in groups}):
        query = select(counted).where(_HOURS.c.tag == tag, _HOURS.c.hour == hour)
        if connection.execute(query).scalar_one() > VALUES_MAX:
            connection.execute(update(_NAMES).where(_NAMES.c.tag == tag).values(wide=True))
