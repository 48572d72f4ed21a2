"""Calls of months that are not kept go by themselves, once a day."""

import asyncio
import logging
from types import SimpleNamespace

import pytest
from sqlalchemy import func, select

from db import schema
from db.engine import open_engine
from db.models import UsageCost
from db.verify import verify
from proxy.config import Config, Database, Retention
from proxy.control import retaining
from proxy.control.clock import Clock
from proxy.control.retaining import EVERY_S, Retaining
from tests.db.books import clean_books
from tests.factories import NOW_MS

MONTHS_4 = 125 * 86_400_000  # from the books of January 1 to May


class FakeControl:
    def __init__(self, url, keep_months):
        self.config = Config(database=Database(url), retention=Retention(keep_months))
        self.now_ms = NOW_MS + MONTHS_4
        self.clock = Clock(lambda: self.now_ms, lambda: self.now_ms / 1000)
        self.outage = False
        self.ledger_nice = 0


@pytest.fixture
async def ledger(tmp_path):
    """The URL of one with calls of January, an engine on it, and how many calls there are."""
    url = f"sqlite+aiosqlite:///{tmp_path}/ledger.db"
    engine = open_engine(url)
    await schema.ensure(engine)
    async with engine.begin() as connection:
        await connection.run_sync(clean_books)

    async def calls():
        async with engine.connect() as connection:
            return (await connection.execute(select(func.count(UsageCost.call_id)))).scalar_one()

    yield SimpleNamespace(url=url, engine=engine, calls=calls)
    await engine.dispose()


async def test_months_before_those_kept_go_and_the_books_stay_clean(ledger, caplog):
    caplog.set_level(logging.INFO)
    await Retaining(FakeControl(ledger.url, 4)).step()
    assert await ledger.calls() > 0  # of January, in May: one of the four
    await Retaining(later := FakeControl(ledger.url, 4)).step()
    later.now_ms += 31 * 86_400_000
    await Retaining(later).step()
    assert await ledger.calls() == 0
    assert await verify(ledger.engine) == []
    (record,) = [each for each in caplog.records if "removed" in each.message]
    assert record.message == "calls before 2026-02-01 removed"
    assert record.calls > 0


@pytest.mark.parametrize(("keep_months", "outage"), [(0, False), (1, True)])
async def test_nothing_goes_unasked_or_in_an_outage(ledger, keep_months, outage):
    control = FakeControl(ledger.url, keep_months)
    control.outage = outage
    before = await ledger.calls()
    await Retaining(control).step()
    assert await ledger.calls() == before > 0


async def test_once_a_day_whatever_happens(ledger, monkeypatch, caplog):
    runs, control = [], FakeControl(ledger.url, 4)

    async def fail(*_):
        runs.append(control.now_ms)
        raise OSError("the disk is away")

    monkeypatch.setattr(retaining, "retain", fail)
    slept = 0

    async def sleep(seconds):
        nonlocal slept
        slept += seconds
        control.now_ms += round(seconds * 1000)
        await asyncio.sleep(0)
        if slept > 2.5 * EVERY_S:
            await asyncio.Event().wait()  # until it is closed

    retainer = Retaining(control, sleep)
    retainer.start()
    while slept <= 2.5 * EVERY_S:  # noqa: ASYNC110 - the test makes the time
        await asyncio.sleep(0)
    await retainer.close()
    assert len(runs) == 3
    assert runs[2] - runs[0] == 2 * EVERY_S * 1000
    assert "the disk is away" in caplog.text
