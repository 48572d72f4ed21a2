"""A dashboard over a ledger with a few calls, without sockets; shared by the tests of a module."""

import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from msgspec.structs import replace

from db.catalog import create_key
from proxy.cli_explain import explain_call
from proxy.config import Admin, Budget, Key, Organization, Team, Viewer
from proxy.control.admin import admin_app
from proxy.control.control import Control
from proxy.control.dashboard.render import PREFIX
from proxy.control.dashboard.site import LOGIN, Site
from proxy.wire import Refused, RefusedGroup
from tests.factories import a_hold, a_settle
from tests.proxy.control.test_control import USD, Host

ADMIN_KEY, VIEWER_KEY = "admin-key-of-the-tests", "viewer-key-of-the-tests"
HOSTILE = "<script>alert(1)</script>\"'&"
ORIGIN = "http://admin"
COST = 1_300  # of the items of `a_settle`


class Browser:
    """Cookies and forms, without scripts."""

    def __init__(self, app: object) -> None:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        self.http = httpx.AsyncClient(transport=transport, base_url=ORIGIN)

    async def get(self, path: str = "", **more: object) -> httpx.Response:
        return await self.http.get(f"{PREFIX}{path}", **more)  # type: ignore[arg-type]

    async def post(self, path: str, fields: dict[str, str], at: str = "") -> httpx.Response:
        """A form of the page `at`, with its token."""
        token = token_of((await self.get(at or path)).text)
        return await self.http.post(f"{PREFIX}{path}", data={"csrf": token, **fields})

    async def log_in(self, key: str = ADMIN_KEY) -> httpx.Response:
        return await self.post("/login", {"key": key})


def token_of(html: str) -> str:
    match = re.search(r'name="csrf" value="([^"]+)"', html)
    assert match, html
    return match[1]


@dataclass
class Scene:
    host: Host
    control: Control
    app: object
    site: Site
    call_id: str  # of a call whose model and tag are hostile
    others_call_id: str  # of another team

    def browser(self) -> Browser:
        return Browser(self.app)

    async def admin(self) -> Browser:
        browser = self.browser()
        assert (await browser.log_in()).status_code == 303
        return browser

    async def viewer(self) -> Browser:
        browser = self.browser()
        assert (await browser.log_in(VIEWER_KEY)).status_code == 303
        return browser


def _config(host: Host) -> object:
    teams = {
        "search": Team(keys=[Key("prod", key="s" * 32)]),
        "ads": Team(keys=[Key("ads-prod", key="a" * 32)]),
    }
    return replace(
        host.config,
        admin=Admin(key=ADMIN_KEY, viewers=[Viewer("lead", VIEWER_KEY, "acme/search")]),
        organizations={"acme": Organization(teams=teams)},
        budgets=[
            Budget("team/acme/search", period="total", limit_usd="1"),
            Budget("team/acme/ads", period="day", limit_usd="2"),
        ],
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory):
    host = Host(Path(tmp_path_factory.mktemp("dashboard")))
    control = await host.start(_config(host))  # type: ignore[arg-type]
    worker = await host.worker()
    await host.granted(worker, USD // 10)
    keys = {key.name: key for key in worker.snapshots[-1].keys}
    ids = []
    for name, windows in (("prod", [(host.window, USD // 100)]), ("ads-prod", [])):
        key = keys[name]
        hold = a_hold(
            call_id=(control.clock.now_ms() << 80 | 7 << 76 | key.id).to_bytes(16, "big"),
            at_ms=control.clock.now_ms(),
            amounts=windows,
            key_id=key.id,
            organization_id=key.organization_id,
            team_id=key.team_id,
            ceiling_nano=USD // 100,
            model=HOSTILE if name == "prod" else "gpt-5",
            tags={"note": HOSTILE},
        )
        worker.hold(hold)
        worker.settle(a_settle(hold, COST))
        ids.append(hold.call_id)
    await control.flush()
    refused = [a_refusal("search", HOSTILE), a_refusal("ads", "gpt-5")]
    control.refusals.add(refused, [a_group(each) for each in refused])
    await control.flush()
    await control.parts.transactions.run(
        lambda c: create_key(c, name="made", now_ms=1_000, team="acme/search")
    )
    names = (str(uuid.UUID(bytes=call_id)) for call_id in ids)
    app = admin_app(control, explain_call)
    pages = app.routes[-1].app.pages()
    login = next(route for route in pages.routes if getattr(route, "path", "") == LOGIN)
    site = login.endpoint.__self__._site  # type: ignore[attr-defined]
    yield Scene(host, control, app, site, *names)
    await control.stop()


def a_group(refused: Refused) -> RefusedGroup:
    """How it is counted."""
    names = (refused.organization, refused.team, refused.key, refused.provider, refused.model)
    scope = refused.details["scope"]
    return RefusedGroup(*names, refused.code, scope, 3, time.time_ns() // 10**6)


def a_refusal(team: str, model: str) -> Refused:
    return Refused(
        at_ms=1_790_000_000_000,
        request_id=str(uuid.uuid5(uuid.NAMESPACE_DNS, team)),
        code="budget_exceeded",
        status=429,
        message=f"The day budget of team/acme/{team} cannot pay for this call: {model}.",
        organization="acme",
        team=team,
        project="",
        user="",
        key=f"{team}-prod",
        provider="openai",
        model=model,
        details={"scope": f"team/acme/{team}", "limit": "1"},
    )
