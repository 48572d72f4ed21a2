"""Draining journals: exactly once, whatever fails between any two steps."""

import itertools
import os
import shutil
import uuid
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import OperationalError

from db.dead_letters import FILE_NAME, DeadLetters
from db.journal import JournalReader, JournalWriter, list_journals, lock_journal
from db.ledger_types import JournalState, OutcomeUnknown
from db.models import CostAnalytics, JournalOffset, Lease, UsageCost, Window
from db.writer import ATTEMPTS, DatabaseRestored, Writer
from tests.db.bank import Bank
from tests.db.faulty import Faulty, Killed
from tests.factories import a_settle

LEASED = 900
BULKY = {"padding": "x" * 40_000}  # a batch is at least 64 KiB, so that a few calls make several


async def no_sleep(_seconds):
    return None


class Host:
    """A bank, one worker's journal and the writer that drains it."""

    def __init__(self, bank, directory: Path, batch_bytes: int = 2**18):
        self.bank = bank
        self.directory = directory
        self.batch_bytes = batch_bytes
        self.flushes = []
        self.dead_letters = DeadLetters(directory)

    async def start(self):
        self.epoch_id = await self.bank.ledger.register_epoch("boot")
        await self.bank.lease(self.epoch_id, LEASED)
        self.journal = JournalWriter.create(
            self.directory, epoch_id=self.epoch_id, host_id="host", boot_id="boot",
            segment_bytes=self.batch_bytes * 4,
        )  # fmt: skip
        self.journal_id = self.journal.journal_id
        await self.bank.ledger.register_journal(self.journal_id, self.epoch_id)
        await self.open()
        return self

    async def open(self, boot_id="boot", always_synced=False):
        """A fresh writer, as after a start of control."""
        self.writer = Writer(
            self.directory, self.bank.ledger, self.dead_letters, boot_id=boot_id,
            always_synced=always_synced, sleep=no_sleep, batch_bytes=self.batch_bytes,
        )  # fmt: skip
        self.writer.on_flush = self.flushes.append
        state = await self.bank.ledger.journal(self.journal_id)
        if not state.finished:
            self.writer.open(self.journal_id, state)

    def call(self, amount=10, cost=4, **fields):
        hold = self.bank.hold([(self.bank.usd, amount)], **fields)
        self.journal.append_hold(hold)
        self.journal.append_settle(a_settle(hold, cost))
        return hold

    def hold(self, amount=10):
        hold = self.bank.hold([(self.bank.usd, amount)])
        self.journal.append_hold(hold)
        return hold

    def die(self, *, cleanly=False):
        """The worker is gone; its lock is free."""
        if cleanly:
            self.journal.close()
            return
        os.close(self.journal._fd)
        self.journal._lock.release()

    def seal(self):
        self.writer.seal(self.journal_id, lock_journal(self.directory, self.journal_id))

    @property
    def consumed(self):
        return sum(flush.consumed.get(self.bank.usd, 0) for flush in self.flushes)


@pytest.fixture
async def host(url, tmp_path):
    bank = await Bank.open(url, Faulty)
    host = await Host(bank, tmp_path / "journal").start()
    yield host
    host.writer.close()
    await bank.check()
    await bank.close()


async def test_settled_calls_become_rows(host):
    first, second, third = host.call(), host.call(cost=14), host.hold()
    assert await host.writer.flush() is False
    assert set(await host.bank.rows()) == {first.call_id, second.call_id}
    assert await host.bank.leases() == {host.epoch_id: (LEASED + 4, 18)}
    (flush,) = host.flushes
    assert (flush.consumed, flush.finished) == ({host.bank.usd: 14}, False)
    assert flush.leases == {host.bank.usd: (LEASED + 4, 18)}
    host.journal.append_settle(a_settle(third, 5))
    await host.writer.flush()
    assert third.call_id in await host.bank.rows()
    assert host.writer.backlog_bytes() == 0


async def test_nothing_to_read_is_no_transaction(host):
    await host.writer.flush()
    before = host.bank.transactions.runs
    await host.writer.flush()
    assert host.bank.transactions.runs == before


async def test_only_a_flush_that_found_nothing_says_that_there_was_time(host, monkeypatch):
    rested = []
    monkeypatch.setattr(host.writer._threads, "rested", lambda: rested.append(True))
    host.call()
    await host.writer.flush()
    assert rested == []
    await host.writer.flush()
    assert rested == [True]


async def test_a_long_journal_comes_in_batches(host):
    host.writer.close()
    host.batch_bytes = 2_000
    await host.open()
    holds = [host.call(1, 1, tags=BULKY) for _ in range(10)]
    assert await host.writer.flush(rounds=1) is True
    assert 0 < len(await host.bank.rows()) < 10
    assert host.writer.backlog_bytes() > 0
    await host.writer.flush()
    assert set(await host.bank.rows()) == {hold.call_id for hold in holds}


async def test_the_journal_is_on_disk_before_its_rows_are(host, monkeypatch):
    steps = []
    sync, drain = JournalReader.sync, host.bank.ledger.drain
    monkeypatch.setattr(JournalReader, "sync", lambda self: (steps.append("sync"), sync(self)))

    async def noted(batches):
        steps.append("drain")
        return await drain(batches)

    host.bank.ledger.drain = noted
    host.call()
    await host.writer.flush()
    assert steps == ["sync", "drain"]


# --- failures ------------------------------------------------------------------------------

FAULTS = ("ok", "refused", "rolled back", "lost", "undone")


@pytest.mark.parametrize("script", list(itertools.product(FAULTS, repeat=2)), ids="-".join)
async def test_any_two_failures_leave_every_row_once(host, script):
    first = host.call()
    await host.writer.flush()
    second, open_hold = host.call(), host.hold()
    host.die()
    host.seal()
    host.bank.transactions.script = iter(script)
    await host.writer.flush()
    host.bank.transactions.script = iter(())
    rows = await host.bank.rows()
    assert set(rows) == {first.call_id, second.call_id, open_hold.call_id}
    assert rows[open_hold.call_id].ending == "lost"
    assert await host.bank.leases() == {host.epoch_id: (LEASED, 18)}
    assert host.consumed == 18
    assert host.flushes[-1].finished
    assert host.writer.journals == []
    assert await host.bank.ledger.close_epoch(host.epoch_id)
    assert await host.bank.window() == (18, 0)


@pytest.mark.parametrize("death", ["killed", "killed after"])
@pytest.mark.parametrize("at", [0, 1, 2])
async def test_death_of_control_between_any_two_steps(host, death, at):
    """Its successor reads on from the committed offset, holds of before it included."""
    host.writer.close()
    host.batch_bytes = 600
    await host.open()
    open_hold = host.hold()
    holds = [host.call(tags=BULKY) for _ in range(6)]
    host.die()
    host.seal()
    host.bank.transactions.script = iter(["ok"] * at + [death])
    with pytest.raises(Killed):
        await host.writer.flush()
    host.bank.transactions.script = iter(())
    host.writer.close()
    await host.open()
    if host.writer.journals:
        host.seal()
    await host.writer.flush()
    assert set(await host.bank.rows()) == {open_hold.call_id, *(hold.call_id for hold in holds)}
    assert await host.bank.leases() == {host.epoch_id: (LEASED, 10 + 6 * 4)}


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (("refused",), OperationalError),
        (("undone", "ok"), OutcomeUnknown),  # a full disk: COMMIT fails, and then it is looked up
    ],
)
async def test_an_outage_is_raised_after_a_few_attempts_and_nothing_is_lost(host, faults, error):
    hold = host.call()
    host.bank.transactions.script = iter(faults * ATTEMPTS)
    with pytest.raises(error):
        await host.writer.flush()
    assert host.writer.counters.retries == ATTEMPTS
    later = host.call()
    await host.writer.flush()
    assert set(await host.bank.rows()) == {hold.call_id, later.call_id}
    assert host.consumed == 8


async def test_a_copy_drained_elsewhere_does_no_harm(host, tmp_path):
    """R5: of two that drain the same records, one moves money."""
    first = host.call()
    copy = tmp_path / "copy"
    shutil.copytree(host.directory, copy)
    foreign = Writer(copy, host.bank.ledger, DeadLetters(copy), boot_id="boot", always_synced=False)
    foreign.open(host.journal_id, await host.bank.ledger.journal(host.journal_id))
    await foreign.flush()
    second = host.call()
    await host.writer.flush()
    foreign.close()
    assert set(await host.bank.rows()) == {first.call_id, second.call_id}
    assert await host.bank.leases() == {host.epoch_id: (LEASED, 8)}
    assert host.consumed == 8


async def test_one_journal_that_cannot_be_committed_does_not_stop_another(host):
    await host.writer.flush()
    ghost = JournalWriter.create(
        host.directory, epoch_id=host.epoch_id, host_id="host", boot_id="boot"
    )
    await host.bank.ledger.register_journal(ghost.journal_id, host.epoch_id)
    host.writer.open(ghost.journal_id, JournalState(host.epoch_id, (0, 0), False, False))
    real = host.bank.ledger.drain

    async def drain(batches):
        if any(batch.journal_id == ghost.journal_id for batch in batches):
            raise RuntimeError("not this one")
        return await real(batches)

    host.bank.ledger.drain = drain
    hold = host.call()
    with pytest.raises(RuntimeError, match="not this one"):
        await host.writer.flush()
    assert set(await host.bank.rows()) == {hold.call_id}
    ghost.close()


# --- other pasts ---------------------------------------------------------------------------


async def test_a_database_restored_from_a_backup_is_fed_again(host):
    hold = host.call()
    await host.writer.flush()
    state = await host.bank.ledger.journal(host.journal_id)
    await host.bank.transactions.run(_forget_everything)
    host.call()
    with pytest.raises(DatabaseRestored):
        await host.writer.flush()
    assert state.position > (0, 0)
    host.writer.close()
    await host.open()
    await host.writer.flush()
    assert hold.call_id in await host.bank.rows()


def _forget_everything(connection):
    """The backup is older than all rows and leases."""
    for model in (UsageCost, CostAnalytics, Lease):
        connection.execute(delete(model))
    connection.execute(update(Window).values(committed=0, overage=0))
    connection.execute(update(JournalOffset).values(segment=0, offset=0))


POWER = [  # boot, cleanly closed, sync: always -> truncated
    ("same boot", "boot", False, False, False),
    ("other boot", "other", False, False, True),
    ("other boot, closed", "other", True, False, False),
    ("other boot, synced", "other", False, True, False),
]


@pytest.mark.parametrize(
    ("boot_id", "cleanly", "always", "truncated"), [c[1:] for c in POWER], ids=[c[0] for c in POWER]
)
async def test_a_power_cut_keeps_the_lease_committed(host, boot_id, cleanly, always, truncated):
    host.call()
    host.die(cleanly=cleanly)
    host.writer.close()
    await host.open(boot_id, always)
    host.seal()
    await host.writer.flush()
    assert (await host.bank.offset(host.journal_id)).truncated is truncated
    assert await host.bank.ledger.close_epoch(host.epoch_id) is not truncated


async def test_damage_is_put_aside_and_truncates(host):
    lost = host.call()
    place = host.journal.position[1]
    host.call()
    path = next(host.directory.glob("*.seg"))
    data = bytearray(path.read_bytes())
    data[place - 40] ^= 0xFF  # in the settlement of the first call
    path.write_bytes(data)
    host.die()
    host.seal()
    await host.writer.flush()
    rows = await host.bank.rows()
    assert rows[lost.call_id].ending == "lost"
    assert len(rows) == 2
    assert (await host.bank.offset(host.journal_id)).truncated
    assert "damaged" in (host.directory / FILE_NAME).read_text()
    assert host.dead_letters.count == 1


async def test_finished_journals_go_after_a_while(host):
    host.call()
    host.die(cleanly=True)
    host.seal()
    await host.writer.flush()
    host.writer.delete_old(older_than_s=0)
    assert list_journals(host.directory) == [host.journal_id]
    host.writer.delete_old(older_than_s=float("inf"))
    assert list_journals(host.directory) == []


async def test_a_settlement_without_its_hold_is_a_dead_letter(host):
    hold = host.bank.hold([(host.bank.usd, 10)])
    host.journal._holds[hold.call_id] = (hold, 0)
    host.journal.append_settle(a_settle(hold, 4))
    await host.writer.flush()
    assert hold.call_id.hex() in (host.directory / FILE_NAME).read_text()
    assert await host.bank.rows() == {}


def test_a_journal_that_is_not_there_cannot_be_opened(tmp_path):
    writer = Writer(tmp_path, None, DeadLetters(tmp_path), boot_id="", always_synced=False)
    with pytest.raises(Exception, match="no segment"):
        writer.open(uuid.uuid4().bytes, JournalState(1, (0, 0), False, False))
