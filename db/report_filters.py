"""What a report is asked for: which time, and whose calls."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from db.errors import ReportError

SPAN_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_SPAN = re.compile(r"(\d{1,6})([mhdw])")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class Within(dict[str, str]):
    """Conditions of somebody who sees a part of everything: a name that nobody has says no more
    than one that others have, namely nothing."""


@dataclass(frozen=True, slots=True)
class Filters:
    """`where`: dimension -> value, all of which a call must have."""

    since_ms: int | None = None  # inclusive
    until_ms: int | None = None  # exclusive
    where: Mapping[str, str] = field(default_factory=dict)


def parse_time_range(
    since: str | None, until: str | None, now_ms: int, timezone: str = "UTC"
) -> tuple[int | None, int | None]:
    """[since, until) in unix milliseconds.

    A date means the whole day: since its begin, until its end. A timestamp is ISO 8601, of the time
    zone unless it says otherwise. A span ("90m", "12h", "7d", "2w") reaches back from now. Raises
    ReportError.
    """
    zone = find_zone(timezone)
    since_ms = None if since is None else _instant(since, "since", now_ms, zone)
    until_ms = None if until is None else _instant(until, "until", now_ms, zone)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise ReportError(f"--since {since} is not before --until {until}")
    return since_ms, until_ms


def find_zone(timezone: str) -> ZoneInfo:
    """Raises ReportError."""
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        example = "Europe/Berlin"
        raise ReportError(f"no such time zone: {timezone!r}; one is {example}") from None


def _instant(value: str, option: str, now_ms: int, zone: tzinfo) -> int:
    span = _SPAN.fullmatch(value)
    if span:
        return now_ms - int(span[1]) * SPAN_UNITS_MS[span[2]]
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise ReportError(
            f"--{option}: {value!r} is no date (2026-01-31), timestamp (2026-01-31T12:00:00Z) "
            "or span (90m, 12h, 7d, 2w)"
        ) from None
    try:
        if option == "until" and _DATE.fullmatch(value):
            at += timedelta(days=1)
        if at.tzinfo is None:
            at = at.replace(tzinfo=zone).astimezone(UTC)
    except OverflowError:
        raise ReportError(f"--{option}: {value!r} is no time that can be reckoned with") from None
    return round((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))
