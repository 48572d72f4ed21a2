"""Sums by any dimension, and what is to come."""

import asyncio
import io
from dataclasses import replace
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from proxy.control.api.backend import Backend
from proxy.control.api.budgets import statuses_for
from proxy.control.api.table import Caller, Endpoint, Request, Text, Where
from proxy.control.csv_cells import csv_text
from proxy.control.exhausting import exhaustion_row
from proxy.control.forecasting import HISTORY_DAYS, HISTORY_DAYS_MAX, Outlook, period_end
from proxy.control.identity import Role
from proxy.control.parquet import write_parquet
from proxy.control.report_focus import focus
from proxy.control.reporting import Answer, Question, answer
from proxy.control.versions import CONFIGURED
from proxy.control.what_if import WhatIf, rows_of

TOTAL = "total"  # of everything: no dimension
DEFAULT_BY = "team"
FORMATS = {
    "csv": ("text/csv", "csv"),
    "focus": ("text/csv", "csv"),
    "parquet": ("application/vnd.apache.parquet", "parquet"),
}
Row = dict[str, Any]
Dimensions = Annotated[
    str, Meta(max_length=512, description="Separated by commas, or `total`; as of `report --by`.")
]
Time = Annotated[
    str, Meta(max_length=64, description="Date, timestamp, or a span back from now such as 7d.")
]
HistoryDays = Annotated[int, Meta(ge=1, le=HISTORY_DAYS_MAX)]


class Report(Where, frozen=True, kw_only=True):
    by: Dimensions = DEFAULT_BY
    since: Time | UnsetType = UNSET
    until: Time | UnsetType = UNSET
    granularity: Literal["", "hour", "day", "week", "month"] = ""
    timezone: Text = "UTC"
    compare: bool = False
    trend: bool = False
    format: Literal["json", "csv", "focus", "parquet"] = "json"


class WhatIfRequest(Where, frozen=True, kw_only=True):
    at_model: Annotated[
        tuple[Text, ...], Meta(min_length=1, max_length=20, description="PROVIDER/MODEL")
    ]
    by: Dimensions = "model"
    since: Time | UnsetType = UNSET
    until: Time | UnsetType = UNSET
    timezone: Text = "UTC"
    version: Annotated[str, Meta(max_length=96, description="Price version.")] = CONFIGURED


class Exhaustion(Request, frozen=True, kw_only=True):
    history_days: HistoryDays = HISTORY_DAYS


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


async def report(backend: Backend, caller: Caller, asked: Report) -> list[Row] | Response:
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
    ask = answer
    if asked.format == "focus":
        ask, question = focus, replace(question, by=_own(asked.by))
    found = await backend.read(lambda connection: ask(connection, question, now_ms))
    if asked.format == "json":
        return found.rows
    return await asyncio.to_thread(_exported, found, asked.format)


def _own(by: str) -> list[str]:
    """FOCUS has its own dimensions: the default is none beside them."""
    return [] if by == DEFAULT_BY else dimensions(by)


def _exported(found: Answer, form: str) -> Response:
    media, ending = FORMATS[form]
    if form == "parquet":
        file = io.BytesIO()
        write_parquet(found.rows, found.columns, file)
        content = file.getvalue()
    else:
        content = csv_text(found.rows, found.columns).encode()
    headers = {"content-disposition": f'attachment; filename="report.{ending}"'}
    return Response(content, 200, headers, media)


async def what_if(backend: Backend, caller: Caller, asked: WhatIfRequest) -> list[Row]:
    wanted = WhatIf(
        models=asked.at_model,
        by=dimensions(asked.by),
        since=given(asked.since),
        until=given(asked.until),
        timezone=asked.timezone,
        where=caller.identity.narrow(asked.conditions()),
        version=asked.version,
    )
    pricing, now_ms = backend.control.config.pricing, backend.now_ms
    return await backend.read_engine(lambda engine: rows_of(engine, pricing, wanted, now_ms))


async def exhaustion(backend: Backend, caller: Caller, asked: Exhaustion) -> list[Row]:
    now_ms = backend.now_ms

    async def ask(connection: AsyncConnection) -> list[Row]:
        return [
            await exhaustion_row(connection, status, now_ms, asked.history_days)
            for status in await statuses_for(backend, caller, connection)
        ]

    return await backend.read(ask)


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
    Endpoint(
        "GET", "/report", report, Report, list[Row], Role.VIEWER,
        "Sums of calls, by any dimension, per period, compared, with trends.",
        also=("text/csv", "application/vnd.apache.parquet"),
    ),
    Endpoint(
        "GET", "/report/what-if", what_if, WhatIfRequest, list[Row], Role.VIEWER,
        "The same calls at other models' prices.",
    ),
    Endpoint(
        "GET", "/report/exhaustion", exhaustion, Exhaustion, list[Row], Role.VIEWER,
        "When budgets are expected to be spent.",
    ),
    Endpoint(
        "GET", "/forecast", forecast, Forecast, list[Row], Role.VIEWER,
        "What will have been spent at the period's end.",
    ),
)  # fmt: skip
