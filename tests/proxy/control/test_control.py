"""Control with workers in the same process: start, serve, fail, recover, stop."""

import asyncio
import logging
import os
import stat
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import select, update

from db.catalog import create_key
from db.journal import JournalLocked
from db.models import Budget as BudgetRow
from db.models import Epoch, Lease, UsageCost, Window
from db.price_versions import load_versions
from db.transactions import open_transactions
from proxy.channel import LocalChannel
from proxy.config import (
    Budget,
    Config,
    Database,
    Journal,
    Key,
    Organization,
    Pricing,
    Provider,
    Team,
)
from proxy.config import Overlay as PriceOverlay
from proxy.control import control as control_module
from proxy.control.clock import Clock
from proxy.control.control import Control
from tests.db.bank import check_sums
from tests.db.faulty import Faulty
from tests.factories import a_hold, a_settle
from tests.proxy.control.workers import FakeWorker

CLOCK = Clock(lambda: time.time_ns() // 10**6, time.monotonic)
USD = 10**9


def a_config(directory: Path, *, limit_usd: str = "1", **fields: object) -> Config:
    values: dict[str, object] = {
        "database": Database(f"sqlite+aiosqlite:///{directory}/ledger.db"),
        "journal": Journal(dir=str(directory / "journal"), flush_interval_ms=5),
        "providers": {"openai": Provider(base_url="http://127.0.0.1:9", dialect="openai")},
        "organizations": {
            "acme": Organization(teams={"search": Team(keys=[Key("prod", key="s" * 32)])})
        },
        "budgets": [Budget("team/acme/search", period="total", limit_usd=limit_usd)],
    }
    return Config(**(values | fields))


class Host:
    """Controls and workers, one after the other, over the same directory."""

    def __init__(self, directory: Path) -> None:
        self.config = a_config(directory)
        self.control: Control | None = None

    async def start(self, config: Config | None = None) -> Control:
        self.control = Control(config or self.config, CLOCK)
        await self.control.start()
        return self.control

    async def worker(self) -> FakeWorker:
        near, far = LocalChannel.pair()
        worker = FakeWorker(far)
        self.control.connect(near)
        await until(lambda: worker.snapshots)
        self.budget = worker.snapshots[-1].budgets[0]
        self.window = (self.budget.id, 0)
        return worker

    async def granted(self, worker: FakeWorker, amount: int) -> None:
        worker.want([(self.window, amount)])
        await until(lambda: worker.free(self.window) >= amount)

    def hold(self, worker: FakeWorker, amount: int):
        key = worker.snapshots[-1].keys[0]
        hold = a_hold(
            call_id=os.urandom(16),
            amounts=[(self.window, amount)],
            key_id=key.id,
            organization_id=key.organization_id,
            team_id=key.team_id,
            ceiling_nano=amount,
        )
        worker.hold(hold)
        return hold

    def call(self, worker: FakeWorker, amount: int, cost: int):
        hold = self.hold(worker, amount)
        worker.settle(a_settle(hold, cost))
        return hold

    async def crash(self) -> None:
        """As `kill -9` of control: its descriptors are closed, nothing else happens."""
        control, self.control = self.control, None
        control._loop_task.cancel()
        await asyncio.wait([control._loop_task])
        for session in list(control._sessions):
            session.close()
        await control.parts.close()

    async def read(self, query):
        transactions = open_transactions(self.config.database.url)
        try:
            return await transactions.run(lambda c: list(c.execute(query)))
        finally:
            await transactions.close()

    async def rows(self):
        return {row.call_id: row for row in await self.read(select(UsageCost.__table__))}

    async def leases(self):
        rows = await self.read(select(Lease.epoch_id, Lease.granted, Lease.spent))
        return {row[0]: (row[1], row[2]) for row in rows}

    async def check(self) -> None:
        transactions = open_transactions(self.config.database.url)
        await transactions.run(check_sums)
        await transactions.close()


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - any change of state may make it true
            await asyncio.sleep(0.002)


@pytest.fixture
async def host(tmp_path):
    host = Host(tmp_path)
    yield host
    if host.control is not None:
        await host.control.stop()
    await host.check()


# --- the ordinary life ---------------------------------------------------------------------


async def test_a_call_from_want_to_row(host):
    control = await host.start()
    assert control.in_force == 0
    worker = await host.worker()
    await until(lambda: control.in_force == 1)
    await host.granted(worker, USD // 10)
    hold = host.call(worker, USD // 10, 1234)
    await control.flush()
    row = (await host.rows())[hold.call_id]
    assert (row.cost_nano, row.ending) == (1234, "complete")
    epoch_id = worker.snapshots[0].epoch_id
    assert (await host.leases())[epoch_id][1] == 1234


async def test_a_clean_stop_leaves_nothing_committed_but_what_is_spent(host):
    await host.start()
    worker = await host.worker()
    await host.granted(worker, USD // 10)
    host.call(worker, USD // 10, 1234)
    await host.control.stop()
    host.control = None
    assert worker.closed
    assert await host.read(select(Window.committed, Window.overage)) == [(1234, 0)]
    assert await host.read(select(Epoch.state).where(Epoch.id > 0)) == [("closed",)]


async def test_workers_that_connect_early_are_welcomed_once_the_ledger_is_open(host):
    near, far = LocalChannel.pair()
    worker = FakeWorker(far)
    host.control = control = Control(host.config, CLOCK)
    control.connect(near)
    await asyncio.sleep(0)
    assert worker.messages == []
    await control.start()
    await until(lambda: worker.snapshots)


async def test_the_journal_directory_is_private_and_has_one_control(host):
    await host.start()
    assert stat.S_IMODE(os.stat(host.config.journal.dir).st_mode) == 0o700
    with pytest.raises(JournalLocked, match="another control"):
        await Control(host.config, CLOCK).start()


async def test_a_host_keeps_its_id(host):
    await host.start()
    first = (await host.worker()).messages[0].host_id
    await host.control.stop()
    await host.start()
    assert (await host.worker()).messages[0].host_id == first


# --- changes -------------------------------------------------------------------------------


async def test_a_change_in_the_catalog_is_pushed_within_a_second(host):
    control = await host.start()
    worker = await host.worker()

    def add(connection):
        create_key(connection, name="new", now_ms=1, team="acme/search")

    transactions = open_transactions(host.config.database.url)
    await transactions.run(add)
    await transactions.close()
    began = time.monotonic()
    await until(lambda: len(worker.snapshots[-1].keys) == 2)
    assert time.monotonic() - began < 2
    await until(lambda: control.in_force == worker.snapshots[-1].revision == 2)


async def test_a_reload_changes_limits_and_keeps_what_needs_a_restart(host):
    control = await host.start()
    worker = await host.worker()
    await host.granted(worker, USD // 2)
    changed = replace(
        a_config(Path("/nowhere"), limit_usd="0.25"), on_disconnect="drain", budgets=[
            Budget("team/acme/search", period="total", limit_usd="0.25")
        ],
    )  # fmt: skip
    await control.reload(changed)
    await until(lambda: len(worker.snapshots) == 2)
    assert worker.snapshots[-1].budgets[0].limit == USD // 4
    assert worker.snapshots[-1].settings.on_disconnect == "drain"
    assert control.config.journal == host.config.journal
    assert await host.read(select(BudgetRow.limit_value)) == [(USD // 4,)]


async def test_a_reload_that_cannot_be_keeps_the_old_configuration(host):
    control = await host.start()
    bad = replace(host.config, pricing=replace(host.config.pricing, table="no such table"))
    with pytest.raises(Exception, match="no such price table"):
        await control.reload(bad)
    assert control.config is host.config


# --- deaths --------------------------------------------------------------------------------


async def test_a_dead_workers_open_calls_are_charged_their_holds(host):
    control = await host.start()
    worker = await host.worker()
    await host.granted(worker, USD // 5)
    done, open_hold = host.call(worker, USD // 10, 77), host.hold(worker, USD // 10)
    worker.die()
    await until(lambda: not control.parts.writer.journals)
    rows = await host.rows()
    assert rows[done.call_id].cost_nano == 77
    assert (rows[open_hold.call_id].ending, rows[open_hold.call_id].cost_nano) == (
        "lost", USD // 10,
    )  # fmt: skip
    heir = await host.worker()
    await host.granted(heir, USD - USD // 10 - 77)


async def test_a_dead_control_is_followed_by_a_new_epoch(host):
    await host.start()
    worker = await host.worker()
    old_epoch = worker.snapshots[0].epoch_id
    await host.granted(worker, USD // 5)
    first = host.call(worker, USD // 10, 70)
    open_hold = host.hold(worker, USD // 10)
    await host.crash()
    await until(lambda: worker.closed)

    control = await host.start()
    heir = await host.worker()
    await control.flush()
    assert heir.snapshots[0].epoch_id > old_epoch
    assert set(await host.rows()) == {first.call_id}, "the old worker still lives"
    assert (await host.leases())[old_epoch][0] >= USD // 5
    worker.settle(a_settle(open_hold, 7))
    worker.journal.close()
    await until(lambda: worker.journal.journal_id not in control.parts.writer.journals)
    await control.flush()
    assert {row.cost_nano for row in (await host.rows()).values()} == {70, 7}
    assert (await host.leases())[old_epoch] == (77, 77)


async def test_journals_the_database_does_not_know_are_adopted_and_flagged(host):
    await host.start()
    worker = await host.worker()
    await host.granted(worker, USD // 10)
    hold = host.call(worker, USD // 10, 70)
    await host.crash()
    worker.journal.close()
    os.unlink(host.config.database.url.removeprefix("sqlite+aiosqlite:///"))

    control = await host.start()
    await control.flush()
    row = (await host.rows())[hold.call_id]
    assert row.cost_nano == 70
    assert row.flags
    assert await host.read(select(Window.committed, Window.overage)) == [(70, 70)]
    states = await host.read(select(Epoch.state).where(Epoch.id > 0).order_by(Epoch.id))
    assert states == [("open",), ("closed",)]


def copy_journal(host: Host, other: Host, *, whole: bool) -> None:
    (segment,) = Path(host.config.journal.dir).glob("*.seg")
    copy = Path(other.config.journal.dir) / segment.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(segment.read_bytes() if whole else segment.read_bytes()[:20])


@pytest.mark.parametrize("readable", [True, False])
async def test_a_copy_of_another_hosts_journal_is_drained_and_never_finished(
    host, tmp_path, readable
):
    """Its lock here says nothing of the worker, whose calls are still to be settled."""
    other = Host(tmp_path / "other")
    other.config = replace(other.config, database=host.config.database)
    await host.start()
    worker = await host.worker()
    await host.granted(worker, USD // 5)
    done, open_hold = host.call(worker, USD // 10, 77), host.hold(worker, USD // 10)
    copy_journal(host, other, whole=readable)

    control = await other.start()
    await control.flush()
    assert set(await host.rows()) <= {done.call_id}
    await other.control.stop()
    worker.settle(a_settle(open_hold, 7))
    await host.control.flush()
    costs = {call_id: row.cost_nano for call_id, row in (await host.rows()).items()}
    assert costs == {done.call_id: 77, open_hold.call_id: 7}


async def test_a_worker_that_breaks_the_protocol_is_cut_off(host):
    await host.start()
    worker = await host.worker()
    worker.channel.send(worker.messages[0])
    await until(lambda: worker.closed)
    worker.journal.close()


# --- outages -------------------------------------------------------------------------------


def break_ledger(control: Control, times: int) -> Faulty:
    faulty = Faulty(control.parts.transactions)
    faulty.script = iter(["refused"] * times)
    control.parts.ledger._transactions = faulty
    return faulty


async def test_an_outage_is_survived_told_and_over(host, caplog):
    control = await host.start()
    worker = await host.worker()
    await host.granted(worker, USD // 100)
    worker.give_back(host.window)
    worker.report()
    await until(lambda: control.parts.leases._windows[host.window].pool > 0)
    with caplog.at_level(logging.WARNING):
        faulty = break_ledger(control, 10**6)
        call_id = worker.want([(host.window, USD)])
        await until(lambda: worker.messages[-1].outage)
        assert call_id in [c for m in worker.messages[3:] for c in getattr(m, "answered", [])]
        assert control.outage
        await host.granted(worker, USD // 100)  # the pool goes on
        hold = host.call(worker, USD // 100, 5)
        faulty.script = iter(())
        await until(lambda: not control.outage)
    await until(lambda: not worker.messages[-1].outage)
    await control.flush()
    assert (await host.rows())[hold.call_id].cost_nano == 5
    texts = [record.message for record in caplog.records]
    assert sum("out of reach" in text for text in texts) == 1
    assert sum("is back" in text for text in texts) == 1


async def test_a_worker_that_starts_in_an_outage_gets_its_snapshot_and_no_money(host):
    control = await host.start()
    faulty = break_ledger(control, 10**6)
    worker = await host.worker()
    await until(lambda: getattr(worker.messages[-1], "outage", False))
    assert worker.granted == {}
    call_id = worker.want([(host.window, USD // 10)])  # it is told at once that there is nothing
    await until(lambda: call_id in getattr(worker.messages[-1], "answered", []))
    assert worker.messages[-1].outage
    assert worker.granted == {}
    faulty.script = iter(())
    await until(lambda: not control.outage)
    await host.granted(worker, USD // 10)
    assert len(worker.snapshots) == 1


async def test_an_epoch_closed_by_an_operator_ends_control(host):
    control = await host.start()
    await host.worker()
    await control.parts.ledger.release_epoch(control.parts.epoch_id)
    await asyncio.wait_for(control.fatal.wait(), 10)


async def test_a_slow_clock_of_the_database_is_told(host, caplog):
    skewed = Clock(lambda: time.time_ns() // 10**6 + 10_000, time.monotonic)
    host.control = Control(host.config, skewed)
    with caplog.at_level(logging.WARNING):
        await host.control.start()
        await until(lambda: any("ms apart" in r.message for r in caplog.records))


async def test_lost_hosts_are_labelled(host):
    await host.start()
    await host.control.parts.ledger.register_epoch("elsewhere")
    old = update(Epoch).where(Epoch.boot_id == "elsewhere").values(seen_at_ms=1)
    await host.control.parts.transactions.run(lambda c: c.execute(old))
    host.control._due["seen"] = 0
    await host.control._turn()
    states = await host.read(select(Epoch.state).where(Epoch.boot_id == "elsewhere"))
    assert states == [("lost",)]


async def test_a_price_version_is_stored_as_it_comes_into_force(tmp_path: Path) -> None:
    """So that rows drained after it was replaced, and after a restart, find their prices."""
    host = Host(tmp_path)
    overlays = [PriceOverlay(provider="openai", discount_percent="50")]
    pricing = Pricing(overlays=overlays)
    control = await host.start(replace(host.config, pricing=pricing))
    assert control.snapshot is not None
    version = control.snapshot.prices.version
    await control.reload(host.config)
    assert control.snapshot.prices.version != version
    await control.stop()
    control = await host.start()
    assert control.parts is not None
    transactions = open_transactions(host.config.database.url)
    stored = {each.version: each for each in await transactions.run(load_versions)}
    await transactions.close()
    assert stored[version].overlays == [["openai", "*", "50", {}, None, None]]
    described = control._prices.describe(version, "openai/gpt-4o")
    assert described is not None
    assert described.entry["input_cost_per_token"] == "0.00000125"  # half of $2.50 a million
    await control.stop()


async def test_a_journal_that_takes_too_much_refuses_calls_until_it_is_drained(
    host, caplog, monkeypatch
):
    """Also while the ledger is out of reach; and it says so."""
    monkeypatch.setattr(control_module, "OUTAGE_WAIT_S_MAX", 0.02)
    control = await host.start()
    worker = await host.worker()
    faulty = break_ledger(control, 10**6)
    await until(lambda: control.outage)
    control.config = replace(control.config, journal=replace(control.config.journal, max_mb=0))
    control._due["disk"] = 0.0
    await until(lambda: worker.told().full)
    assert worker.told().outage
    control.config = host.config
    control._due["disk"] = 0.0
    await until(lambda: not worker.told().full)
    faulty.script = iter(())
    await until(lambda: not control.outage)
    texts = [record.message for record in caplog.records if "max_mb" in record.message]
    assert [text.rpartition("is ")[2] for text in texts] == [
        "full: new calls are refused", "not full any more",
    ]  # fmt: skip
