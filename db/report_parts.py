"""What a report reads where: whole days and hours from rollups, the rest from cost rows."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from db.report_dimensions import (
    DAY_MS,
    DAYS,
    HOUR_MS,
    IN_DAYS,
    IN_ROLLUPS,
    IN_TAGS,
    ROLLUPS,
    ROWS,
    TAG_DAYS,
    TAG_HOURS,
    Source,
    tag_of,
)
from db.report_filters import Filters
from db.report_periods import Periods

HOURS_MAX = 8_000  # beyond it all hours are read
EDGES_MAX = 300  # of one query: SQLite takes a thousand conditions


class Part(NamedTuple):
    source: Source
    since_ms: int | None
    until_ms: int | None
    # These only: they have been counted with their days, or hours, in a period that is not theirs.
    hours: Sequence[int] = ()
    edges: Sequence[tuple[int, int]] = ()  # [low, high) in ms, of the period after that one
    tag: str = ""  # calls with it only, where the source is of tags
    moves: bool = False  # they have been counted as calls without the tag


class Folded(NamedTuple):
    """How far rollups reach: days before `until_day`, and of the report's tag what was called in
    [since, until), in ms."""

    until_day: int
    tag_since_ms: int = 0
    tag_until_ms: int = 0


def parts_of(
    dimensions: Collection[str], filters: Filters, periods: Periods | None, folded: Folded
) -> list[Part]:
    since, until = filters.since_ms, filters.until_ms
    tag, others = split_tag(dimensions)
    if tag and IN_TAGS.issuperset(others):
        return _of_tag(dimensions, filters, periods, folded)
    if tag or not IN_ROLLUPS.issuperset(dimensions):
        return [Part(ROWS, since, until)]
    return _of_time(dimensions, since, until, periods, folded.until_day)


def split_tag(dimensions: Collection[str]) -> tuple[str, list[str]]:
    """The first dimension that is a tag, by the tag's name, and all the others."""
    tags = sorted(name for name in dimensions if tag_of(name))
    others = [name for name in dimensions if name not in tags[:1]]
    return tag_of(tags[0]) if tags else "", others


def _of_tag(
    dimensions: Collection[str], filters: Filters, periods: Periods | None, folded: Folded
) -> list[Part]:
    """Calls with the tag, where these are added up; and all calls, as calls without it, of which
    they are taken away again. The rest is read from rows."""
    tag, others = split_tag(dimensions)
    since, until = filters.since_ms, filters.until_ms
    first, last = _whole(HOUR_MS, folded.tag_since_ms or None, folded.tag_until_ms)
    begin = since if first is None else max(since or 0, first)
    end = min(until, last or 0) if until is not None else last or 0
    day = folded.tag_until_ms // DAY_MS
    parts = _of_time(others, begin, end, periods, day) if (begin or 0) < end else []
    if all(each.source is ROWS for each in parts):
        return [Part(ROWS, since, until)]
    moves = tag not in map(tag_of, filters.where)
    parts = [_with_tag(each, tag, moves) for each in parts]
    if moves:
        whole = _of_time(others, begin, end, periods, folded.until_day)
        parts += [each for each in whole if each.source is not ROWS]
    if since != begin:
        parts.append(Part(ROWS, since, begin))
    if until != end:
        parts.append(Part(ROWS, end, until))
    return parts


def _with_tag(part: Part, tag: str, moves: bool) -> Part:
    if part.source is ROWS:
        return part
    source = TAG_DAYS if part.source is DAYS else TAG_HOURS
    return part._replace(source=source, tag=tag, moves=moves)


def _of_time(
    dimensions: Collection[str],
    since: int | None,
    until: int | None,
    periods: Periods | None,
    folded_until: int,
) -> list[Part]:
    """`folded_until` is the first day that has no daily rollups yet."""
    first, last = _whole(HOUR_MS, since, until)
    if first is not None and last is not None and first >= last:
        return [Part(ROWS, since, until)]
    edges = [] if periods is None else periods.edges(first, last)
    if edges and periods is not None and periods.are_hours:  # so each of them is cut
        return [Part(ROWS, since, until)]
    parts = _of_rollups(dimensions, first, last, periods, folded_until)
    if since != first:
        parts.append(Part(ROWS, since, first))
    if until != last:
        parts.append(Part(ROWS, last, until))
    for start in range(0, len(edges), EDGES_MAX):
        some = edges[start : start + EDGES_MAX]
        parts.append(Part(ROWS, some[0][0], some[-1][1], edges=some))
    return parts


def _whole(length_ms: int, since: int | None, until: int | None) -> tuple[int | None, int | None]:
    """The whole hours or days within a time."""
    first = None if since is None else -(-since // length_ms) * length_ms
    return first, None if until is None else until // length_ms * length_ms


def _of_rollups(
    dimensions: Collection[str],
    since: int | None,
    until: int | None,
    periods: Periods | None,
    folded_until: int,
) -> list[Part]:
    hours = [Part(ROLLUPS, since, until)]
    if not IN_DAYS.issuperset(dimensions) or (periods is not None and periods.are_hours):
        return hours
    first, last = _whole(DAY_MS, since, until)
    folded_ms = folded_until * DAY_MS
    last = folded_ms if last is None else min(last, folded_ms)
    if (0 if first is None else first) >= last:
        return hours
    strays = _strays(periods, first, last)
    if len(strays) > HOURS_MAX:
        return hours
    parts = [Part(DAYS, first, last)]
    if strays:
        parts.append(Part(ROLLUPS, first, last, strays))
    if since != first:
        parts.append(Part(ROLLUPS, since, first))
    if until != last:
        parts.append(Part(ROLLUPS, last, until))
    return parts


def _strays(periods: Periods | None, first_ms: int | None, last_ms: int) -> list[int]:
    if periods is None:
        return []
    return periods.strays(None if first_ms is None else first_ms // DAY_MS, last_ms // DAY_MS)
