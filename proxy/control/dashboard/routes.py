"""Every address of the dashboard, and who may use it."""

from starlette.routing import BaseRoute, Route

from proxy.control.api.backend import Backend
from proxy.control.dashboard import (
    alerts,
    audit,
    budgets,
    calls,
    customers,
    keys,
    overview,
    refusals,
)
from proxy.control.dashboard.feed import Feed
from proxy.control.dashboard.login import Login, leave
from proxy.control.dashboard.prices import PriceTables
from proxy.control.dashboard.render import PREFIX
from proxy.control.dashboard.site import Handler, Site, guarded
from proxy.control.identity import Role


def pages() -> list[tuple[str, str, Handler, Role]]:
    prices, feed = PriceTables(), Feed()
    return [
        ("GET", "", overview.overview, Role.VIEWER),
        ("GET", "/outlook", overview.outlook, Role.VIEWER),
        ("GET", "/budgets", budgets.listed, Role.VIEWER),
        ("POST", "/budgets", budgets.create, Role.ADMIN),
        ("GET", "/budgets/{number:int}", budgets.shown, Role.VIEWER),
        ("POST", "/budgets/{number:int}", budgets.change, Role.ADMIN),
        ("POST", "/budgets/{number:int}/raises", budgets.raise_limit, Role.ADMIN),
        ("POST", "/budgets/{number:int}/delete", budgets.delete, Role.ADMIN),
        ("GET", "/budgets/{number:int}/customers", customers.listed, Role.VIEWER),
        ("GET", "/budgets/{number:int}/projection", budgets.projection, Role.VIEWER),
        ("GET", "/calls", calls.listed, Role.VIEWER),
        ("GET", "/calls/feed", feed.answer, Role.VIEWER),
        ("GET", "/calls/{request_id}", calls.shown, Role.VIEWER),
        ("GET", "/refusals", refusals.listed, Role.VIEWER),
        ("GET", "/keys", keys.listed, Role.VIEWER),
        ("POST", "/keys", keys.create, Role.ADMIN),
        ("POST", "/keys/rotate", keys.rotate, Role.ADMIN),
        ("POST", "/keys/revoke", keys.revoke, Role.ADMIN),
        ("GET", "/prices", prices.listed, Role.VIEWER),
        ("GET", "/prices/model", prices.shown, Role.VIEWER),
        ("GET", "/alerts", alerts.listed, Role.VIEWER),
        ("GET", "/audit", audit.listed, Role.ADMIN),
        ("POST", "/logout", leave, Role.VIEWER),
    ]


def routes(backend: Backend) -> list[BaseRoute]:
    site = Site(backend)
    login = Login(site)
    return [
        Route(f"{PREFIX}/login", login.form, methods=["GET"]),
        Route(f"{PREFIX}/login", login.enter, methods=["POST"]),
        Route(f"{PREFIX}/static/{{name}}", site.assets.answer, methods=["GET"]),
        *(
            Route(PREFIX + path, guarded(site, handler, role), methods=[method])
            for method, path, handler, role in pages()
        ),
    ]
