"""One control with some calls of two teams, and clients of its port; for a module's tests."""

import time
from types import SimpleNamespace

import httpx
import pytest_asyncio
from msgspec.structs import replace

from proxy.cli_explain import explain_call
from proxy.config import Admin, Budget, Key, Organization, Provider, Team, Viewer
from proxy.control.admin import admin_app
from tests.factories import a_call_id, a_hold, a_settle
from tests.proxy.control.test_control import USD, Host

ADMIN_KEY = "admin-key-of-the-tests"
VIEWER_KEY = "viewer-key-of-the-tests"
TEAMS = {
    "search": Team(keys=[Key("prod", key="s" * 32)]),
    "ads": Team(keys=[Key("ads-prod", key="a" * 32)]),
}
BUDGETS = [
    Budget("team/acme/search", period="total", limit_usd="1"),
    Budget("team/acme/ads", period="day", limit_tokens=1_000),
    Budget("organization/acme", period="month", limit_usd="100"),
    Budget("key/prod", period="request", limit_usd="0.5"),
]
COST = 1_500
OTHERS_COST = 7_000


def client(app, key=None):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(
        transport=transport, base_url="http://control/admin/api", headers=headers
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory):
    host = Host(tmp_path_factory.mktemp("site"))
    viewers = [Viewer("lead", VIEWER_KEY, "acme/search")]
    host.config = replace(
        host.config,
        providers={"openai": Provider("http://127.0.0.1:9", "openai", prices="openai")},
        admin=Admin(key=ADMIN_KEY, viewers=viewers),
        organizations={"acme": Organization(teams=TEAMS)},
        budgets=BUDGETS,
    )
    control = await host.start()
    worker = await host.worker()
    await host.granted(worker, USD // 10)
    host.budget = next(b for b in worker.snapshots[-1].budgets if b.scope == "team/acme/search")
    hold = host.call(worker, USD // 10, COST)
    _call_of_the_others(worker)
    await control.flush()
    app = admin_app(control, explain_call)
    async with (
        client(app, ADMIN_KEY) as admin,
        client(app, VIEWER_KEY) as viewer,
        client(app) as nobody,
    ):
        yield SimpleNamespace(
            host=host, control=control, worker=worker, app=app, call_id=hold.call_id,
            admin=admin, viewer=viewer, nobody=nobody,
        )  # fmt: skip
    await control.stop()


def _call_of_the_others(worker):
    key = next(key for key in worker.snapshots[-1].keys if key.name == "ads-prod")
    hold = a_hold(
        call_id=a_call_id(),
        amounts=[],
        at_ms=time.time_ns() // 10**6,
        key_id=key.id,
        organization_id=key.organization_id,
        team_id=key.team_id,
        ceiling_nano=OTHERS_COST,
    )
    worker.hold(hold)
    worker.settle(a_settle(hold, OTHERS_COST))
