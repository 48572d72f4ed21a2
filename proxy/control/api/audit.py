"""Who changed what."""

from functools import partial
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from db.audit import AuditRow, audit_rows
from db.report_filters import parse_time_range
from proxy.control.api.backend import Backend
from proxy.control.api.paging import id_of, page_of
from proxy.control.api.reports import Time, given
from proxy.control.api.table import Caller, Endpoint, Page, PageRequest, Text
from proxy.control.figures import moment
from proxy.control.identity import Role


class Change(Struct, frozen=True, kw_only=True):
    id: int
    at: str | None
    who: str  # admin, cli:USER
    origin: str  # the address, or the host of a command
    action: str
    target: str
    before: dict[str, Any] | None  # None: it was not there
    after: dict[str, Any] | None  # None: it is not there any more


class ListChanges(PageRequest, frozen=True, kw_only=True):
    since: Time | UnsetType = UNSET
    until: Time | UnsetType = UNSET
    who: Text = ""
    action: Text = ""
    target: Text = ""


def _change(row: AuditRow) -> Change:
    values = row._asdict()
    return Change(at=moment(values.pop("at_ms")), **values)


async def list_changes(backend: Backend, _caller: Caller, asked: ListChanges) -> Page[Change]:
    since_ms, until_ms = parse_time_range(given(asked.since), given(asked.until), backend.now_ms)
    look = partial(
        audit_rows,
        limit=asked.limit + 1,
        below=id_of(asked.cursor) if asked.cursor else None,
        since_ms=since_ms,
        until_ms=until_ms,
        who=asked.who,
        action=asked.action,
        target=asked.target,
    )
    rows = await backend.read(lambda connection: connection.run_sync(look))
    return page_of(rows, asked.limit, _change, lambda row: row.id)


ENDPOINTS = (
    Endpoint(
        "GET", "/audit", list_changes, ListChanges, Page[Change], Role.ADMIN,
        "Every change, the newest first.",
    ),
)  # fmt: skip
