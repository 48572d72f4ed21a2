"""Prices that are lower at certain hours: which hours those are, and which prices.

`off_peak_pricing` of an entry holds token prices and when they apply: `hours_utc` ("HH:MM-HH:MM",
or a list of them) on every day, and `windows`, each with `hours_utc` and the `weekdays` (1 Monday
to 7 Sunday) it applies on. Hours are UTC, the start inclusive and the end exclusive; equal ones
are the whole day. Weekdays are those of `weekday_timezone` (UTC).
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

_HOURS = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")
_EVERY_DAY = frozenset(range(1, 8))
_PRICE = re.compile(r"(?:input|output|cache)_\w*cost\w*")


class _Window(NamedTuple):
    start: int  # minutes of the UTC day
    end: int
    weekdays: frozenset[int]

    def open_at(self, minute: int, weekday: int) -> bool:
        if weekday not in self.weekdays:
            return False
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


class OffPeak(NamedTuple):
    """When an entry's off-peak prices apply."""

    windows: tuple[_Window, ...]
    zone: ZoneInfo

    def open_at(self, at_s: float) -> bool:
        """Whether a call made at this unix time is billed off-peak."""
        utc = datetime.fromtimestamp(at_s, UTC)
        minute = utc.hour * 60 + utc.minute
        weekday = utc.astimezone(self.zone).isoweekday()
        return any(window.open_at(minute, weekday) for window in self.windows)


def parse_off_peak(block: Mapping[str, Any]) -> OffPeak:
    """Raises ValueError for hours that are none, KeyError or OSError for an unknown zone."""
    windows = list(_parse_hours(block.get("hours_utc", ()), _EVERY_DAY))
    for rule in block.get("windows", ()):
        weekdays = frozenset(int(day) for day in rule.get("weekdays", _EVERY_DAY))
        windows += _parse_hours(rule["hours_utc"], weekdays)
    return OffPeak(tuple(windows), ZoneInfo(block.get("weekday_timezone", "UTC")))


def off_peak_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry as it is off-peak: its off-peak prices replace the standard ones of every context
    size and service tier; prices without an off-peak one stay."""
    prices = {k: v for k, v in entry["off_peak_pricing"].items() if _PRICE.fullmatch(k)}
    kept = {
        key: value
        for key, value in entry.items()
        if key not in ("tiered_pricing", "off_peak_pricing")
        and not any(
            re.fullmatch(rf"{base}(?:_above_\d+k?_tokens)?(?:_[a-z]+)?", key) for base in prices
        )
    }
    return kept | prices


def _parse_hours(hours: str | Iterable[str], weekdays: frozenset[int]) -> Iterable[_Window]:
    for text in (hours,) if isinstance(hours, str) else hours:
        found = _HOURS.fullmatch(text)
        if found is None:
            raise ValueError(f"off-peak hours {text!r}: expected HH:MM-HH:MM")
        start_h, start_m, end_h, end_m = map(int, found.groups())
        yield _Window(start_h * 60 + start_m, end_h * 60 + end_m, weekdays)
