"""Sums by any dimension, and what is to come."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from proxy.control.api.backend import Backend
from proxy.control.api.table import Caller, Endpoint, Text, Where
from proxy.control.forecasting import HISTORY_DAYS, HISTORY_DAYS_MAX, Outlook, period_end
from proxy.control.identity import Role
from proxy.control.reporting import Question, answer

TOTAL = "total"  # of everything: no dimension
Row = dict[str, Any]
Dimensions = Annotated[
    str, Meta(max_length=512, description="Separated by commas, or `total`; as of `report --by`.")
]
Time = Annotated[
    str, Meta(max_length=64, description="Date, timestamp, or a span back from now such as 7d.")
]
HistoryDays = Annotated[int, Meta(ge=1, le=HISTORY_DAYS_MAX)]


class Report(Where, frozen=True, kw_only=True):
    by: Dimensions = "team"
    since: Time | UnsetType = UNSET
    until: Time | UnsetType = UNSET
    granularity: Literal["", "hour", "day", "week", "month"] = ""
    timezone: Text = "UTC"
    compare: bool = False
    trend: bool = False


class Forecast(Where, frozen=True, kw_only=True):
    by: Dimensions = TOTAL
    period: Literal["week", "month", "quarter", "year"] = "month"
    timezone: Text = "UTC"
    coverage: Annotated[float, Meta(ge=0.5, le=0.99)] = 0.8
    history_days: HistoryDays = HISTORY_DAYS


def dimensions(by: str) -> list[str]:
    return [name.strip() for name in by.split(",") if name.strip() not in ("", TOTAL)]


def given(text: str | UnsetType) -> str | None:
    return None if text is UNSET else text


async def report(backend: Backend, caller: Caller, asked: Report) -> list[Row]:
    question = Question(
        by=dimensions(asked.by),
        since=given(asked.since),
        until=given(asked.until),
        where=caller.identity.narrow(asked.conditions()),
        granularity=asked.granularity,
        timezone=asked.timezone,
        compare=asked.compare,
        trend=asked.trend,
    )
    now_ms = backend.now_ms
    return (await backend.read(lambda connection: answer(connection, question, now_ms))).rows


async def forecast(backend: Backend, caller: Caller, asked: Forecast) -> list[Row]:
    outlook = Outlook(
        by=dimensions(asked.by),
        where=caller.identity.narrow(asked.conditions()),
        period=asked.period,
        timezone=asked.timezone,
        history_days=asked.history_days,
        coverage=asked.coverage,
    )
    now_ms = backend.now_ms
    return await backend.read(lambda connection: period_end(connection, outlook, now_ms))


ENDPOINTS = (
    Endpoint("GET", "/report", report, Report, list[Row], Role.VIEWER, "Sums of calls."),
    Endpoint(
        "GET", "/forecast", forecast, Forecast, list[Row], Role.VIEWER,
        "What will have been spent at the period's end.",
    ),
)  # fmt: skip
