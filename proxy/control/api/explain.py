"""Would this call pass? Which budget says no? What the command `budgets explain` answers.

The data plane's own code decides, which control does not import: whoever wires the planes together
gives it as `Backend.explain`.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from db.catalog import load_keys
from db.errors import NotKnown
from db.report_customers import budgets_of_customer
from db.report_leases import LeaseStatus, unfinished_leases
from db.reports import BudgetStatus, budget_status
from proxy.config import Config
from proxy.control.api.backend import Backend
from proxy.control.api.failures import ApiError
from proxy.control.api.table import Caller, Endpoint, Request, Text
from proxy.control.figures import starts_at
from proxy.control.identity import Role
from proxy.wire import KeyEntry

REQUEST_BYTES_MAX = 10 * 2**20


class ExplainRequest(Request, frozen=True, kw_only=True):
    key: Annotated[str, Meta(min_length=1, max_length=128, description="Its name.")]
    request: dict[str, Any]  # the call's body
    provider: Text = ""  # "": the first that prices the model
    path: Text = ""  # "": guessed from the body
    model: Text = ""  # where the body names none
    user: Text = ""
    customer: Text = ""


class ExplainedLine(Struct, frozen=True, kw_only=True):
    what: str  # hold | budget | call
    name: str
    needs: str | int | None = None
    limit: str | int | None = None
    spent: str | int | None = None
    free: str | int | None = None
    verdict: str | None = None
    clamped_to: int | None = None
    blocked_by: str | None = None
    downgraded_from: str | None = None  # the model asked for, where a spent budget names this one
    scope: str | None = None  # of a budget


class Explanation(Struct, frozen=True, kw_only=True):
    refused: bool
    code: str  # "": of the call's own error, where one is refused before any budget is asked
    message: str
    lines: list[ExplainedLine]


class Standing(Struct, frozen=True):
    """What the ledger says."""

    key: KeyEntry
    statuses: Sequence[BudgetStatus]
    leases: Sequence[LeaseStatus]


# Raises ApiError for what cannot be explained.
Explain = Callable[[Config, Standing, ExplainRequest, bytes], Explanation]


async def explain(backend: Backend, caller: Caller, asked: ExplainRequest) -> Explanation:
    now_s = backend.now_ms / 1000

    async def ask(connection: AsyncConnection) -> Standing:
        key = await _key(connection, caller, asked.key, now_s)
        statuses = await statuses_for(connection, asked.customer, now_s)
        return Standing(key, statuses, await connection.run_sync(unfinished_leases))

    standing = await backend.read(ask)
    body = msgspec.json.encode(asked.request)
    config = backend.control.config
    found: Explanation = await asyncio.to_thread(backend.explain, config, standing, asked, body)
    seen = caller.identity.sees_scope
    lines = [
        line if line.scope is None or seen(line.scope, [standing.key]) else _veiled(line)
        for line in found.lines
    ]
    return msgspec.structs.replace(found, lines=lines)


async def statuses_for(
    connection: AsyncConnection, customer: str, now_s: float
) -> list[BudgetStatus]:
    """Every budget, and those that pay for a customer ("": none)."""
    at = partial(starts_at, now_s=now_s)
    statuses = await budget_status(connection, at)
    templates = [each.budget for each in statuses if each.budget.each]
    if not (customer and templates):
        return statuses
    return statuses + await budgets_of_customer(connection, templates, customer, at)


async def _key(connection: AsyncConnection, caller: Caller, name: str, now_s: float) -> KeyEntry:
    for row in await connection.run_sync(load_keys):
        if row.name == name and caller.identity.sees(row.organization, row.team):
            if row.revoked or 0 < row.expires_at <= now_s:
                why = "revoked" if row.revoked else "expired"
                raise ApiError(400, f"key_{why}", f"key {name!r} is {why}", "key")
            return KeyEntry(*row)
    raise NotKnown(f"no key is named {name!r}")


def _veiled(line: ExplainedLine) -> ExplainedLine:
    """A budget whose figures are others' as well."""
    return msgspec.structs.replace(line, limit=None, spent=None, free=None)


ENDPOINTS = (
    Endpoint(
        "POST", "/explain", explain, ExplainRequest, Explanation, Role.VIEWER,
        "Would this call pass, be clamped, wait or be refused? By which budget?",
        body_bytes_max=REQUEST_BYTES_MAX,
    ),
)  # fmt: skip
