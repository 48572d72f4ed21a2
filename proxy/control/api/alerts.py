"""What people were told, and whether it was delivered."""

from functools import partial
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from db.alerts import RECENT_MAX, REPORT, Delivery, RecentAlert, recent
from db.errors import NotKnown
from db.report_filters import parse_time_range
from proxy.control.alerts.routes import channels
from proxy.control.alerts.trying import try_channels
from proxy.control.api.backend import Backend
from proxy.control.api.reports import Time, given
from proxy.control.api.table import PAGE, Caller, Endpoint, PageSize, Request, Text
from proxy.control.figures import moment
from proxy.control.identity import Role


class Delivered(Struct, frozen=True, kw_only=True):
    event: str  # raised | ended
    channel: str
    state: str  # pending | delivered | given_up
    attempts: int
    done_at: str | None
    error: str  # of the last attempt


class Alert(Struct, frozen=True, kw_only=True):
    id: str
    kind: str
    severity: str
    scope: str  # "": about no scope
    summary: str
    facts: dict[str, Any]
    raised_at: str | None
    ended_at: str | None
    budget_id: int | None
    deliveries: list[Delivered]


class ListAlerts(Request, frozen=True, kw_only=True):
    kind: Text = ""
    since: Time | UnsetType = UNSET
    limit: PageSize = PAGE


async def list_alerts(backend: Backend, caller: Caller, asked: ListAlerts) -> list[Alert]:
    """A viewer's are those about what it may see. Reports are none, unless asked for."""
    since_ms, _ = parse_time_range(given(asked.since), None, backend.now_ms)
    kinds = (asked.kind,) if asked.kind else ()
    limit = RECENT_MAX if caller.identity.team else asked.limit
    look = partial(recent, limit=limit, kinds=kinds, since_ms=since_ms)
    rows = await backend.read(lambda connection: connection.run_sync(look))
    snapshot = backend.control.snapshot
    keys = snapshot.keys if snapshot is not None else ()
    seen = [row for row in rows if caller.identity.sees_scope(row.message.scope, keys)]
    return [_alert(row) for row in seen[: asked.limit]]


def _alert(row: RecentAlert) -> Alert:
    message = row.message
    return Alert(
        id=message.id,
        kind=message.kind,
        severity=message.severity,
        scope=message.scope,
        summary=message.summary,
        facts=message.facts,
        raised_at=moment(message.raised_at_ms),
        ended_at=moment(message.ended_at_ms),
        budget_id=row.budget_id,
        deliveries=[_delivered(each) for each in row.deliveries],
    )


def _delivered(delivery: Delivery) -> Delivered:
    values = delivery._asdict()
    return Delivered(done_at=moment(values.pop("done_at_ms")), **values)


class SendTest(Request, frozen=True, kw_only=True):
    channel: Text = ""  # "": through all of them


class Tried(Struct, frozen=True):
    channel: str
    kind: str
    status: str  # "ok", or "fail, " and why
    seconds: str


async def send_test(backend: Backend, _caller: Caller, asked: SendTest) -> list[Tried]:
    known = channels(backend.control.config.alerts)
    name = asked.channel
    if name and name not in known:
        raise NotKnown(f"no channel is called {name!r}; there are: {', '.join(sorted(known))}")
    tried = await try_channels({name: known[name]} if name else known)
    return [Tried(*each) for each in tried]


ENDPOINTS = (
    Endpoint(
        "GET", "/alerts", list_alerts, ListAlerts, list[Alert], Role.VIEWER,
        f"What people were told, the newest first; `kind={REPORT}` for reports that were sent.",
    ),
    Endpoint(
        "POST", "/alerts/test", send_test, SendTest, list[Tried], Role.ADMIN,
        "Send one alert through every channel, or one, and say what happened.",
    ),
)  # fmt: skip
