"""Alerts: what people were told of, through which channels, and whether it reached them."""

from functools import partial

from starlette.responses import Response

from db.alerts import RecentAlert, recent
from proxy.control.dashboard.budgets import sees
from proxy.control.dashboard.site import Visit

ROWS_MAX = 200
STATES = {"critical": "bad", "warning": "warn", "info": "good"}


async def listed(visit: Visit) -> Response:
    look = partial(recent, kinds=(), limit=ROWS_MAX)
    found = await visit.backend.read(lambda connection: connection.run_sync(look))
    rows = [alert for alert in found if _may_see(visit, alert)]
    return visit.page("alerts.html", rows=rows, states=STATES)


def _may_see(visit: Visit, alert: RecentAlert) -> bool:
    """One without a scope is about the whole host, and for admins."""
    scope = alert.message.scope
    return visit.is_admin or (bool(scope) and sees(visit, scope))
