"""What a report reads where: whole days and hours from rollups, the rest from cost rows."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from db.report_dimensions import (
    DAY_MS,
    DAYS,
    HOUR_MS,
    IN_DAYS,
    IN_ROLLUPS,
    ROLLUPS,
    ROWS,
    Source,
)
from db.report_filters import Filters
from db.report_periods import Periods

HOURS_MAX = 8_000  # beyond it all hours are read


class Part(NamedTuple):
    source: Source
    since_ms: int | None
    until_ms: int | None
    # These only: they have been counted with their days, or hours, in a period that is not theirs.
    hours: Sequence[int] = ()
    edges: Sequence[tuple[int, int]] = ()  # [low, high) in ms, of the period after that one


def parts_of(
    dimensions: Collection[str], filters: Filters, periods: Periods | None, folded_until: int
) -> list[Part]:
    """`folded_until` is the first day that has no daily rollups yet."""
    since, until = filters.since_ms, filters.until_ms
    if not IN_ROLLUPS.issuperset(dimensions):
        return [Part(ROWS, since, until)]
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
    if edges:
        parts.append(Part(ROWS, edges[0][0], edges[-1][1], edges=edges))
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
