"""Deliveries: tried again, given up, once for all hosts, whatever is killed when."""

import asyncio

import httpx
import pytest
import respx
from msgspec.structs import replace
from sqlalchemy import select

from db import alerts as db
from db.alerts import NewAlert
from db.models import AlertDelivery
from proxy.config import AlertChannel
from proxy.control.alerts import deliveries
from proxy.control.alerts.alerting import Alerting
from tests.proxy.control.alerts.books import NOW_MS

URL = "https://ops.example.com/hook"
NEW = NewAlert("budget_threshold", "a|1", "warning", "80 % is spent")


@pytest.fixture
def hook(control):
    control.alerts(channels={"ops": AlertChannel("webhook", url=URL, secret="s")})
    with respx.mock:
        yield respx.post(URL)


@pytest.fixture
async def raised(write):
    return await write(db.raise_alert, NEW, ["ops"], host_id="h", now_ms=NOW_MS)


@pytest.fixture
def delivery(write):
    async def delivery():
        (found,) = await write(db.recent)
        return found.deliveries[0]

    return delivery


async def test_a_few_tries_within_seconds(hook, raised, alerting, delivery, naps, control):
    hook.side_effect = [httpx.Response(503), httpx.ConnectError("no"), httpx.Response(200)]
    await alerting.deliver()
    assert (await delivery())[2:4] == ("delivered", 1)
    assert len(naps) == 2
    assert max(naps) <= deliveries.TRY_WAIT_S_MAX
    assert control.counts.deliveries == {("ops", "delivered"): 1}
    keys = {call.request.headers["idempotency-key"] for call in hook.calls}
    assert keys == {raised}


async def test_what_is_refused_is_not_tried_again_at_once(hook, raised, alerting, delivery):
    hook.respond(403)
    await alerting.deliver()
    assert len(hook.calls) == 1
    assert (await delivery())[2:] == ("pending", 1, None, "answered with status 403")


async def test_attempts_grow_apart_until_it_is_given_up(
    hook, raised, alerting, delivery, write, control
):
    hook.respond(500)
    control.config = replace(control.config, alerts=replace(control.config.alerts, give_up_h=4))
    gaps = []
    while (await delivery()).state == "pending":
        await alerting.deliver()
        (next_at_ms,) = await write(lambda c: c.execute(select(AlertDelivery.next_at_ms)).one())
        gaps.append((next_at_ms - control.now_ms) / 1000)
        control.now_ms = next_at_ms
        assert len(gaps) < 100
    assert 45 <= gaps[0] <= 75
    assert 90 <= gaps[1] <= 150
    assert 45 * 60 <= gaps[-1] <= 75 * 60
    assert 2.5 * 3600 < sum(gaps[:-1]) <= 4 * 3600
    counts = control.counts.deliveries
    assert counts == {("ops", "failed"): len(gaps) - 1, ("ops", "given_up"): 1}
    await alerting.deliver()
    assert len(hook.calls) == 3 * len(gaps)


async def test_what_was_cut_short_is_sent_by_the_next_life(
    hook, raised, alerting, delivery, control, naps
):
    """Killed between the claim and the answer: nobody knows whether it arrived."""
    sent, keys = asyncio.Event(), []

    async def hang(request):
        keys.append(request.headers["idempotency-key"])
        sent.set()
        await asyncio.Event().wait()

    hook.side_effect = hang
    task = asyncio.create_task(alerting.deliver())
    await sent.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await alerting.close()
    assert (await delivery())[2:4] == ("pending", 1)

    def arrive(request):
        keys.append(request.headers["idempotency-key"])
        return httpx.Response(200)

    hook.side_effect = arrive
    following = Alerting(control, naps)
    await following.deliver()
    assert len(keys) == 1  # it might still be under way
    control.later(deliveries.CLAIM_MS / 1000)
    await following.deliver()
    await following.close()
    assert (await delivery())[2:4] == ("delivered", 2)
    assert keys == [raised, raised]


async def test_of_hosts_that_look_at_the_same_time_one_sends(hook, raised, control, naps):
    hook.respond(200)
    hosts = [Alerting(control, naps) for _ in range(4)]
    await asyncio.gather(*(host.deliver() for host in hosts))
    for host in hosts:
        await host.close()
    assert len(hook.calls) == 1


async def test_a_channel_that_is_not_configured_here_waits(raised, alerting, delivery, control):
    await alerting.deliver()
    assert (await delivery())[2:4] == ("pending", 0)


async def test_a_bug_in_a_channel_is_an_error_like_others(
    hook, raised, alerting, delivery, monkeypatch, caplog
):
    async def broken(*_):
        raise KeyError("x")

    monkeypatch.setattr(deliveries.channels, "deliver", broken)
    await alerting.deliver()
    assert (await delivery())[2:] == ("pending", 1, None, "internal error (KeyError)")
    assert "cannot be sent" in caplog.text
