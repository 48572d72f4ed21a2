"""`tollkeeper alerts`, and what an operator sees when a channel does not work."""

import asyncio
import json
from functools import partial

import pytest
import respx

from db import alerts as db
from db.alerts import NewAlert
from db.transactions import open_transactions
from tests.proxy.cli_runner import CONFIG, Tollkeeper
from tests.proxy.control.alerts.books import NOW_MS

URL = "https://ops.example.com/T0KEN"
ALERTS = f"""
alerts:
  channels:
    ops: {{kind: webhook, url: "{URL}", secret: s3cret}}
    chat: {{kind: slack, url: "{URL}2"}}
"""


@pytest.fixture
def tollkeeper(tmp_path):
    return Tollkeeper(tmp_path, CONFIG + ALERTS)


@respx.mock
def test_test_sends_one_through_every_channel(tollkeeper):
    hook, chat = respx.post(URL).respond(200), respx.post(f"{URL}2").respond(200)
    rows = json.loads(tollkeeper.ok("alerts", "test", "--format", "json"))
    assert [(row["channel"], row["status"]) for row in rows] == [
        ("log", "ok"), ("ops", "ok"), ("chat", "ok"),
    ]  # fmt: skip
    assert json.loads(hook.calls.last.request.content)["kind"] == "test"
    assert b"nothing is wrong" in chat.calls.last.request.content


@respx.mock
def test_a_channel_that_fails_is_named_and_its_url_is_not(tollkeeper):
    respx.post(URL).respond(404)
    result = tollkeeper.run("alerts", "test", "--channel", "ops")
    assert result.exit_code == 1
    assert "fail, answered with status 404" in result.output
    assert "T0KEN" not in result.output


def test_an_unknown_channel(tollkeeper):
    result = tollkeeper.run("alerts", "test", "--channel", "fax")
    assert result.exit_code == 2
    assert "no channel is called 'fax'; there are: chat, log, ops" in result.output


def test_list(tollkeeper):
    tollkeeper.ok("db", "upgrade")

    async def store():
        transactions = open_transactions(
            f"sqlite+aiosqlite:///{tollkeeper.directory}/tollkeeper.db"
        )
        new = NewAlert("dead_letter", "a", "critical", "1 record could not be stored")
        work = partial(db.raise_alert, new=new, channels=["ops"], host_id="h", now_ms=NOW_MS)
        await transactions.run(work)
        await transactions.close()

    assert "no alerts" in tollkeeper.run("alerts", "list").output
    asyncio.run(store())
    (row,) = json.loads(tollkeeper.ok("alerts", "list", "--format", "json"))
    assert (row["raised_at"], row["deliveries"]) == ("2026-11-18T12:30:00Z", {"ops": "pending"})
    assert "1 record could not be stored" in tollkeeper.ok("alerts", "list")
    assert tollkeeper.ok("alerts", "list", "--kind", "test", "--format", "json") == "[]\n"
