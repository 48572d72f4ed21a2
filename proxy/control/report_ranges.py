"""Which time came before: what a report is compared with."""

from proxy.windows import current_window

STEPS_MAX = 1_000  # periods back


def previous_range(since_ms: int, until_ms: int, timezone: str) -> tuple[int, int]:
    """As many months before, where the time is whole months of the zone; else as many weeks or
    days; else as much elapsed time."""
    for period in ("month", "week", "day"):
        count = _whole(period, since_ms, until_ms, timezone)
        if count:
            start_s = since_ms // 1000
            for _ in range(count):
                start_s = current_window(period, timezone, 0, 1, start_s - 1)[0]
            return start_s * 1000, since_ms
    return since_ms - (until_ms - since_ms), since_ms


def _whole(period: str, since_ms: int, until_ms: int, timezone: str) -> int:
    """How many of these periods the time is; 0 if it is not whole ones."""
    if since_ms % 1000 or until_ms % 1000:
        return 0
    start_s, end_s = current_window(period, timezone, 0, 1, since_ms // 1000)
    if start_s * 1000 != since_ms:
        return 0
    count = 1
    while end_s * 1000 < until_ms and count < STEPS_MAX:
        end_s = current_window(period, timezone, 0, 1, end_s)[1]
        count += 1
    return count if end_s * 1000 == until_ms else 0
