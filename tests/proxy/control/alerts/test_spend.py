"""Anomalies from the rollups: of which groups, in which hours, how often."""

import pytest

from proxy.config import Anomalies
from proxy.control.alerts.spend import Watched, anomalies
from tests.factories import a_row, a_stored_key, a_stored_team, roll_up
from tests.proxy.control.alerts.books import NOW_MS, USD, told

HOUR_MS = 3_600_000
WEEK_MS = 7 * 24 * HOUR_MS
TEAMS = Watched("team", 8, 5 * USD, 5.0)


@pytest.fixture
def spent(write):
    """Store spend of a team: pairs of weeks ago and dollars."""

    async def spent(team, *amounts, at_ms=NOW_MS):
        def store(connection):
            key = a_stored_key(connection, name=team, team=a_stored_team(connection, team=team))
            rows = [
                a_row(key, at_ms=at_ms - weeks * WEEK_MS, cost_nano=round(usd * USD))
                for weeks, usd in amounts
            ]
            roll_up(connection, *rows)

        await write(store)

    return spent


def usual(usd=2.0, weeks=8):
    return [(week, usd) for week in range(1, weeks + 1)]


async def test_only_the_team_that_jumps_is_told(spent, ask):
    await spent("search", *usual(), (0, 20))
    await spent("ads", *usual(), (0, 3))
    (found,) = await ask(anomalies, TEAMS, NOW_MS)
    assert (found.scope, found.facts["spent"], found.facts["usual"]) == (
        "team/acme/search", "20", "2",
    )  # fmt: skip
    assert "usually 2.00 USD" in found.summary


async def test_pennies_never_alert(spent, ask):
    await spent("search", *usual(0.01), (0, 4.99))
    assert await ask(anomalies, TEAMS, NOW_MS) == []


async def test_a_group_is_not_judged_by_weeks_before_it_existed(spent, ask):
    await spent("new", *usual(weeks=3), (0, 90))
    await spent("idle", (8, 0.5), (0, 90))  # it exists for long, and never spends at this hour
    assert [each.scope for each in await ask(anomalies, TEAMS, NOW_MS)] == ["team/acme/idle"]


async def test_an_hour_is_looked_at_until_shortly_after_its_end(spent, ask):
    await spent("search", *usual(), (0, 20))
    end = (NOW_MS // HOUR_MS + 1) * HOUR_MS
    assert len(await ask(anomalies, TEAMS, end + 14 * 60_000)) == 1
    assert await ask(anomalies, TEAMS, end + 16 * 60_000) == []


async def test_a_jump_that_goes_on_is_told_once_a_day(spent, alerting, control, write):
    await spent("search", *usual(), (0, 20))
    await spent("search-too", *usual(), (0, 20), at_ms=NOW_MS + HOUR_MS)
    await alerting.look()
    control.later(3600)
    await alerting.look()
    assert [each.scope for each in await write(told, "spend_anomaly")] == [
        "team/acme/search", "team/acme/search-too",
    ]  # fmt: skip
    control.later(60)
    await alerting.look()
    assert len(await write(told)) == 2


async def test_they_can_be_switched_off(spent, alerting, control, write):
    control.alerts(anomalies=Anomalies(by="off"))
    await spent("search", *usual(), (0, 20))
    await alerting.look()
    assert await write(told) == []


@pytest.mark.parametrize("by", ["organization", "user", "key", "project"])
async def test_other_parts_of_the_hierarchy(spent, ask, by):
    await spent("search", *usual(), (0, 20))
    found = await ask(anomalies, Watched(by, 8, 5 * USD, 5.0), NOW_MS)
    scopes = {"organization": ["organization/acme"], "key": ["key/search"]}
    assert [each.scope for each in found] == scopes.get(by, [])
