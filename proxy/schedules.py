"""When something is to be sent: `daily 08:00`, `weekly monday 08:00`, `monthly 1 08:00`. Pure.

A time that a clock change skips is the instant an hour later; one that happens twice, the first.
"""

import re
from datetime import datetime, time
from typing import NamedTuple
from zoneinfo import ZoneInfo

from proxy.config import WEEKDAYS
from proxy.windows import current_window

_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_PERIODS = {"daily": "day", "weekly": "week", "monthly": "month"}


class Schedule(NamedTuple):
    period: str  # day | week | month
    week_start: int  # 0 is Monday
    month_day: int  # beyond a month's end: its last day
    at: time


def parse_schedule(text: str) -> Schedule:
    """Raises ValueError, saying what is expected."""
    words = text.lower().split() or [""]
    period, found = _PERIODS.get(words[0]), _TIME.fullmatch(words[-1])
    day = " ".join(words[1:-1])
    fits = {
        "day": not day,
        "week": day in WEEKDAYS,
        "month": day.isdecimal() and 1 <= int(day) <= 31,
    }
    if period is None or found is None or not fits[period]:
        raise ValueError("expected `daily 08:00`, `weekly monday 08:00` or `monthly 1 08:00`")
    return Schedule(
        period,
        WEEKDAYS.index(day) if period == "week" else 0,
        int(day) if period == "month" else 1,
        time(int(found[1]), int(found[2])),
    )


def last_due(schedule: Schedule, timezone: str, now_s: float) -> int:
    """The latest time of the schedule that is not after now, unix seconds."""
    before: float = now_s
    while True:
        start, _ = current_window(
            schedule.period, timezone, schedule.week_start, schedule.month_day, before
        )
        zone = ZoneInfo(timezone)
        day = datetime.fromtimestamp(start, zone).date()
        at = int(datetime.combine(day, schedule.at, zone).timestamp())
        if at <= now_s:
            return at
        before = start - 1


def last_whole(period: str, timezone: str, at_s: float) -> tuple[int, int]:
    """The period of that kind that ended last, [start, end) in unix seconds."""
    end, _ = current_window(period, timezone, 0, 1, at_s)
    return current_window(period, timezone, 0, 1, end - 1)[0], end
