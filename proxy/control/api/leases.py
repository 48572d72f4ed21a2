"""Who holds money that is granted and not spent: as `tollkeeper budgets leases`."""

from functools import partial
from typing import Any

from msgspec import Struct

from db.catalog import load_budgets
from db.report_leases import LeaseStatus, unfinished_leases
from proxy.control.api.backend import Backend
from proxy.control.api.table import ById, Caller, Done, Endpoint, Nothing
from proxy.control.figures import figure, moment
from proxy.control.identity import Role
from proxy.control.releasing import release


class LeaseLeft(Struct, frozen=True, kw_only=True):
    """Of one life of one control (an epoch) in one window; in the budget's unit."""

    epoch: int
    host: str
    state: str  # open | lost
    seen_at: str | None
    budget_id: int
    scope: str  # "": the budget is deleted
    unit: str
    window: str | None
    granted: str | int
    spent: str | int


async def list_leases(backend: Backend, _caller: Caller, _asked: Nothing) -> list[LeaseLeft]:
    def look(connection: Any) -> list[LeaseLeft]:
        budgets = {row.id: row for row in load_budgets(connection)}
        return [_lease(each, budgets.get(each.budget_id)) for each in unfinished_leases(connection)]

    return await backend.read(lambda connection: connection.run_sync(look))


def _lease(lease: LeaseStatus, budget: Any) -> LeaseLeft:
    unit = budget.unit if budget is not None else ""
    return LeaseLeft(
        epoch=lease.epoch_id,
        host=lease.host_id,
        state=lease.state,
        seen_at=moment(lease.seen_at_ms),
        budget_id=lease.budget_id,
        scope=budget.scope if budget is not None else "",
        unit=unit,
        window=moment(lease.starts_at * 1000),
        granted=figure(unit, lease.granted),
        spent=figure(unit, lease.spent),
    )


async def release_lease(backend: Backend, caller: Caller, asked: ById) -> Done:
    work = partial(release, actor=caller.actor, epoch_id=asked.id, now_ms=backend.now_ms)
    await backend.change(work)
    return Done()


ENDPOINTS = (
    Endpoint(
        "GET", "/leases", list_leases, Nothing, list[LeaseLeft], Role.ADMIN,
        "Money granted to a control and not spent, by epoch.",
    ),
    Endpoint(
        "POST", "/leases/{id}/release", release_lease, ById, Done, Role.ADMIN,
        "Give up the epoch of a host that is gone for good.",
    ),
)  # fmt: skip
