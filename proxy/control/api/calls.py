"""Single calls: listed, and one with its cost explained line by line."""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from db.errors import NotKnown
from db.report_call_pages import Place, call_page
from db.report_calls import Charge, OneCall, one_call
from db.report_filters import Filters, parse_time_range
from pricing.money import usd_from_atto, usd_from_nano
from proxy.control.api.backend import Backend
from proxy.control.api.failures import bad_cursor
from proxy.control.api.paging import page_of
from proxy.control.api.reports import Time, given
from proxy.control.api.table import PAGE, Caller, Cursor, Endpoint, Page, PageSize, Request, Where
from proxy.control.figures import figure
from proxy.control.identity import Role

_CURSOR = re.compile(r"([0-9]{1,18})-([0-9a-f]{32})\Z")


class CostItem(Struct, frozen=True):
    item: str
    count: int
    usd: str


class Call(Struct, frozen=True, kw_only=True):
    """A cost row. One that `adjusts` another holds differences."""

    request_id: str
    at: str
    provider: str
    model: str
    organization: str
    team: str
    project: str | None
    user: str | None
    key: str
    tags: dict[str, Any]
    http_status: int
    ending: str
    usage_source: str
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_usd: str
    hold_usd: str
    cost_items: list[CostItem]
    price_version: str | None
    route: str
    stream: bool
    duration_ms: int
    client_retry: int
    provider_cost_usd: str | UnsetType = UNSET
    adjusts: str | UnsetType = UNSET
    previous_price_version: str | UnsetType | None = UNSET


class CostLine(Struct, frozen=True, kw_only=True):
    """`count` times `usd_per_unit` is exactly `usd`; the sum is rounded once, to a nano-dollar."""

    item: str
    count: int
    usd_per_unit: str
    usd: str


class Charged(Struct, frozen=True, kw_only=True):
    budget_id: int
    scope: str  # "": it is deleted, or may not be seen
    window_start: str | None
    amount: str | int


class Explained(Struct, frozen=True, kw_only=True):
    call: Call
    lines: list[CostLine]
    exact_usd: str  # their sum before it is rounded
    cost_usd: str  # of the call as it was settled
    net_usd: str  # with its adjustments
    price_model: str  # the entry of the price table
    price: dict[str, Any]  # as it was
    usage: dict[str, Any]
    flags: list[str]
    first_byte_ms: int
    error: str
    response_id: str
    budgets: list[Charged]
    adjustments: list[Call]


class ListCalls(Where, frozen=True, kw_only=True):
    since: Time | UnsetType = UNSET
    until: Time | UnsetType = UNSET
    cursor: Cursor = ""
    limit: PageSize = PAGE


class OneCallById(Request, frozen=True, kw_only=True):
    request_id: UUID


def _call(values: dict[str, Any]) -> Call:
    items = [CostItem(**item) for item in values["cost_items"]]
    return Call(**{**values, "cost_items": items})


async def list_calls(backend: Backend, caller: Caller, asked: ListCalls) -> Page[Call]:
    times = parse_time_range(given(asked.since), given(asked.until), backend.now_ms)
    filters = Filters(*times, caller.identity.narrow(asked.conditions()))
    before = _place(asked.cursor) if asked.cursor else None
    rows = await backend.read(
        lambda connection: call_page(connection, filters, asked.limit + 1, before)
    )
    return page_of(rows, asked.limit, lambda row: _call(row[1]), lambda row: _cursor(row[0]))


def _cursor(place: Place) -> str:
    return f"{place.at_ms}-{place.call_id.hex()}"


def _place(cursor: str) -> Place:
    match = _CURSOR.match(cursor)
    if match is None:
        raise bad_cursor()
    return Place(int(match[1]), bytes.fromhex(match[2]))


async def explain_call(backend: Backend, caller: Caller, asked: OneCallById) -> Explained:
    async def ask(connection: AsyncConnection) -> OneCall | None:
        return await one_call(connection, asked.request_id.bytes)

    found = await backend.read(ask)
    seen = caller.identity.sees
    if found is None or not seen(found.call["organization"], found.call["team"]):
        raise NotKnown(f"no call has the request id {asked.request_id}")
    return _explained(backend, caller, found)


def _explained(backend: Backend, caller: Caller, found: OneCall) -> Explained:
    details = found.details
    items = details["items"]
    return Explained(
        call=_call(found.call),
        lines=[
            CostLine(
                item=item,
                count=count,
                usd_per_unit=usd_from_atto(atto),
                usd=usd_from_atto(count * atto),
            )
            for item, count, atto in items
        ],
        exact_usd=usd_from_atto(sum(count * atto for _, count, atto in items)),
        cost_usd=usd_from_nano(found.cost_nano),
        net_usd=usd_from_nano(found.net_nano),
        price_model=details["price_model"],
        price=found.price,
        usage=details["usage"],
        flags=details["flags"],
        first_byte_ms=details["first_byte_ms"],
        error=details["error"],
        response_id=details["response_id"],
        budgets=[_charged(backend, caller, each) for each in found.charges],
        adjustments=[_call(each) for each in found.adjustments],
    )


def _charged(backend: Backend, caller: Caller, charge: Charge) -> Charged:
    budget, snapshot = charge.budget, backend.control.snapshot
    keys = snapshot.keys if snapshot is not None else ()
    seen = budget is not None and caller.identity.sees_scope(budget.scope, keys)
    start = datetime.fromtimestamp(charge.starts_at, UTC)
    return Charged(
        budget_id=charge.budget_id,
        scope=budget.scope if budget is not None and seen else "",
        window_start=f"{start:%Y-%m-%dT%H:%M:%SZ}",
        amount=figure(budget.unit if budget is not None else "usd", charge.amount),
    )


ENDPOINTS = (
    Endpoint(
        "GET", "/calls", list_calls, ListCalls, Page[Call], Role.VIEWER, "Calls, the newest first."
    ),
    Endpoint(
        "GET", "/calls/{request_id}", explain_call, OneCallById, Explained, Role.VIEWER,
        "One call, its cost explained line by line.",
    ),
)  # fmt: skip
