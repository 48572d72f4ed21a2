"""Alerts are raised once and delivered until that is known."""

import asyncio

import pytest
from sqlalchemy import select

from db import alerts
from db.alert_configs import EXHAUSTION, PERCENT, load_thresholds
from db.alerts import DELIVERED, ENDED, GIVEN_UP, PENDING, RAISED, NewAlert, identity_of
from db.catalog_sync import sync_config
from db.catalog_types import Declared, DeclaredBudget
from db.models import AlertConfig, AlertDelivery

NOW = 1_767_225_600_000
NEW = NewAlert(
    "budget_threshold", "a|1", "warning", "80 % spent", "team/acme/search", {"percent": "80"}
)


@pytest.fixture
def raise_(write):
    async def raise_(new=NEW, channels=("chat", "ops"), now_ms=NOW, **options):
        return await write(
            alerts.raise_alert, new, channels, host_id="host", now_ms=now_ms, **options
        )

    return raise_


async def test_the_first_to_insert_raises(raise_, write):
    first = await raise_()
    assert first is not None
    assert await raise_(now_ms=NOW + 1) is None
    assert await raise_(NEW._replace(identity="a|2")) not in (None, first)
    assert await write(alerts.known, ["a|1", "a|2", "a|3"]) == {"a|1", "a|2"}
    assert await write(alerts.known, []) == set()


async def test_of_hosts_that_race_one_raises_and_one_delivers(raise_, write):
    raised = await asyncio.gather(*(raise_(channels=["ops"]) for _ in range(6)))
    assert len([id_ for id_ in raised if id_ is not None]) == 1
    (attempt,) = await write(alerts.due, ["ops"], NOW, 10)
    claims = [write(alerts.claim, attempt, NOW + 60_000) for _ in range(6)]
    claimed = await asyncio.gather(*claims)
    assert len([message for message in claimed if message is not None]) == 1


async def test_a_delivery_is_tried_by_one_and_again_when_its_time_is_up(raise_, write):
    id_ = await raise_(channels=["ops"])
    (attempt,) = await write(alerts.due, ["ops", "unknown"], NOW, 10)
    assert attempt == (id_, RAISED, "ops", 0, NOW)
    message = await write(alerts.claim, attempt, NOW + 60_000)
    assert message[:4] == (id_, "budget_threshold", RAISED, "warning")
    assert message.facts == {"percent": "80"}
    assert await write(alerts.claim, attempt, NOW + 60_000) is None  # another host has it
    assert await write(alerts.due, ["ops"], NOW + 59_999, 10) == []
    (again,) = await write(alerts.due, ["ops"], NOW + 60_000, 10)  # whoever had it is dead
    assert again.attempts == 1
    assert await write(alerts.claim, attempt, NOW + 90_000) is None  # by what was known before
    assert await write(alerts.claim, again, NOW + 90_000) is not None
    await write(alerts.settle, again, DELIVERED, now_ms=NOW + 61_000)
    assert await write(alerts.due, ["ops"], NOW + 10**9, 10) == []
    assert await write(alerts.claim, again._replace(attempts=2), NOW) is None


async def test_only_channels_that_are_known_here_are_tried(raise_, write):
    await raise_(channels=["ops", "chat"])
    assert [a.channel for a in await write(alerts.due, ["chat"], NOW, 10)] == ["chat"]
    assert await write(alerts.due, [], NOW, 10) == []


async def test_what_failed_waits_and_is_given_up_with_its_error(raise_, write):
    await raise_(channels=["ops"])
    (attempt,) = await write(alerts.due, ["ops"], NOW, 10)
    await write(alerts.claim, attempt, NOW + 60_000)
    await write(
        alerts.settle, attempt, PENDING, now_ms=NOW, next_at_ms=NOW + 5_000, error="x" * 900
    )
    assert await write(alerts.due, ["ops"], NOW + 4_999, 10) == []
    (again,) = await write(alerts.due, ["ops"], NOW + 5_000, 10)
    await write(alerts.claim, again, NOW + 60_000)
    await write(alerts.settle, again, GIVEN_UP, now_ms=NOW + 6_000, error="status 500")
    (found,) = await write(alerts.recent)
    assert found.deliveries == ((RAISED, "ops", GIVEN_UP, 2, NOW + 6_000, "status 500"),)


async def test_an_end_is_told_once(raise_, write):
    id_ = await raise_()
    assert await write(alerts.end_alert, id_, ["ops"], NOW + 1)
    assert not await write(alerts.end_alert, id_, ["ops"], NOW + 2)
    assert not await write(alerts.end_alert, "another", ["ops"], NOW + 2)
    (found,) = await write(alerts.recent)
    assert (found.message.event, found.message.ended_at_ms) == (ENDED, NOW + 1)
    assert [(d.event, d.channel) for d in found.deliveries] == [
        (RAISED, "chat"), (RAISED, "ops"), (ENDED, "ops"),
    ]  # fmt: skip


async def test_recent_alerts_come_newest_first_and_without_reports(raise_, write):
    for number in range(3):
        await raise_(NEW._replace(identity=str(number)), now_ms=NOW + number)
    report = NewAlert(alerts.REPORT, "r", "info", "weekly")
    await raise_(report, now_ms=NOW + 9)
    shown = await write(alerts.recent, limit=2)
    assert [each.message.raised_at_ms for each in shown] == [NOW + 2, NOW + 1]
    assert len(await write(alerts.recent, since_ms=NOW + 1)) == 2
    (only,) = await write(alerts.recent, kinds=[alerts.REPORT])
    assert only.message.summary == "weekly"
    assert await write(alerts.forget, NOW + 2) == 2
    assert await write(lambda c: c.execute(select(AlertDelivery.alert_id)).all())
    assert len(await write(alerts.recent)) == 1


def test_identities_are_bounded_and_differ():
    assert identity_of("kind", 1, "x") == "kind|1|x"
    long = identity_of("kind", "y" * 1000, 1)
    assert len(long) == 256
    assert long != identity_of("kind", "y" * 1000, 2)


async def test_thresholds_follow_the_options_of_budgets(write):
    def declared(**options):
        budget = DeclaredBudget("team/acme/search", "usd", 10**9, "day", options=options)
        return Declared(teams=(("acme", "search"),), budgets=(budget,))

    await write(sync_config, declared(alert_at=[80, 50.5], alert_exhaustion_h=[24]), NOW)
    ((budget_id, found),) = (await write(load_thresholds)).items()
    assert found == {PERCENT: [50_500, 80_000], EXHAUSTION: [24_000]}
    await write(sync_config, declared(alert_at=[80]), NOW)
    assert await write(load_thresholds) == {budget_id: {PERCENT: [80_000]}}
    await write(sync_config, Declared(), NOW)
    assert await write(load_thresholds) == {}
    assert await write(lambda c: c.execute(select(AlertConfig.id)).all()) == []
