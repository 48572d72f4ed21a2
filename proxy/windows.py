"""Periods of budgets: which window of a period an instant belongs to. Pure arithmetic.

There is no reset job: a window is computed from (period, zone, anchor, instant), and the windows
of a budget cover time without gap or overlap.

- Days and longer begin at local midnight. A midnight that a clock change skips is the instant of
  that change; one that happens twice is the first of the two. A day that a zone skipped whole
  (Apia, 2011-12-30) is a window without an instant.
- `month_day` beyond the end of a short month means its last day. Quarters and years begin on
  `month_day` of January, April, July, October, and of January.
- Hours and minutes are counted in elapsed time, aligned to the local clock: the hour that autumn
  repeats is two windows. A change that moves the clock by a part of an hour ends one early.
"""

from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

PERIODS = ("request", "minute", "hour", "day", "week", "month", "quarter", "year", "total")
FOREVER = 253_402_300_800  # 10000-01-01: where the one window of `total` ends

_ELAPSED = {"minute": 60, "hour": 3600}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_DAY = timedelta(days=1)


def current_window(
    period: str, timezone: str, week_start: int, month_day: int, now_s: float
) -> tuple[int, int]:
    """The window of `now_s` as [starts_at, ends_at), unix seconds. `week_start` 0 is Monday.

    Raises ValueError for `request` (a cap per call has no window) and for unknown periods.
    """
    now = int(now_s // 1)
    if period == "total":
        return 0, FOREVER
    zone = _zone(timezone)
    if period in _ELAPSED:
        return _elapsed_window(_ELAPSED[period], zone, now)
    if period == "day":
        return _calendar_window(_midnight, _next_day, zone, now)
    if period == "week":
        return _calendar_window(
            lambda wall: _midnight(wall) - _DAY * ((wall.weekday() - week_start) % 7),
            lambda start: start + 7 * _DAY,
            zone,
            now,
        )
    if period in _MONTHS:
        step = _MONTHS[period]
        return _calendar_window(
            lambda wall: _month_start(wall, step, month_day),
            lambda start: _add_months(start, step, month_day),
            zone,
            now,
        )
    raise ValueError(f"period {period} has no windows")


@lru_cache(256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


# --- days and longer ----------------------------------------------------------------------------


def _calendar_window(
    floor: Callable[[datetime], datetime],
    following: Callable[[datetime], datetime],
    zone: ZoneInfo,
    now: int,
) -> tuple[int, int]:
    start = floor(_wall(zone, now))
    starts_at, next_start = _instant(zone, start), following(start)
    # Past the boundary already where the clock went back across it (23:30 for the second time).
    while (ends_at := _instant(zone, next_start)) <= now:
        starts_at, next_start = ends_at, following(next_start)
    return starts_at, ends_at


def _midnight(wall: datetime) -> datetime:
    return wall.replace(hour=0, minute=0, second=0)


def _next_day(start: datetime) -> datetime:
    return start + _DAY


def _month_start(wall: datetime, step: int, month_day: int) -> datetime:
    """The latest start of a `step` months long period at or before a local time."""
    first = _on_day(wall.year, (wall.month - 1) // step * step + 1, month_day)
    return first if first <= wall else _add_months(first, -step, month_day)


def _add_months(start: datetime, months: int, month_day: int) -> datetime:
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    return _on_day(year, month + 1, month_day)


def _on_day(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, min(day, monthrange(year, month)[1]))  # noqa: DTZ001 (local)


def _wall(zone: ZoneInfo, instant: int) -> datetime:
    return datetime.fromtimestamp(instant, zone).replace(tzinfo=None, fold=0)


def _instant(zone: ZoneInfo, wall: datetime) -> int:
    """The first instant at which the local clock shows `wall` or more."""
    after = int(wall.replace(tzinfo=zone, fold=0).timestamp())
    if _wall(zone, after) == wall:
        return after
    before = int(wall.replace(tzinfo=zone, fold=1).timestamp())
    return _change(zone, before - 1, after)


# --- hours and minutes --------------------------------------------------------------------------


def _elapsed_window(size: int, zone: ZoneInfo, now: int) -> tuple[int, int]:
    shift = _offset(zone, now) % size
    start = (now + shift) // size * size - shift
    end = start + size
    if _offset(zone, start) % size != shift:
        start = _change(zone, start, now)
    if _offset(zone, end - 1) % size != shift:
        end = _change(zone, now, end - 1)
    return start, end


def _offset(zone: ZoneInfo, instant: int) -> int:
    offset = datetime.fromtimestamp(instant, UTC).astimezone(zone).utcoffset()
    assert offset is not None
    return offset // timedelta(seconds=1)


def _change(zone: ZoneInfo, before: int, after: int) -> int:
    """The first instant that has the offset of `after`; `before` has another one."""
    target = _offset(zone, after)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(zone, middle) == target:
            after = middle
        else:
            before = middle
    return after
