"""Budgets: how they stand, made, changed, deleted."""

from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from sqlalchemy.ext.asyncio import AsyncConnection

from db import edits
from db.catalog_budget_edits import budget_state, sources
from db.catalog_types import BudgetRow, DeclaredBudget
from db.customers import TEMPLATE, count_customers
from db.errors import NotKnown
from db.report_customers import customer_status
from db.report_filters import find_zone
from db.reports import BudgetStatus, budget_status
from pricing.money import nano_from_usd
from proxy.config import (
    MODEL_NAME,
    WEEKDAYS,
    Budget,
    Count,
    Customers,
    Limit,
    OnExhausted,
    Period,
    Weekday,
)
from proxy.control.api.backend import Backend
from proxy.control.api.failures import ApiError
from proxy.control.api.paging import id_of, page_of
from proxy.control.api.table import (
    ById,
    Caller,
    Done,
    Endpoint,
    Page,
    PageRequest,
    Request,
    Text,
)
from proxy.control.declared import customer_options, declared_budget
from proxy.control.figures import figure, resets_at, starts_at
from proxy.control.identity import Role

USD_MAX = Decimal(2**63 - 1) / 10**9
UNITS = {"limit_usd": "usd", "limit_tokens": "tokens", "limit_requests": "requests"}

Usd = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,10}(\.[0-9]{1,9})?$", description="Exact decimal text, like 20 or 0.5."
    ),
]
Globs = Annotated[tuple[Text, ...], Meta(max_length=100)]
Share = Annotated[float, Meta(gt=0, le=1)]
WaitMs = Annotated[int, Meta(ge=0, le=60_000)]
Percent = Annotated[float, Meta(gt=0, le=1000)]
Percents = Annotated[tuple[Percent, ...], Meta(max_length=20)]
Hours = Annotated[tuple[Annotated[float, Meta(gt=0, le=8760)], ...], Meta(max_length=20)]
Model = Annotated[str, Meta(pattern=MODEL_NAME)]
Downgrade = Annotated[
    dict[Text, Model],
    Meta(max_length=100, description="Glob of models a spent budget refuses: the model instead."),
]
LISTS = ("models", "providers", "alert_at", "alert_exhaustion_h")


class BudgetFigures(Struct, frozen=True, kw_only=True):
    """Amounts are exact decimal text in USD, or whole numbers of tokens or requests."""

    id: int
    scope: str
    unit: str
    period: str
    timezone: str
    week_start: str
    month_day: int
    models: list[str]
    providers: list[str]
    clamp: bool
    clamp_share: float
    clamp_min_tokens: int
    hold: str
    hold_wait_ms: int
    server_tool_passes: int
    enforce: bool
    would_refuse: int | None  # calls of this window; None: it is enforced
    downgrade: dict[str, str]
    limit: str | int  # a temporary raise included
    raised: str | int  # the part of it that is temporary
    spent: str | int
    leased: str | int  # for calls in flight and at hand in workers
    remaining: str | int  # limit less spent
    overage: str | int
    resets_at: str  # "": never
    each: str  # customer: a budget for each of them, which has no figures but its limit
    customers: Customers | None  # of such a budget,
    tracked: int | None  # and how many of them there are
    customer: str  # whose budget it is; "": no customer's
    source: str  # config: read-only here; template: made from one


class ListBudgets(PageRequest, frozen=True, kw_only=True):
    scope: Text = ""  # team/acme/search


class ListCustomers(ById, frozen=True, kw_only=True):
    top: Annotated[int, Meta(ge=1, le=1000)] = 100


class CustomerList(Struct, frozen=True, kw_only=True):
    """Those that have spent most, the first most."""

    items: list[BudgetFigures]
    tracked: int


class NewBudget(Request, frozen=True, kw_only=True):
    """As an entry of `budgets` in the configuration; exactly one limit."""

    scope: Text
    period: Period = "month"
    limit_usd: Usd | UnsetType = UNSET
    limit_tokens: Limit | UnsetType = UNSET
    limit_requests: Limit | UnsetType = UNSET
    each: Literal["", "customer"] = ""
    customers: Customers = Customers()
    timezone: Text = "UTC"
    week_start: Weekday = "monday"
    month_day: Annotated[int, Meta(ge=1, le=31)] = 1
    models: Globs = ()
    providers: Globs = ()
    clamp: bool = True
    clamp_share: Share = 0.125
    clamp_min_tokens: Count = 1024
    hold: Literal["ceiling", "learned"] = "ceiling"
    hold_wait_ms: WaitMs = 2000
    server_tool_passes: Count = 4
    enforce: bool = True  # false: it counts, and refuses nothing
    downgrade: Downgrade | UnsetType = UNSET
    alert_at: Percents = ()
    alert_exhaustion_h: Hours = ()


class ChangeBudget(ById, frozen=True, kw_only=True):
    """What is not given stays as it is. The limit is in the budget's own unit."""

    limit_usd: Usd | UnsetType = UNSET
    limit_tokens: Limit | UnsetType = UNSET
    limit_requests: Limit | UnsetType = UNSET
    customers: Customers | UnsetType = UNSET
    clamp: bool | UnsetType = UNSET
    clamp_share: Share | UnsetType = UNSET
    clamp_min_tokens: Count | UnsetType = UNSET
    hold: Literal["ceiling", "learned"] | UnsetType = UNSET
    hold_wait_ms: WaitMs | UnsetType = UNSET
    server_tool_passes: Count | UnsetType = UNSET
    enforce: bool | UnsetType = UNSET
    downgrade: Downgrade | UnsetType = UNSET
    alert_at: Percents | UnsetType = UNSET
    alert_exhaustion_h: Hours | UnsetType = UNSET


OPTIONS = tuple(
    name for name in ChangeBudget.__struct_fields__ if name != "id" and name not in UNITS
)


async def statuses_for(
    backend: Backend, caller: Caller, connection: AsyncConnection
) -> list[BudgetStatus]:
    """Of the budgets that the caller may see."""
    now_s = backend.now_ms / 1000
    found = await budget_status(connection, partial(starts_at, now_s=now_s))
    snapshot = backend.control.snapshot
    keys = snapshot.keys if snapshot is not None else ()
    return [each for each in found if caller.identity.sees_scope(each.budget.scope, keys)]


def _figures(
    status: BudgetStatus, of: Mapping[int, str], tracked: Mapping[int, int], now_s: float
) -> BudgetFigures:
    budget = status.budget
    return BudgetFigures(
        id=budget.id,
        scope=budget.scope,
        unit=budget.unit,
        period=budget.period,
        timezone=budget.timezone,
        week_start=WEEKDAYS[budget.week_start],
        month_day=budget.month_day,
        models=list(budget.models),
        providers=list(budget.providers),
        clamp=budget.clamp,
        clamp_share=budget.clamp_share,
        clamp_min_tokens=budget.clamp_min_tokens,
        hold="learned" if budget.learned else "ceiling",
        hold_wait_ms=budget.hold_wait_ms,
        server_tool_passes=budget.server_tool_passes,
        enforce=budget.enforce,
        would_refuse=None if budget.enforce else status.spared,
        downgrade=dict(budget.downgrade),
        raised=figure(budget.unit, budget.raised),
        limit=figure(budget.unit, status.limit),
        spent=figure(budget.unit, status.spent),
        leased=figure(budget.unit, status.leased),
        remaining=figure(budget.unit, status.remaining),
        overage=figure(budget.unit, status.overage),
        resets_at=resets_at(budget, now_s),
        each=budget.each,
        customers=_customers_of(budget),
        tracked=tracked.get(budget.id, 0) if budget.each else None,
        customer=budget.customer,
        source=of.get(budget.id, ""),
    )


async def _all(backend: Backend, caller: Caller) -> list[BudgetFigures]:
    """By id."""
    now_s = backend.now_ms / 1000

    async def ask(connection: AsyncConnection) -> list[BudgetFigures]:
        found = await statuses_for(backend, caller, connection)
        of = await connection.run_sync(sources)
        tracked = await connection.run_sync(count_customers)
        return [_figures(status, of, tracked, now_s) for status in found]

    return await backend.read(ask)


def _customers_of(budget: BudgetRow) -> Customers | None:
    if not budget.each:
        return None
    beyond: Any = budget.beyond
    required, from_body = budget.customer_required, budget.customer_from_body
    return Customers(budget.customers_max, beyond, required, from_body)


async def list_customers(backend: Backend, caller: Caller, asked: ListCustomers) -> CustomerList:
    """Of a budget for each customer. Raises NotKnown for one that is not."""
    now_s = backend.now_ms / 1000

    async def ask(connection: AsyncConnection) -> CustomerList:
        for status in await statuses_for(backend, caller, connection):
            if status.budget.id == asked.id and status.budget.each:
                at = partial(starts_at, now_s=now_s)
                found = await customer_status(connection, status.budget, at, asked.top)
                of = {each.budget.id: TEMPLATE for each in found}
                tracked = await connection.run_sync(count_customers, asked.id)
                items = [_figures(each, of, {}, now_s) for each in found]
                return CustomerList(items=items, tracked=tracked.get(asked.id, 0))
        raise NotKnown(f"no budget for each customer has the id {asked.id}")

    return await backend.read(ask)


async def list_budgets(backend: Backend, caller: Caller, asked: ListBudgets) -> Page[BudgetFigures]:
    after = id_of(asked.cursor)
    rows = [
        each
        for each in await _all(backend, caller)
        if each.id > after and asked.scope in ("", each.scope)
    ]
    return page_of(rows, asked.limit, lambda row: row, lambda row: row.id)


async def get_budget(backend: Backend, caller: Caller, asked: ById) -> BudgetFigures:
    for each in await _all(backend, caller):
        if each.id == asked.id:
            return each
    raise NotKnown(f"no budget has the id {asked.id}")


async def create_budget(backend: Backend, caller: Caller, asked: NewBudget) -> BudgetFigures:
    find_zone(asked.timezone)
    budget = _declared(asked)
    now_ms = backend.now_ms
    budget_id = await backend.change(
        lambda connection: edits.create_budget(connection, caller.actor, budget, now_ms)
    )
    return await get_budget(backend, caller, ById(id=budget_id))


def _declared(asked: NewBudget) -> DeclaredBudget:
    limits = _limits(asked)
    if len(limits) != 1:
        raise ApiError(400, "invalid_parameter", f"give exactly one of {', '.join(UNITS)}")
    names = set(NewBudget.__struct_fields__) - {*UNITS, "downgrade"}
    values: dict[str, Any] = {name: getattr(asked, name) for name in names}
    values |= {name: list(values[name]) for name in LISTS}
    ((unit, limit),) = limits.items()
    values[f"limit_{unit}"] = asked.limit_usd if unit == "usd" else limit
    for name, message in Budget(**values).customer_problems():
        raise ApiError(400, "invalid_parameter", message, name)
    values["on_exhausted"] = OnExhausted({} if asked.downgrade is UNSET else asked.downgrade)
    return declared_budget(Budget(**values))


def _limits(asked: NewBudget | ChangeBudget) -> dict[str, int]:
    """By unit, those that are given. Raises ApiError."""
    found: dict[str, int] = {}
    for name, unit in UNITS.items():
        value = getattr(asked, name)
        if value is not UNSET:
            found[unit] = _nano(value) if unit == "usd" else value
    return found


def _nano(text: str) -> int:
    usd = Decimal(text)
    if usd > USD_MAX:
        message = f"{text} USD: expected up to {USD_MAX}"
        raise ApiError(400, "invalid_parameter", message, "limit_usd")
    return nano_from_usd(usd)


async def change_budget(backend: Backend, caller: Caller, asked: ChangeBudget) -> BudgetFigures:
    limits = _limits(asked)
    options = {name: getattr(asked, name) for name in OPTIONS}
    options = {name: value for name, value in options.items() if value is not UNSET}
    options |= {name: list(options[name]) for name in LISTS if name in options}
    if "downgrade" in options:
        options["downgrade"] = [list(pair) for pair in options["downgrade"].items()]
    customers = options.pop("customers", None)
    if customers is not None:
        options |= customer_options(customers)
    if "hold" in options:
        options["learned"] = options.pop("hold") == "learned"
    now_ms = backend.now_ms

    def change(connection: Any) -> None:
        state = budget_state(connection, asked.id)
        if state is not None and limits.keys() - {state["unit"]}:
            message = f"budget {asked.id} is in {state['unit']}"
            raise ApiError(400, "invalid_parameter", message, f"limit_{next(iter(limits))}")
        if state is not None:
            _check_change(asked, bool(state["options"].get("each")))
        limit = next(iter(limits.values()), None)
        edits.change_budget(
            connection, caller.actor, asked.id, now_ms, limit=limit, options=options
        )

    await backend.change(change)
    return await get_budget(backend, caller, ById(id=asked.id))


def _check_change(asked: ChangeBudget, each: bool) -> None:
    wrong = "alert_exhaustion_h" if each else "customers"
    if getattr(asked, wrong):
        not_ = "not " if each else ""
        message = f"is {not_}for a budget of `each: customer`"
        raise ApiError(400, "invalid_parameter", message, wrong)


async def delete_budget(backend: Backend, caller: Caller, asked: ById) -> Done:
    now_ms = backend.now_ms
    await backend.change(
        lambda connection: edits.delete_budget(connection, caller.actor, asked.id, now_ms)
    )
    return Done()


VIEWER, ADMIN = Role.VIEWER, Role.ADMIN
ENDPOINTS = (
    Endpoint(
        "GET", "/budgets", list_budgets, ListBudgets, Page[BudgetFigures], VIEWER,
        "Budgets and their current windows.",
    ),
    Endpoint(
        "POST", "/budgets", create_budget, NewBudget, BudgetFigures, ADMIN, "Make a budget.", 201
    ),
    Endpoint("GET", "/budgets/{id}", get_budget, ById, BudgetFigures, VIEWER, "One budget."),
    Endpoint(
        "GET", "/budgets/{id}/customers", list_customers, ListCustomers, CustomerList, VIEWER,
        "The customers of a budget for each of them, who spent most first.",
    ),
    Endpoint(
        "PATCH", "/budgets/{id}", change_budget, ChangeBudget, BudgetFigures, ADMIN,
        "Change a budget's limit or options.",
    ),
    Endpoint(
        "DELETE", "/budgets/{id}", delete_budget, ById, Done, ADMIN,
        "Delete a budget: calls are not held to it any more.",
    ),
)  # fmt: skip
