"""Periods of time zones, and which of them a call is in by its own local time."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from db.report_periods import Periods
from proxy.windows import current_window

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Santiago",  # skips midnight in spring
    "Australia/Lord_Howe",  # changes by half an hour
    "Asia/Kathmandu",  # +05:45
)


def between(granularity, zone, since_ms, until_ms):
    def window(kind, at_s):
        return current_window(kind, zone, 0, 1, at_s)

    return Periods.between(granularity, zone, since_ms / 1000, until_ms / 1000, window)


def label_of(granularity, zone, at_ms):
    at = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(ZoneInfo(zone))
    if granularity == "hour":
        aligned = at.astimezone(UTC) - timedelta(minutes=at.minute, seconds=at.second)
        return aligned.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes")
    formats = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}
    return at.strftime(formats[granularity])
