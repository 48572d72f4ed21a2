"""Periods of a report: hours, days, weeks or months of a time zone, as SQL counts them.

The boundaries come from whoever asks (`Window`), so that reports and budgets have the same days.
SQL numbers the hours or days; runs of them with one length are one branch of a CASE, so that a
year in a zone with summer time has a handful. Weeks and months are days added up.
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
from db.report_dimensions import HOUR_MS, Source

GRANULARITIES = ("hour", "day", "week", "month")
PERIODS_MAX = 10_000  # 416 days of hours, 27 years of days
HOUR_S = HOUR_MS // 1000

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
    _fine: tuple[int, ...]  # where the hours or days that SQL numbers start
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
        fine = bounds
        if granularity not in ("hour", "day"):
            fine = _bounds("day", bounds[0], bounds[-1], window)
        periods = tuple(
            Period(start, end, _label(granularity, zone, start)) for start, end in pairwise(bounds)
        )
        return cls(periods, tuple(fine[:-1]), tuple(_runs(fine)))

    @property
    def in_whole_hours(self) -> bool:
        """Whether hours of UTC, which rollups are, lie in one period each."""
        return all(run.start_s % HOUR_S == run.length_s % HOUR_S == 0 for run in self._runs)

    def expression(self, source: Source) -> ColumnElement[Any]:
        """The number of a row's hour or day, for `period_of`."""
        unit = source.unit_ms

        def number(run: _Run) -> ColumnElement[Any]:
            start, length = (value * 1000 // unit for value in (run.start_s, run.length_s))
            first = literal_column(str(run.number), Integer)
            return first + (source.time - _integer(start)) // _integer(length)

        *others, last = self._runs
        branches = [
            (source.time < _integer(run.end_s * 1000 // unit), number(run)) for run in others
        ]
        return case(*branches, else_=number(last)) if branches else number(last)

    def period_of(self, number: int) -> int:
        """Which period an hour or day belongs to."""
        start = self._fine[number]
        return bisect_right(self.periods, start, key=lambda period: period.start_s) - 1


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
