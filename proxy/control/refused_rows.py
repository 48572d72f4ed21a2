"""Counts of refused calls as rows, in the words of commands, the API and the dashboard."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from db.refusals import HOUR_MS, ROWS_MAX, RefusedSum, refusal_sums
from db.report_filters import parse_time_range
from proxy.control.figures import moment

SINCE = "24h"


async def refused_rows(
    connection: AsyncConnection,
    by: Sequence[str],
    times: tuple[str | None, str | None],
    where: Mapping[str, str],
    now_ms: int,
) -> list[dict[str, Any]]:
    """By whole hours that the time touches, the most frequent first. Raises ReportError."""
    since_ms, until_ms = parse_time_range(times[0] or SINCE, times[1], now_ms)
    assert since_ms is not None
    until_ms = now_ms + 1 if until_ms is None else until_ms
    found = await refusal_sums(connection, by, since_ms, until_ms, where, ROWS_MAX)
    return [_row(by, each) for each in found]


def columns_of(by: Sequence[str]) -> list[str]:
    return [*by, "calls", "last_at"]


def _row(by: Sequence[str], found: RefusedSum) -> dict[str, Any]:
    named = dict(zip(by, found.group, strict=True))
    if "hour" in named:
        named["hour"] = moment(named["hour"] * HOUR_MS)
    return {**named, "calls": found.calls, "last_at": moment(found.last_at_ms)}
