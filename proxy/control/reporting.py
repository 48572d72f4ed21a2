"""What a report answers: sums by group, per period, beside the previous period, and trends.

The command and the admin API ask the same questions here, so their figures are the same.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from db.errors import ReportError
from db.report_dimensions import TIMES, check_dimensions
from db.report_filters import Filters, find_zone, parse_time_range
from db.report_periods import Period, Periods
from db.report_sums import (
    ALL_SUMS,
    COST,
    GROUP_FIELDS,
    NOTHING,
    Sums,
    group_fields,
    grouped,
    sums,
    time_span,
)
from db.trend import trend
from pricing.money import usd_from_nano
from proxy.control.report_ranges import previous_range
from proxy.windows import current_window

COMPARED = ("previous_usd", "change_usd", "change_percent")
PERIOD_FIELDS = ("period", "period_start", "period_end", "partial")
TREND_FIELDS = ("periods", "cost_usd", "mean_usd", "slope_usd", "direction")


@dataclass(frozen=True, slots=True)
class Question:
    """A report as it is asked for; times as `parse_time_range` takes them."""

    by: Sequence[str]  # dimensions; none: one total
    since: str | None = None
    until: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    granularity: str = ""  # a row per group and period of it; "": per group
    timezone: str = "UTC"
    compare: bool = False
    trend: bool = False


class Answer(NamedTuple):
    columns: list[str]
    rows: list[dict[str, Any]]
    previous: tuple[int, int] | None = None  # in unix ms: what the rows are compared with


async def answer(connection: AsyncConnection, question: Question, now_ms: int) -> Answer:
    """Raises ReportError, naming the part that makes no sense."""
    _check(question)
    if question.granularity:
        return await _per_period(connection, question, now_ms)
    times = parse_time_range(question.since, question.until, now_ms, question.timezone)
    filters = Filters(*times, question.where)
    if question.compare:
        return await _compared(connection, question, filters, now_ms)
    rows = await grouped(connection, question.by, filters)
    return Answer([*question.by, *GROUP_FIELDS], rows)


def _check(question: Question) -> None:
    check_dimensions(question.by)
    find_zone(question.timezone)
    times = [name for name in question.by if name in TIMES]
    if times and (question.granularity or question.timezone != "UTC"):
        raise ReportError(f"{times[0]} is of UTC: for a time zone's, give a granularity instead")
    if question.trend and not question.granularity:
        raise ReportError("a trend needs a granularity: hour, day, week or month")
    if question.trend and question.compare:
        raise ReportError("ask for a trend or for a comparison, not for both")


# --- beside the previous period ------------------------------------------------------------


async def _compared(
    connection: AsyncConnection, question: Question, filters: Filters, now_ms: int
) -> Answer:
    if filters.since_ms is None:
        raise ReportError("a comparison needs to know since when")
    until_ms = filters.until_ms or now_ms
    if filters.since_ms >= until_ms:
        raise ReportError("a comparison needs a time that has begun")
    before = previous_range(filters.since_ms, until_ms, question.timezone)
    now = await sums(connection, question.by, Filters(filters.since_ms, until_ms, question.where))
    then = await sums(connection, question.by, Filters(*before, question.where))
    rows = [
        {
            **dict(zip(question.by, key, strict=True)),
            **group_fields(now.get(key, NOTHING)),
            **change(_cost(now, key), _cost(then, key)),
        }
        for key in sorted(now.keys() | then.keys(), key=lambda key: _dearest(now, key))
    ]
    return Answer([*question.by, *GROUP_FIELDS, *COMPARED], rows, before)


def _dearest(groups: Sums, key: tuple[Any, ...]) -> Any:
    return -_cost(groups, key), _text(key)


def _text(key: Sequence[Any]) -> tuple[str, ...]:
    return tuple(part or "" for part in key)


def _cost(groups: Sums, key: tuple[Any, ...]) -> int:
    return groups.get(key, NOTHING)[COST]


def change(now: int, before: int) -> dict[str, Any]:
    """The percentage to a tenth; None of nothing."""
    percent = None
    if before > 0:
        tenths = round(Fraction(1000 * (now - before), before))
        percent = f"{'-' if tenths < 0 else ''}{abs(tenths) // 10}.{abs(tenths) % 10}"
    values = (usd_from_nano(before), usd_from_nano(now - before), percent)
    return dict(zip(COMPARED, values, strict=True))


# --- per period ----------------------------------------------------------------------------


class PeriodSums(NamedTuple):
    """Sums per period and group. Periods beyond `known`, [since, until) in unix ms, are partial."""

    periods: Sequence[Period]
    sums: Sums
    known: tuple[int, int]


async def period_sums(
    connection: AsyncConnection,
    question: Question,
    now_ms: int,
    only: Collection[int] = ALL_SUMS,
) -> PeriodSums:
    """In the question's granularity; with `compare` from one period earlier; `only` as of `sums`.
    Raises ReportError."""
    check_dimensions(question.by)
    times = parse_time_range(question.since, question.until, now_ms, question.timezone)
    filters = Filters(*times, question.where)
    since_ms, until_ms = _bounds(filters, await time_span(connection), now_ms)
    if since_ms >= until_ms:
        return PeriodSums((), {}, (since_ms, since_ms))

    def window(kind: str, at_s: float) -> tuple[int, int]:
        return current_window(kind, question.timezone, 0, 1, at_s)

    if question.compare:  # the first period, too, has one before it
        first = window(question.granularity, since_ms / 1000)[0]
        since_ms = window(question.granularity, first - 1)[0] * 1000
    periods = Periods.between(
        question.granularity, question.timezone, since_ms / 1000, until_ms / 1000, window
    )
    if filters.since_ms is None:  # there was nothing before
        since_ms = periods.periods[0].start_s * 1000
    of_time = Filters(since_ms, until_ms, question.where)
    found = await sums(connection, question.by, of_time, periods, only)
    return PeriodSums(periods.periods, found, (since_ms, min(until_ms, now_ms)))


async def _per_period(connection: AsyncConnection, question: Question, now_ms: int) -> Answer:
    table = _Table(question, *await period_sums(connection, question, now_ms))
    if question.trend:
        return Answer([*question.by, *TREND_FIELDS], table.trends())
    compared = COMPARED if question.compare else ()
    columns = [*PERIOD_FIELDS, *question.by, *GROUP_FIELDS, *compared]
    return Answer(columns, table.rows())


def _bounds(filters: Filters, span: tuple[int, int] | None, now_ms: int) -> tuple[int, int]:
    """Where the question leaves the time open: from the first call on, until now."""
    first, last = span or (now_ms, now_ms)
    since_ms = first if filters.since_ms is None else filters.since_ms
    return since_ms, max(last, now_ms) if filters.until_ms is None else filters.until_ms


@dataclass(frozen=True, slots=True)
class _Table:
    question: Question
    periods: Sequence[Period]
    sums: Sums
    known: tuple[int, int]

    def rows(self) -> list[dict[str, Any]]:
        keys = set(self.sums)
        if self.question.compare:  # what has ended falls to zero
            following = {(key[0] + 1, *key[1:]) for key in keys}
            keys = {key for key in keys | following if 0 < key[0] < len(self.periods)}
        return [self._row(key) for key in sorted(keys, key=lambda key: (key[0], _text(key[1:])))]

    def _row(self, key: tuple[Any, ...]) -> dict[str, Any]:
        number, *group = key
        period = self.periods[number]
        compared = {}
        if self.question.compare:
            compared = change(_cost(self.sums, key), _cost(self.sums, (number - 1, *group)))
        return {
            "period": period.label,
            "period_start": iso(period.start_s),
            "period_end": iso(period.end_s),
            "partial": self._is_partial(period),
            **dict(zip(self.question.by, group, strict=True)),
            **group_fields(self.sums.get(key, NOTHING)),
            **compared,
        }

    def _is_partial(self, period: Period) -> bool:
        since_ms, until_ms = self.known
        return period.start_s * 1000 < since_ms or period.end_s * 1000 > until_ms

    def trends(self) -> list[dict[str, Any]]:
        """Over whole periods, those without calls included; the steepest first."""
        whole = [n for n, period in enumerate(self.periods) if not self._is_partial(period)]
        groups = {key[1:] for key in self.sums}
        found = []
        for group in groups:
            series = [_cost(self.sums, (number, *group)) for number in whole]
            found.append((group, sum(series), trend(series)))
        found.sort(key=lambda each: (-abs(each[2].slope), _text(each[0])))
        return [
            {
                **dict(zip(self.question.by, group, strict=True)),
                "periods": len(whole),
                "cost_usd": usd_from_nano(total),
                "mean_usd": usd_from_nano(line.mean),
                "slope_usd": usd_from_nano(line.slope),
                "direction": line.direction,
            }
            for group, total, line in found
        ]


def iso(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
