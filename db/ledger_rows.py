"""From journal records to cost rows and rollups. Pure; the inner loop of the drain."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from db.journal_records import (
    FLAG_UNBACKED,
    FLAG_WOULD_REFUSE,
    NO_REQUEST,
    Amounts,
    Hold,
    Settle,
    Window,
)
from db.models import CostAnalytics, CostDay, UsageCost
from db.pauses import in_pieces
from pricing.usage import Usage

MS_PER_HOUR = 3_600_000
NO_USAGE: dict[str, Any] = {}

COLUMNS = (
    "call_id", "at_ms", "key_id", "organization_id", "team_id", "project_id", "user_id",
    "charge_set_id", "adjusts", "provider", "model", "route", "stream", "http_status", "ending",
    "usage_source", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens",
    "reasoning_tokens", "usage", "price_id", "cost_nano", "cost_items", "hold_nano",
    "charged_tokens", "charged_requests", "duration_ms", "first_byte_ms", "client_retry", "flags",
    "error", "response_id", "tags", "provider_cost_nano", "drift_nano",
)  # fmt: skip
assert set(COLUMNS) == set(UsageCost.__table__.columns.keys())
JSON_COLUMNS = frozenset(("usage", "cost_items", "tags"))  # already encoded in a row
FLAGS = COLUMNS.index("flags")

Row = tuple[Any, ...]
encode_json = msgspec.json.Encoder().encode


def settled_row(
    hold: Hold,
    settle: Settle,
    charge_set_id: int | None,
    user_id: int | None,
    price_id: int | None,
) -> Row:
    usage = settle.usage
    get = usage.get if usage else NO_USAGE.get
    items, tags = settle.cost_items, hold.tags
    figure: Any = get("provider_cost_nano")
    return (
        hold.call_id,
        hold.at_ms,
        hold.key_id,
        hold.organization_id,
        hold.team_id,
        hold.project_id or None,
        user_id,
        charge_set_id,
        None,
        hold.provider,
        hold.model[:256],
        hold.route,
        hold.stream,
        settle.http_status,
        settle.ending,
        settle.usage_source,
        get("input_tokens", 0),
        get("cache_read_tokens", 0),
        get("cache_write_tokens", 0),
        get("output_tokens", 0),
        get("reasoning_tokens", 0),
        encode_json(usage).decode() if usage is not None else None,
        price_id,
        settle.cost_nano,
        encode_json(items).decode() if items else None,
        hold.ceiling_nano,
        total_tokens(usage) if usage else 0,
        int(settle.ending not in NO_REQUEST),
        settle.duration_ms,
        settle.first_byte_ms,
        hold.client_retry,
        settle.flags if hold.backed and not hold.spared else settle.flags | flags_of(hold),
        settle.error[:64],
        settle.response_id[:128],
        encode_json(tags).decode() if tags else None,
        figure,
        None if figure is None else figure - priced_nano(settle),
    )


def flags_of(hold: Hold) -> int:
    """What its admission says of a row."""
    flags = 0 if hold.backed else FLAG_UNBACKED
    return flags | FLAG_WOULD_REFUSE if hold.spared else flags


def priced_nano(settle: Settle) -> int:
    """What our price says a call costs, whatever it is charged."""
    return settle.cost_nano if settle.priced_nano is None else settle.priced_nano


def total_tokens(usage: dict[str, Any]) -> int:
    """What budgets in tokens are charged: passes billed on top of the counts included."""
    if "passes" in usage:
        return Usage.from_dict(usage).total_tokens
    return int(usage.get("input_tokens", 0) + usage.get("output_tokens", 0))


def lost_settlement(hold: Hold, units: Sequence[str]) -> Settle:
    """The ending of a call whose worker died: the hold is charged, at the ceiling's usage.

    `units` are those of the hold's windows. What a budget is charged follows from the row (its
    cost, its tokens, one request), so that sums over rows and over windows agree.
    """
    charge = {
        "usd": hold.ceiling_nano,
        "tokens": total_tokens(hold.ceiling_usage),
        "requests": 1,
    }
    windows = [window for window, _ in hold.amounts]
    return Settle(
        call_id=hold.call_id,
        held=hold.amounts,
        charges=[(window, charge[unit]) for window, unit in zip(windows, units, strict=True)],
        ending="lost",
        http_status=0,
        usage=hold.ceiling_usage,
        usage_source="estimated",
        price_version=hold.price_version,
        cost_nano=hold.ceiling_nano,
        cost_items=[],
        model=hold.priced_model,
        response_id="",
        duration_ms=0,
        first_byte_ms=0,
    )


# --- what rows move ------------------------------------------------------------------------


class Booking:
    """A lease that charges are applied to, one after the other: each is backed by its hold, by
    what is left of the lease, or not at all (protocol section 3)."""

    __slots__ = ("granted", "spent", "unbacked")

    def __init__(self, granted: int, spent: int) -> None:
        self.granted = granted
        self.spent = spent
        self.unbacked = 0


def book(bookings: dict[Window, Booking], charges: Amounts, held: Amounts, backed: bool) -> int:
    """Charge one row to its windows. Returns what of it is unbacked."""
    total = 0
    for (window, amount), (_, hold) in zip(charges, held, strict=True):
        booking = bookings[window]
        booking.spent = spent = booking.spent + amount
        if amount <= hold and spent <= booking.granted and backed:
            continue
        unbacked = max(amount - (hold if backed else 0), spent - booking.granted, 0)
        booking.granted += unbacked
        booking.unbacked += unbacked
        total += unbacked
    return total


# --- rollups -------------------------------------------------------------------------------

ROLLUP_SUMS = (
    "calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens",
    "reasoning_tokens", "cost_nano", "adjusted_nano", "provider_cost_nano", "drift_nano",
)  # fmt: skip
ROLLUP_WHO = (
    "key_id", "organization_id", "team_id", "project_id", "user_id", "provider", "model",
)  # fmt: skip
ROLLUP_COLUMNS = ("shard", "hour", "host_id", *ROLLUP_WHO, *ROLLUP_SUMS)
DAY_COLUMNS = ("shard", "day", *ROLLUP_WHO, *ROLLUP_SUMS)
HOURS_PER_DAY = 24
assert (COLUMNS[8], COLUMNS[23], COLUMNS[35:]) == (
    "adjusts", "cost_nano", ("provider_cost_nano", "drift_nano"),
)  # fmt: skip
assert set(ROLLUP_COLUMNS) == set(CostAnalytics.__table__.columns.keys())
assert set(DAY_COLUMNS) == set(CostDay.__table__.columns.keys())


def rollups(rows: Iterable[Row], host_id: str, calls: int = 1) -> list[Row]:
    """Rows grouped by hour, key, project, user, provider and model."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row in in_pieces(rows):
        # row[2:7] = key, organization, team, project, user; row[9:11] = provider, model
        key = (row[1] // MS_PER_HOUR, row[2:7], row[9:11])
        sums = groups.get(key)
        if sums is None:
            sums = groups[key] = [0] * len(ROLLUP_SUMS)
        sums[0] += calls
        sums[1] += row[16]
        sums[2] += row[17]
        sums[3] += row[18]
        sums[4] += row[19]
        sums[5] += row[20]
        sums[6] += row[23]
        if row[8] is not None:  # an adjustment
            sums[7] += row[23]
        if row[36] is not None:  # drift: there is a provider's own figure
            sums[8] += row[35] or 0
            sums[9] += row[36]
    return [
        (_shard(hour, host_id, who, what), hour, host_id, *who, *what, *sums)
        for (hour, who, what), sums in sorted(groups.items(), key=str)
    ]


def _shard(hour: int, host_id: str, who: Row, what: Row) -> str:
    key, _, _, project, user = who
    return f"{hour}:{host_id}:{key}:{project or ''}:{user or ''}:{what[0]}:{what[1]}"


def day_rollups(hourly: Iterable[Row], until_day: int) -> list[Row]:
    """Of hourly rollups of days before `until_day`: these, by day, of whatever host."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row in hourly:
        day = row[1] // HOURS_PER_DAY
        if day < until_day:
            sums = groups.setdefault((day, row[3:10]), [0] * len(ROLLUP_SUMS))
            for n, value in enumerate(row[10:]):
                sums[n] += value
    return [
        (_day_shard(day, who), day, *who, *sums)
        for (day, who), sums in sorted(groups.items(), key=str)
    ]


def _day_shard(day: int, who: Row) -> str:
    key, _, _, project, user, provider, model = who
    return f"{day}:{key}:{project or ''}:{user or ''}:{provider}:{model}"
