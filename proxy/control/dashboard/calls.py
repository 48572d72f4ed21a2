"""Calls: the newest ones, and one of them with its cost, line by line."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.datastructures import QueryParams
from starlette.responses import Response

from db.report_call_pages import call_page
from db.report_calls import Charge, OneCall, one_call
from db.report_filters import Filters
from pricing.calculator import PROVIDER_FIGURE
from pricing.money import ATTO_PER_NANO, usd_from_atto
from proxy.control.dashboard.budgets import sees
from proxy.control.dashboard.reasons import reached_provider
from proxy.control.dashboard.site import Missing, Visit

ROWS_MAX = 50
LOOK_BACK_MS = 30 * 86_400_000  # where a condition could make the search long
FIELDS = ("team", "key", "user", "provider", "model")
TEXT_MAX = 256
_MILLION = 10**6
# What an item of a cost is called.
WORDS = {
    "input": "input tokens",
    "cache_read": "input tokens read from a cache",
    "output": "output tokens",
    "reasoning": "reasoning tokens",
    "request": "fee for the request",
    PROVIDER_FIGURE: "as the provider itself says, in nano-dollars",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a bill: so many of something, at a price each."""

    what: str
    count: int
    rate: str  # USD, of one or of a million
    per: str
    usd: str  # exact


def conditions(visit: Visit, query: QueryParams) -> dict[str, str]:
    """Raises Denied."""
    asked = {name: query[name][:TEXT_MAX] for name in FIELDS if query.get(name)}
    return visit.identity.narrow(asked)


def filters_of(where: Mapping[str, str], now_ms: int, until_ms: int | None = None) -> Filters:
    return Filters((until_ms or now_ms) - LOOK_BACK_MS if where else None, until_ms, where)


async def newest(connection: AsyncConnection, filters: Filters) -> list[dict[str, Any]]:
    return [call for _, call in await call_page(connection, filters, ROWS_MAX)]


async def listed(visit: Visit) -> Response:
    query = visit.request.query_params
    where = conditions(visit, query)
    until = query.get("before", "")
    until_ms = int(until) if until.isdecimal() and len(until) < 15 else None
    filters = filters_of(where, visit.backend.now_ms, until_ms)
    rows = await visit.backend.read(lambda connection: newest(connection, filters))
    asked = {name: query.get(name, "") for name in FIELDS}
    oldest = at_ms_of(rows[-1]["request_id"]) if len(rows) == ROWS_MAX else None
    return visit.page(
        "calls.html",
        rows=rows,
        asked=asked,
        live=until_ms is None,
        oldest=oldest,
        query=urlencode({name: value for name, value in asked.items() if value}),
    )


def at_ms_of(request_id: str) -> int:
    """When a call was admitted: a UUIDv7 says so."""
    return uuid.UUID(request_id).int >> 80


async def shown(visit: Visit) -> Response:
    request_id = visit.request.path_params["request_id"]
    refused = visit.backend.control.refusals.find(request_id, visit.identity.sees)
    found = await visit.backend.read(lambda connection: one_call(connection, _id(request_id)))
    call = found.call if found is not None else {}
    if found is None or not visit.identity.sees(call["organization"], call["team"]):
        if refused is not None:
            reached = reached_provider(refused.code)
            return visit.page("refusal.html", refused=refused, reached=reached)
        raise Missing("There is no call with this id, or it is not in the ledger yet.")
    lines, rest_atto = bill(found)
    charges = [each for each in found.charges if _may_see(visit, each)]
    return visit.page(
        "call.html",
        charges=charges,
        hidden=len(found.charges) - len(charges),
        found=found,
        call=call,
        lines=lines,
        rest=_rest(rest_atto),
        refused=refused,
    )


def _may_see(visit: Visit, charge: Charge) -> bool:
    return charge.budget is None or sees(visit, charge.budget.scope)


def _id(request_id: str) -> bytes:
    try:
        return uuid.UUID(request_id).bytes
    except ValueError:
        raise Missing("That is not the id of a call.") from None


def bill(found: OneCall) -> tuple[list[Line], int]:
    """The items a cost is the sum of, and what rounding to a nano-dollar added, in atto-USD."""
    items: list[Any] = found.details["items"]
    exact = sum(count * atto for _, count, atto in items)
    rest = found.cost_nano * ATTO_PER_NANO - exact if items else 0
    return [_line(name, count, atto) for name, count, atto in items], rest


def _line(name: str, count: int, atto: int) -> Line:
    plain, _, model = name.partition("@")
    what = WORDS.get(plain, plain.replace("_", " ")) + (f" at {model}" if model else "")
    many = atto < ATTO_PER_NANO * 100_000  # less than a hundredth of a cent each: say of a million
    rate = usd_from_atto(atto * _MILLION) if many else usd_from_atto(atto)
    return Line(what, count, rate, "per million" if many else "each", usd_from_atto(count * atto))


def _rest(atto: int) -> str:
    return usd_from_atto(atto) if atto else ""
