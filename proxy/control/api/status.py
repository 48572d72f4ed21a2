"""How control stands."""

from msgspec import Struct

from proxy import __version__
from proxy.control.api.backend import Backend
from proxy.control.api.table import Caller, Endpoint, Nothing
from proxy.control.identity import Role


class WorkerState(Struct, frozen=True):
    pid: int
    revision: int  # of the snapshot it has put in force


class Status(Struct, frozen=True, kw_only=True):
    version: str
    revision: int
    revision_in_force: int  # of every worker
    workers: list[WorkerState]
    outage: bool  # the ledger is out of reach
    price_version: str
    dead_letters: int
    name: str  # who asks
    role: str
    team: str  # all that they see; "": everything


async def status(backend: Backend, caller: Caller, _asked: Nothing) -> Status:
    control, who = backend.control, caller.identity
    snapshot = control.snapshot
    return Status(
        version=__version__,
        revision=snapshot.revision if snapshot is not None else 0,
        revision_in_force=control.in_force,
        workers=[WorkerState(**each) for each in control.workers],
        outage=control.outage,
        price_version=snapshot.prices.version if snapshot is not None else "",
        dead_letters=control.dead_letters,
        name=who.name,
        role=who.role.name.lower(),
        team=who.team,
    )


ENDPOINTS = (
    Endpoint("GET", "/status", status, Nothing, Status, Role.VIEWER, "How control stands."),
)
