"""Control's port: health without a key, reports with one."""

import os

import httpx
import pytest
from msgspec.structs import replace

from proxy.cli_explain import explain_call
from proxy.config import Admin
from proxy.control import readers
from proxy.control.admin import admin_app
from proxy.control.control import Control
from tests.proxy.control.test_control import CLOCK, USD, Host, until

KEY = "admin-key-of-the-tests"
AUTHORIZED = {"authorization": f"Bearer {KEY}"}


@pytest.fixture
async def host(tmp_path):
    host = Host(tmp_path)
    host.config = replace(host.config, admin=Admin(key=KEY))
    yield host
    await host.control.stop()


async def get(control: Control, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(app=admin_app(control, explain_call))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        return await client.get(path, headers=headers or {})


async def test_ready_once_a_worker_has_a_snapshot_in_force(host):
    control = await host.start()
    assert (await get(control, "/healthz")).status_code == 200
    assert (await get(control, "/readyz")).status_code == 503
    await host.worker()
    await until(lambda: control.in_force)
    answer = await get(control, "/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "outage": False})


async def test_a_report_by_any_dimension(host):
    control = await host.start()
    worker = await host.worker()
    await host.granted(worker, USD // 10)
    host.call(worker, USD // 10, 1_500)
    await control.flush()
    answer = await get(control, "/admin/api/report?by=team,model&since=3650d", AUTHORIZED)
    (row,) = answer.json()
    assert (row["team"], row["model"], row["calls"]) == ("search", "gpt-5", 1)
    assert row["cost_usd"] == "0.0000015"
    filtered = await get(control, "/admin/api/report?provider=anthropic", AUTHORIZED)
    assert filtered.json() == []
    daily = "by=total&granularity=month&timezone=Asia/Kolkata&compare=1&since=3650d"
    rows = (await get(control, f"/admin/api/report?{daily}", AUTHORIZED)).json()
    assert sum(float(row["cost_usd"]) for row in rows) == 0.0000015


async def test_a_forecast(host):
    control = await host.start()
    worker = await host.worker()
    await host.granted(worker, USD // 10)
    host.call(worker, USD // 10, 1_500)
    await control.flush()
    rows = (await get(control, "/admin/api/forecast?by=team", AUTHORIZED)).json()
    assert all(row["team"] == "search" for row in rows)
    answer = await get(control, "/admin/api/forecast?period=decade", AUTHORIZED)
    assert (answer.status_code, "decade" in answer.text) == (400, True)
    answer = await get(control, "/admin/api/forecast?timezone=Mars", AUTHORIZED)
    assert answer.status_code == 400
    assert (await get(control, "/admin/api/forecast")).status_code == 401


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("by=shoe_size", "shoe_size"),
        ("trend=1", "granularity"),
        ("since=yesterdayish", "since"),
        ("colour=red", "colour"),
    ],
)
async def test_a_report_that_makes_no_sense_names_what_does_not(host, query, says):
    answer = await get(await host.start(), f"/admin/api/report?{query}", AUTHORIZED)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/admin/api/report", "/admin/api/status"])
@pytest.mark.parametrize("given", ["", "Bearer wrong", KEY, f"Bearer {KEY}x", "Bearer \xe4"])
async def test_the_api_needs_the_admin_key(host, path, given):
    headers = {"authorization": given.encode("latin-1")} if given else None
    answer = await get(await host.start(), path, headers)
    assert answer.status_code == 401


async def test_without_an_admin_key_there_is_no_api(host):
    control = await host.start(replace(host.config, admin=Admin()))
    answer = await get(control, "/admin/api/report", {"authorization": "Bearer "})
    assert answer.status_code == 403
    assert "admin.key" in answer.json()["error"]["message"]


async def test_status_tells_what_is_in_force(host):
    control = await host.start()
    await host.worker()
    await until(lambda: control.in_force)
    status = (await get(control, "/admin/api/status", AUTHORIZED)).json()
    assert (status["revision"], status["revision_in_force"]) == (1, 1)
    assert status["workers"] == [{"pid": os.getpid(), "revision": 1}]


async def test_metrics_show_budgets_and_rows(host):
    control = await host.start()
    worker = await host.worker()
    await host.granted(worker, USD // 10)
    host.call(worker, USD // 10, 250_000_000 // 10)
    await control.flush()
    answer = await get(control, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'tollkeeper_budget_limit_usd{period="total",scope="team/acme/search"} 1.0' in answer.text
    assert 'tollkeeper_budget_spent_usd{period="total",scope="team/acme/search"} 0.025' in (
        answer.text
    )
    assert "tollkeeper_ledger_rows_total 1.0" in answer.text
    assert "tollkeeper_workers 1.0" in answer.text


async def test_an_unreachable_ledger_is_said_and_metrics_go_on(host, monkeypatch):
    control = await host.start()

    def unreachable(url, *, read_only, **_):
        raise OSError("gone")

    await control.parts.readers.close()
    monkeypatch.setattr(readers, "open_engine", unreachable)
    assert (await get(control, "/admin/api/report", AUTHORIZED)).status_code == 503
    answer = await get(control, "/metrics")
    assert answer.status_code == 200
    assert "tollkeeper_budget_limit_usd{" not in answer.text


async def test_control_without_a_ledger_is_not_ready(tmp_path):
    control = Control(Host(tmp_path).config, CLOCK)
    assert (await get(control, "/readyz")).status_code == 503
