"""Thresholds of budgets: once per window, raised limits, late charges, expected ends."""

import asyncio

import pytest
from sqlalchemy import select, update

from db.models import Team, Window
from proxy.control.alerts import budgets
from proxy.control.alerts.alerting import Alerting
from proxy.control.alerts.budgets import crossed, exhausting
from tests.factories import TeamIds, a_row, a_stored_key, insert_rows, roll_up
from tests.proxy.control.alerts.books import (
    DAY_S,
    NOW_MS,
    TODAY,
    USD,
    a_budget,
    declare,
    raise_limit,
    spend,
    told,
)

HOUR_MS = 3_600_000


def percents(found):
    return [each.facts["at"] for each in found]


async def test_each_threshold_is_told_once_per_window(write, alerting, control):
    budget_id = await write(declare, a_budget())
    for spent in (0, 9.99, 10, 12, 17, 19, 20):
        await write(spend, budget_id, round(spent * USD))
        await alerting.look()
    found = await write(told)
    assert percents(found) == ["50", "80"]
    assert found[0].summary == (
        "budget of team/acme/search per day: 50 % is spent, 10.00 USD of 20.00 USD"
    )
    assert found[1].facts["spent"] == "17"
    assert control.counts.alerts == {"budget_threshold": 2}
    control.later(DAY_S)
    await write(spend, budget_id, 11 * USD, TODAY + DAY_S)
    await alerting.look()
    assert percents(await write(told)) == ["50", "80", "50"]


async def test_the_boundary_is_exact(write, ask):
    budget_id = await write(declare, a_budget(limit=3 * USD, alert_at=[33.333]))
    await write(spend, budget_id, 999_989_999)
    assert await ask(crossed, NOW_MS) == []
    await write(spend, budget_id, 999_990_000)
    assert percents(await ask(crossed, NOW_MS)) == ["33.333"]


@pytest.mark.parametrize(("unit", "limit", "spent"), [("tokens", 1000, 810), ("requests", 5, 4)])
async def test_budgets_in_tokens_and_requests(write, ask, unit, limit, spent):
    budget_id = await write(declare, a_budget(unit=unit, limit=limit))
    await write(spend, budget_id, spent)
    found = await ask(crossed, NOW_MS)
    assert percents(found) == ["50", "80"]
    assert found[0].facts["spent"] == spent
    assert f"{spent} {unit} of" in found[0].summary


async def test_without_thresholds_or_a_limit_nothing_is_told(write, ask):
    assert await ask(crossed, NOW_MS) == []
    budget_id = await write(declare, a_budget(limit=0), a_budget(period="request"))
    await write(spend, budget_id, 5)
    assert await ask(crossed, NOW_MS) == []
    assert await ask(exhausting, NOW_MS) == []


async def test_a_raised_limit_tells_again_once_it_is_crossed_again(write, alerting, control):
    budget_id = await write(declare, a_budget())
    await write(spend, budget_id, 16 * USD)
    await alerting.look()
    await write(raise_limit, budget_id, 40 * USD)
    await alerting.look()
    assert percents(await write(told)) == ["50", "80"]  # 16 of 40 is below both
    control.later(1)
    await write(spend, budget_id, 20 * USD)
    await alerting.look()
    assert percents(await write(told)) == ["50", "80", "50"]
    await write(raise_limit, budget_id, 24 * USD)  # lowered: 80 % of less was told before
    await alerting.look()
    assert len(await write(told)) == 4
    await write(raise_limit, budget_id, 22 * USD)
    await alerting.look()
    assert len(await write(told)) == 4


async def test_a_temporary_raise_counts(write, alerting):
    budget_id = await write(declare, a_budget())
    await write(spend, budget_id, 16 * USD)
    await write(lambda c: c.execute(update(Window).values(extra=20 * USD)))
    await alerting.look()
    assert await write(told) == []


async def test_a_budget_that_comes_back_tells_nothing_twice(write, alerting):
    budget_id = await write(declare, a_budget())
    await write(spend, budget_id, 16 * USD)
    await alerting.look()
    await write(declare)
    await alerting.look()
    assert await write(declare, a_budget()) == budget_id
    await alerting.look()
    assert len(await write(told)) == 2


async def test_charges_that_come_after_a_window_has_ended(write, alerting, control):
    """Calls that began before midnight settle after it."""
    budget_id = await write(declare, a_budget())
    control.now_ms = (TODAY + DAY_S + budgets.LATE_S - 1) * 1000
    await write(spend, budget_id, 11 * USD)
    await alerting.look()
    (found,) = await write(told)
    assert found.facts["window_start"] == "2026-11-18T00:00:00Z"
    control.later(1)
    await write(spend, budget_id, 20 * USD)
    await alerting.look()
    assert len(await write(told)) == 1


async def test_of_hosts_that_see_the_same_one_tells(write, control, naps):
    """While a flush raises the spend, each look of each host may be the first to see it."""
    budget_id = await write(declare, a_budget(alert_at=list(range(5, 101, 5))))
    hosts = [Alerting(control, naps) for _ in range(3)]

    async def flush():
        for dollars in range(0, 21, 4):
            await write(spend, budget_id, dollars * USD)

    async def look(host):
        for _ in range(6):
            await host.look()

    await asyncio.gather(flush(), *(look(host) for host in hosts))
    await hosts[0].look()
    for host in hosts:
        await host.close()
    assert sorted(map(int, percents(await write(told)))) == list(range(5, 101, 5))
    assert control.counts.alerts == {"budget_threshold": 20}


# --- expected to be spent --------------------------------------------------------------------


@pytest.fixture
async def two_dollars_a_day(write):
    """Ten weeks of 2 USD a day of the team, and a budget of 60 for the month, half of it spent."""

    def store(connection):
        budget_id = declare(
            connection,
            a_budget(limit=46 * USD, period="month", alert_at=[], alert_exhaustion_h=[200, 72]),
        )
        key = a_stored_key(connection, team=_team(connection))
        rows = [
            a_row(key, at_ms=TODAY * 1000 - n * DAY_S * 1000 + HOUR_MS, cost_nano=2 * USD)
            for n in range(1, 71)
        ]
        insert_rows(connection, *rows)
        roll_up(connection, *rows)
        return budget_id

    return await write(store)


def _team(connection):
    return TeamIds(*connection.execute(select(Team.organization_id, Team.id)).one())


MONTH = TODAY - 17 * DAY_S


async def test_a_budget_that_is_expected_to_be_spent_in_time(write, ask, two_dollars_a_day):
    """35 of 46 on the 18th at 12:30, at 2 a day: 11 are left for 5.5 days."""
    await write(spend, two_dollars_a_day, 35 * USD, MONTH)
    (found,) = await ask(exhausting, NOW_MS)
    assert (found.kind, found.facts["at"]) == ("budget_exhaustion", "200")
    assert found.facts["expected_at"].startswith("2026-11-24")
    await write(spend, two_dollars_a_day, 41 * USD, MONTH)  # 5 are left: 2.5 days
    assert percents(await ask(exhausting, NOW_MS)) == ["72", "200"]
    await write(spend, two_dollars_a_day, 46 * USD, MONTH)  # it is spent: nothing to expect
    assert await ask(exhausting, NOW_MS) == []


async def test_an_expected_end_is_told_once_and_looked_for_now_and_then(
    write, alerting, control, two_dollars_a_day, monkeypatch
):
    await write(spend, two_dollars_a_day, 35 * USD, MONTH)
    await alerting.look()
    assert percents(await write(told)) == ["200"]
    await write(spend, two_dollars_a_day, 41 * USD, MONTH)
    await alerting.look()
    assert len(await write(told)) == 1  # not yet: it reads weeks of history
    control.later(300)
    await alerting.look()
    assert percents(await write(told)) == ["200", "72"]

    def no_more(*_):
        raise AssertionError("there is nothing left to tell")

    monkeypatch.setattr(budgets, "exhausted_at_ms", no_more)
    control.later(300)
    await alerting.look()
    assert len(await write(told)) == 2
