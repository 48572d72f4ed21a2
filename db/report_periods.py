"""Periods of a report: hours, days, weeks or months of a time zone, as SQL counts them.

The boundaries come from whoever asks (`Window`), so that reports and budgets have the same days.
SQL numbers them; runs of them with one length are one branch of a CASE, so that a year in a zone
with summer time has a handful. Where months make too many, they are days added up.

A day of UTC, which daily rollups are, counts for the period that its noon is in, and an hour for
that in which it begins. What of them is in another one is to be moved there: hours of days,
`strays`, and what of hours is beyond the begin of a period, `edges`.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Integer, case, literal_column

from db.errors import ReportError
from db.report_dimensions import DAY_MS, HOUR_MS, OF_DAYS, Source

GRANULARITIES = ("hour", "day", "week", "month")
PERIODS_MAX = 10_000  # 416 days of hours, 27 years of days
RUNS_MAX = 30  # branches of a CASE
SECOND_MS = 1000
HOUR_S, DAY_S = HOUR_MS // SECOND_MS, DAY_MS // SECOND_MS
HOURS, NOON_S = 24, 12 * HOUR_S

# The period of a kind at an instant, as [start, end) in unix seconds.
Window = Callable[[str, float], tuple[int, int]]


class Period(NamedTuple):
    """[start, end) in unix seconds, and its name in the report's zone."""

    start_s: int
    end_s: int
    label: str


class _Run(NamedTuple):
    """Periods of one length, the first of which has a number."""

    start_s: int
    end_s: int
    length_s: int
    number: int


@dataclass(frozen=True, slots=True)
class Periods:
    """Consecutive periods, numbered from 0."""

    periods: tuple[Period, ...]
    _fine: tuple[int, ...]  # where those that SQL numbers start
    _runs: tuple[_Run, ...]

    @classmethod
    def between(
        cls, granularity: str, timezone: str, since_s: float, until_s: float, window: Window
    ) -> "Periods":
        """Those that [since, until) touches. Raises ReportError where these are too many."""
        if granularity not in GRANULARITIES:
            known = ", ".join(GRANULARITIES)
            raise ReportError(f"no such granularity: {granularity!r}; possible: {known}")
        zone = ZoneInfo(timezone)
        bounds = _bounds(granularity, since_s, until_s, window)
        fine, runs = bounds, _runs(bounds)
        if len(runs) > RUNS_MAX:
            fine = _bounds("day", bounds[0], bounds[-1], window)
            runs = _runs(fine)
        periods = tuple(
            Period(start, end, _label(granularity, zone, start)) for start, end in pairwise(bounds)
        )
        return cls(periods, tuple(fine[:-1]), tuple(runs))

    @property
    def are_hours(self) -> bool:
        return any(period.end_s - period.start_s < 2 * HOUR_S for period in self.periods)

    def expression(self, source: Source) -> ColumnElement[Any]:
        """A number of what a row is in, for `period_of`."""
        time, unit = source.time, source.unit_ms
        if unit > SECOND_MS:
            time, unit = time * _integer(unit // SECOND_MS), SECOND_MS
        if source in OF_DAYS:
            time += _integer(NOON_S)

        def number(run: _Run) -> ColumnElement[Any]:
            start, length = (value * 1000 // unit for value in (run.start_s, run.length_s))
            first = literal_column(str(run.number), Integer)
            return first + (time - _integer(start)) // _integer(length)

        *others, last = self._runs
        branches = [(time < _integer(run.end_s * 1000 // unit), number(run)) for run in others]
        return case(*branches, else_=number(last)) if branches else number(last)

    def period_of(self, number: int) -> int:
        """Which period such a number means."""
        # The last period may end before the noon of its last day.
        return self._at(self._fine[min(number, len(self._fine) - 1)])

    def of_day(self, day: int) -> int:
        """The period of a day (UTC)."""
        return self._at(day * DAY_S + NOON_S)

    def strays(self, first: int | None, last: int) -> list[int]:
        """The hours of days (UTC) of [first, last) that are in another period than the day."""
        days = {
            period.start_s // DAY_S for period in self.periods[1:] if period.start_s % DAY_S != 0
        }
        return [
            hour
            for day in sorted(days)
            if (first is None or first <= day) and day < last
            for hour in range(day * HOURS, (day + 1) * HOURS)
            if self._at(hour * HOUR_S) != self.of_day(day)
        ]

    def edges(self, first_ms: int | None, last_ms: int | None) -> list[tuple[int, int]]:
        """Of hours within [first, last) that a period begins in: from there to their end, in ms."""
        cut = (period.start_s for period in self.periods[1:] if period.start_s % HOUR_S != 0)
        found = [(at_s * SECOND_MS, -(-at_s // HOUR_S) * HOUR_MS) for at_s in cut]
        return [
            (low, high)
            for low, high in found
            if (first_ms is None or first_ms < low) and (last_ms is None or high <= last_ms)
        ]

    def _at(self, at_s: int) -> int:
        """The first period is that of all time before, too."""
        return max(bisect_right(self.periods, at_s, key=lambda period: period.start_s) - 1, 0)


def _integer(value: int) -> ColumnElement[int]:
    """Written out: as a bound parameter it makes GROUP BY differ from SELECT on PostgreSQL."""
    return literal_column(str(value), Integer)


def _bounds(granularity: str, since_s: float, until_s: float, window: Window) -> list[int]:
    start, end = window(granularity, since_s)
    bounds = [start, end]
    while end < until_s:
        if len(bounds) > PERIODS_MAX:
            raise ReportError(f"more than {PERIODS_MAX} periods: ask for less time or coarser ones")
        following = window(granularity, end)[1]
        assert following > end
        end = following
        bounds.append(end)
    return bounds


def _runs(bounds: Sequence[int]) -> list[_Run]:
    runs: list[_Run] = []
    for number, (start, end) in enumerate(pairwise(bounds)):
        last = runs[-1] if runs else None
        if last is not None and last.length_s == end - start:
            runs[-1] = last._replace(end_s=end)
        else:
            runs.append(_Run(start, end, end - start, number))
    return runs


def _label(granularity: str, zone: ZoneInfo, start_s: int) -> str:
    at = datetime.fromtimestamp(start_s, UTC).astimezone(zone)
    if granularity == "hour":  # with the offset: autumn has one of them twice
        return at.isoformat(timespec="minutes")
    if granularity == "week":
        year, week, _ = at.isocalendar()
        return f"{year}-W{week:02d}"
    return f"{at:%Y-%m-%d}" if granularity == "day" else f"{at:%Y-%m}"
