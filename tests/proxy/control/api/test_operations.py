"""What operators do over HTTP as by command: leases, a test alert, verification, sources."""

import pytest
from sqlalchemy import update

from db.engine import open_engine
from db.models import Epoch
from db.verify import verify
from proxy.control import identity
from tests.proxy.control.api.test_api import asked

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_lease_of_a_host_that_is_gone_is_given_up(site):
    (lease,) = (await asked(site.admin, "GET", "/leases"))[1]
    path = f"/leases/{lease['epoch']}/release"
    assert (lease["state"], lease["scope"]) == ("open", "team/acme/search")
    status, body = await asked(site.admin, "POST", path, json={})
    assert (status, body["error"]["code"]) == (400, "invalid")  # its control is running
    assert (await asked(site.admin, "POST", "/leases/999/release", json={}))[0] == 404

    def lost(connection):
        epoch = update(Epoch).where(Epoch.id == lease["epoch"])
        connection.execute(epoch.values(state="lost"))

    def open_again(connection):
        connection.execute(update(Epoch).values(state="open"))

    await site.control.parts.transactions.run(lost)
    assert (await asked(site.admin, "GET", "/leases"))[1][0]["state"] == "lost"
    assert await asked(site.admin, "POST", path, json={}) == (200, {"done": True})
    assert (await asked(site.admin, "GET", "/leases"))[1] == []
    _, log = await asked(site.admin, "GET", "/audit?action=lease.release")
    (entry,) = log["items"]
    assert (entry["who"], entry["target"]) == ("admin", f"epoch/{lease['epoch']}")
    assert entry["before"]["leases"][0]["granted"] > 0
    await site.control.parts.transactions.run(open_again)


async def test_the_ledger_is_verified(site):
    """The prices of this ledger's calls are nobody's: the command says so, too."""
    status, found = await asked(site.admin, "GET", "/verify")
    engine = open_engine(site.control.config.database.url, read_only=True)
    expected = [each._asdict() for each in await verify(engine)]
    await engine.dispose()
    assert (status, found) == (200, expected)
    assert {each["invariant"] for each in found} == {"I5"}


async def test_an_alert_is_tried(site):
    status, (tried,) = await asked(site.admin, "POST", "/alerts/test", json={})
    assert (status, tried["channel"], tried["status"]) == (200, "log", "ok")
    assert (await asked(site.admin, "POST", "/alerts/test", json={"channel": "fax"}))[0] == 404


async def test_sources_that_disagree(site):
    _, page = await asked(site.viewer, "GET", "/prices/disagreements?provider=o*&limit=2")
    assert len(page["items"]) == 2
    for each in page["items"]:
        assert each["model"].startswith("o")
        assert each["price"] != each["other_price"]
    assert page["next"] == "2"


async def test_whoever_asks_too_often_waits(site, monkeypatch):
    monkeypatch.setattr(identity, "REQUESTS_MAX", 0)
    answer = await site.admin.get("/status")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
    assert 0 < int(answer.headers["retry-after"]) <= identity.REQUEST_WINDOW_S + 1
