"""Prices that applied until a day, or will from one: the parts of an entry that are dated.

`dated_pricing` of an entry is a list of parts, each with all the token prices of its time and
either `until` (the first day they were no longer in force) or `from` (the first day they will be).
Days are ISO dates in UTC. The entry's own prices are those of the time between.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

DATED = "dated_pricing"
_FIRST_DAY, _LAST_DAY = "0001-01-01", "9999-12-31"


class DatedPart(NamedTuple):
    """The entry as it was or will be from `start` (inclusive) to `end` (exclusive)."""

    start: str
    end: str
    entry: dict[str, Any]
    upcoming: bool


def parse_dated(entry: Mapping[str, Any]) -> tuple[DatedPart, ...]:
    """The parts in order of time. Raises ValueError, KeyError or TypeError for a malformed one."""
    parts = entry.get(DATED) or ()
    past = sorted((p for p in parts if "until" in p), key=lambda part: str(part["until"]))
    coming = sorted((p for p in parts if "until" not in p), key=lambda part: str(part["from"]))
    found, start = [], _FIRST_DAY
    for part in past:
        end = _day(part["until"])
        found.append(DatedPart(start, end, _entry_of(entry, part), False))
        start = end
    for number, part in enumerate(coming, start=1):
        end = _day(coming[number]["from"]) if number < len(coming) else _LAST_DAY
        found.append(DatedPart(_day(part["from"]), end, _entry_of(entry, part), True))
    return tuple(found)


def day_of(at_s: float) -> str:
    """The UTC day of a unix time, as an ISO date."""
    return datetime.fromtimestamp(at_s, UTC).date().isoformat()


def is_dated_price(key: str) -> bool:
    """Whether a part replaces this key of its entry, by its own or by none: prices of tokens.
    Those of tools stay unless the part has others."""
    token_price = "cost" in key and "_token" in key
    return token_price or key in ("off_peak_pricing", "tiered_pricing", DATED)


def _entry_of(entry: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in entry.items() if not is_dated_price(key)}
    return kept | {key: value for key, value in part.items() if key not in ("until", "from")}


def _day(text: str) -> str:
    return date.fromisoformat(text).isoformat()
