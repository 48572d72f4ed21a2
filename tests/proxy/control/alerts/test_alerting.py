"""One round after the other: what the host counts, outages, routes, reports that are due."""

import asyncio
import json

import httpx
import pytest
import respx
from msgspec.structs import replace

from db import alerts as db
from proxy.alert_kinds import KINDS
from proxy.config import AlertChannel, AlertRoute, Alerts, Report
from proxy.control.alerts.alerting import Alerting
from proxy.control.alerts.host import ALERTS_MAX
from proxy.control.alerts.routes import route
from tests.factories import a_row, a_stored_key, insert_rows, roll_up
from tests.proxy.control.alerts.books import NOW_MS, USD, a_budget, declare, spend, told
from tests.source_code import read

URL = "https://ops.example.com/hook"
OPS = AlertChannel("webhook", url=URL, secret="s")
DAY_S = 86_400


@pytest.fixture
def hook(control):
    control.alerts(channels={"ops": OPS})
    with respx.mock:
        yield respx.post(URL).respond(200)


def bodies(hook):
    return [json.loads(call.request.content) for call in hook.calls]


# --- from spend to the message ---------------------------------------------------------------


async def test_a_threshold_arrives(hook, write, alerting):
    await write(spend, await write(declare, a_budget()), 11 * USD)
    await alerting.look()
    await alerting.deliver()
    (body,) = bodies(hook)
    assert (body["kind"], body["scope"], body["facts"]["at"]) == (
        "budget_threshold", "team/acme/search", "50",
    )  # fmt: skip
    await alerting.look()
    await alerting.deliver()
    assert len(hook.calls) == 1


def test_every_kind_is_documented_with_its_severity():
    text = read("docs/alerts.md")
    for name, kind in KINDS.items():
        assert f"| `{name}` | {kind.severity} |" in text


def test_routes():
    everywhere = Alerts(channels={"ops": OPS, "chat": OPS})
    assert route(everywhere, "dead_letter", "") == {"ops", "chat"}
    assert route(Alerts(), "dead_letter", "") == {"log"}
    some = replace(
        everywhere,
        routes=[
            AlertRoute(to=["ops"], kinds=["budget_*"]),
            AlertRoute(to=["chat", "log"], scopes=["team/acme/*"]),
        ],
    )
    assert route(some, "budget_threshold", "team/acme/search") == {"ops", "chat", "log"}
    assert route(some, "budget_threshold", "team/other/x") == {"ops"}
    assert route(some, "dead_letter", "") == set()


# --- what the host counts --------------------------------------------------------------------


async def test_what_grows_is_told_once_a_day(write, alerting, control):
    control.notable("unpriced_model", **{"openai/new": 2})
    control.dead_letters = 1
    for _ in range(2):
        await alerting.look()
    control.notable("unpriced_model", **{"openai/new": 5, "openai/\x1b[2J": 1})
    await alerting.look()
    found = await write(told)
    assert sorted(each.summary.partition(" on host")[0] for each in found) == [
        "1 record could not be stored",
        "no price for openai/new: 2 calls",
        "no price for openai/\N{REPLACEMENT CHARACTER}[2J: 1 call",
    ]
    control.later(DAY_S)
    await alerting.look()
    assert len(await write(told)) == 3  # nothing new today
    control.notable("unpriced_model", **{"openai/new": 6})
    await alerting.look()
    assert len(await write(told)) == 4


async def test_a_call_above_its_hold_is_critical(write, alerting, control):
    control.notable("ceiling_violation", **{"openai/gpt-5": 1})
    await alerting.look()
    (found,) = await write(told)
    assert (found.kind, found.severity) == ("ceiling_violation", "critical")


async def test_callers_cannot_make_any_number_of_alerts(write, alerting, control):
    control.notable("unpriced_model", **{f"openai/{n}": 1 for n in range(3 * ALERTS_MAX)})
    for _ in range(3):
        await alerting.look()
    assert len(await write(told)) == ALERTS_MAX
    assert control.counts.alerts["unpriced_model"] == ALERTS_MAX


async def test_hosts_tell_of_a_model_once(write, control, naps):
    control.notable("unpriced_model", **{"openai/new": 2})
    for _ in range(2):
        host = Alerting(control, naps)
        await host.look()
        await host.close()
    assert len(await write(told)) == 1


# --- outages ---------------------------------------------------------------------------------


async def test_an_outage_is_told_while_it_lasts_and_again_when_it_is_over(
    hook, write, alerting, control
):
    control.outage = True
    await alerting.look()
    assert not hook.calls  # a restart of the database is none
    for _ in range(5):
        control.later(10)
        await alerting.look()
    (begin,) = bodies(hook)
    assert (begin["kind"], begin["event"]) == ("ledger_outage", "raised")
    control.outage = False
    await alerting.look()
    await alerting.deliver()
    assert [body["event"] for body in bodies(hook)] == ["raised", "ended"]
    assert bodies(hook)[1]["id"] == begin["id"]
    (found,) = await write(db.recent)
    assert found.message.raised_at_ms == NOW_MS
    assert found.message.ended_at_ms == NOW_MS + 50_000
    assert [(d.event, d.state) for d in found.deliveries] == [
        ("raised", "delivered"), ("ended", "delivered"),
    ]  # fmt: skip
    assert control.counts.alerts == {"ledger_outage": 1}
    await alerting.look()
    assert len(await write(told)) == 1


async def test_who_could_not_be_told_of_an_outage_is_told_later(hook, write, alerting, control):
    hook.side_effect = httpx.ConnectError("no")
    control.outage = True
    for _ in range(3):
        await alerting.look()
        control.later(10)
    tried = len(hook.calls)
    assert tried == 3  # one attempt; the next one is a minute later
    control.outage = False
    await alerting.look()
    hook.side_effect = None
    hook.respond(200)
    await alerting.deliver()
    assert sorted(body["event"] for body in bodies(hook)[tried:]) == ["ended", "raised"]


async def test_a_short_outage_leaves_nothing(hook, write, alerting, control):
    control.parts.leases.outage = True
    await alerting.look()
    control.parts.leases.outage = False
    await alerting.look()
    control.later(60)
    await alerting.look()
    assert await write(told) == []


async def test_a_loop_goes_on_after_an_error_and_says_it_once(control, caplog):
    rounds = []

    async def nap(seconds):
        rounds.append(seconds)
        if len(rounds) == 4:
            raise asyncio.CancelledError

    async def step():
        raise OSError("no database")

    alerting = Alerting(control, nap)
    with pytest.raises(asyncio.CancelledError):
        await alerting._loop("look", 5, step)
    assert caplog.text.count("no database") == 1
    assert rounds == [5] * 4


async def test_old_alerts_are_forgotten(write, alerting, control):
    control.dead_letters = 1
    await alerting.look()
    control.later(401 * DAY_S)
    await alerting.look()
    assert await write(told) == []


# --- scheduled reports -----------------------------------------------------------------------


@pytest.fixture
def calls(write):
    def store(connection):
        key = a_stored_key(connection)
        yesterday = NOW_MS - DAY_S * 1000
        rows = [a_row(key, at_ms=yesterday, cost_nano=3 * USD), a_row(key, at_ms=NOW_MS)]
        insert_rows(connection, *rows)
        roll_up(connection, *rows)

    return lambda: write(store)


def daily(**changes):
    return replace(Report("daily", at="daily 12:00", by=["provider"], to=["ops"]), **changes)


async def test_a_report_is_sent_once_per_time(hook, calls, control, naps):
    await calls()
    control.config = replace(control.config, reports=[daily()])
    for _ in range(2):  # two hosts, or one that was started again
        host = Alerting(control, naps)
        await host.look()
        await host.look()
        await host.deliver()
        await host.close()
    (body,) = bodies(hook)
    assert body["summary"] == (
        "daily: 3 USD, 1 calls, from 2026-11-17T00:00:00Z to 2026-11-18T00:00:00Z"
    )
    assert [row["cost_usd"] for row in body["rows"]] == ["3"]
    control.later(DAY_S)
    host = Alerting(control, naps)
    await host.look()
    await host.deliver()
    await host.close()
    assert bodies(hook)[1]["facts"]["since"] == "2026-11-18T00:00:00Z"
    assert len(bodies(hook)) == 2


async def test_a_report_is_not_among_alerts(hook, write, alerting, control):
    control.config = replace(control.config, reports=[daily()])
    await alerting.look()
    assert await write(told) == []
    assert len(await write(told, "scheduled_report")) == 1


async def test_what_was_due_long_ago_is_not_sent(hook, write, alerting, control):
    control.config = replace(control.config, reports=[daily(at="weekly monday 12:00")])
    await alerting.look()
    assert await write(told, "scheduled_report") == []


async def test_a_report_that_cannot_be_made_is_tried_again(hook, write, alerting, control):
    control.config = replace(control.config, reports=[daily(by=["nonsense"])])
    await alerting.look()
    await alerting.deliver()
    assert not hook.calls
    (found,) = await write(db.recent, kinds=[db.REPORT])
    assert "cannot group or filter by 'nonsense'" in found.deliveries[0].error
