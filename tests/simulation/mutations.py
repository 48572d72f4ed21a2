"""The holes of the protocol's model, put back into the real code one at a time.

Each entry is a patch and the scenario in which it shows soonest. A simulation that does not find
one of them would not find a bug like it either.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from sqlalchemy.sql.selectable import Select

import db.engine
import db.journal
import db.journal_files
import db.ledger
import db.ledger_insert
import db.ledger_leases
import db.registry
import proxy.gateway
from db.journal import JournalReader, JournalWriter, Lock
from db.journal_records import Segment, Settle
from db.ledger_insert import Inserted
from db.ledger_types import Batch, Drained
from db.models import JournalOffset
from db.writer import Writer
from proxy.budgets import Budgets
from proxy.control.leases import Leases
from proxy.control.tickets import Tickets
from proxy.line import Line
from proxy.windows import current_window


class Mutation(NamedTuple):
    what: str
    patch: Callable[[ExitStack], None]
    scenario: dict[str, Any]
    first_seed: int = 0  # where it showed soonest: a search begins here


def _patch(stack: ExitStack, target: Any, name: str, value: Any) -> None:
    stack.enter_context(mock.patch.object(target, name, value))


# --- lives -----------------------------------------------------------------------------------


def inherit_lease(stack: ExitStack) -> None:
    real = db.registry.register_epoch

    def register(connection: Any, host_id: str, boot_id: str) -> int:
        open_ = db.registry.unclosed_epochs(connection, host_id)
        return open_[-1][0] if open_ and host_id else real(connection, host_id, boot_id)

    _patch(stack, db.registry, "register_epoch", register)


def adopt_without_lock(stack: ExitStack) -> None:
    def lock(directory: Path, journal_id: bytes) -> Lock | None:
        return db.journal_files.take_lock(Path(directory) / f"{journal_id.hex()}.taken")

    stack.enter_context(mock.patch("proxy.control.recovery.lock_journal", lock))


def release_on_expiry(stack: ExitStack) -> None:
    real = db.registry.mark_lost

    def mark(connection: Any, unseen_ms: int) -> list[int]:
        lost = real(connection, unseen_ms)
        for epoch_id in lost:
            db.ledger.close_epoch(connection, epoch_id, unfinished_too=True)
        return lost

    _patch(stack, db.registry, "mark_lost", mark)


def lease_after_close(stack: ExitStack) -> None:
    _patch(stack, db.registry, "require_open", lambda connection, epoch_id: None)


# --- journals --------------------------------------------------------------------------------


def forget_open_holds(stack: ExitStack) -> None:
    real = JournalReader._open

    def open_at_offset(self: JournalReader, number: int) -> None:
        real(self, number)
        if number == self._committed[0]:
            self._start = self._committed[1]

    _patch(stack, JournalReader, "_open", open_at_offset)


def drop_open_holds(stack: ExitStack) -> None:
    def opening(self: JournalWriter, number: int) -> Segment:
        me = self._identity
        return Segment(me.journal_id, me.epoch_id, me.boot_id, me.host_id, number, [])

    _patch(stack, JournalWriter, "_opening", opening)


def trust_truncated(stack: ExitStack) -> None:
    _patch(stack, Writer, "_may_lack_tail", lambda self, reader: False)


def hand_back_unsynced(stack: ExitStack) -> None:
    async def nothing(self: Writer) -> None:
        pass

    _patch(stack, Writer, "sync", nothing)


def sqlite_normal(stack: ExitStack) -> None:
    pragmas = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", "PRAGMA foreign_keys=ON")
    _patch(stack, db.engine, "_sqlite_pragmas", lambda read_only: pragmas)


# --- the ledger's statements -----------------------------------------------------------------


def blind_offset(stack: ExitStack) -> None:
    real = db.ledger_insert.insert_calls_carefully

    def advance(connection: Any, batch: Batch) -> Drained | None:
        values = {"segment": batch.end[0], "offset": batch.end[1], "finished": batch.finish}
        table = JournalOffset.__table__
        where = table.c.journal_id == batch.journal_id  # type: ignore[attr-defined]
        connection.execute(table.update().values(values).where(where))  # type: ignore[attr-defined]
        return None

    def insert(connection: Any, references: Any, batch: Batch, dead_letter: Any) -> Inserted:
        fresh, duplicates, dead = real(connection, references, batch, dead_letter)
        known = {each.hold.call_id for each in fresh}
        ended = [
            db.ledger_insert._ended(connection, references, hold, settle)
            for hold, settle in db.ledger_insert._records(batch)
            if hold.call_id not in known
        ]
        return Inserted(fresh + ended, duplicates, dead)

    _patch(stack, db.registry, "advance_offset", advance)
    _patch(stack, db.ledger, "insert_calls", insert)


def unlocked_reread(stack: ExitStack) -> None:
    _patch(stack, Select, "with_for_update", lambda self, **_: self)


def overage_unbooked(stack: ExitStack) -> None:
    real = db.ledger.book

    def book(bookings: Any, charges: Any, held: Any, backed: bool) -> int:
        committed = {window: booking.unbacked for window, booking in bookings.items()}
        unbacked = real(bookings, charges, held, backed)
        for window, booking in bookings.items():
            booking.unbacked = committed[window]
        return unbacked

    _patch(stack, db.ledger, "book", book)


def stale_limit(stack: ExitStack) -> None:
    real, register = db.ledger_leases.lock_limits, db.registry.register_epoch
    first: dict[int, int] = {}

    def lock(connection: Any, budget_ids: Any) -> dict[int, int]:
        limits = real(connection, budget_ids)
        return {id_: first.setdefault(id_, limit) for id_, limit in limits.items()}

    def register_epoch(connection: Any, host_id: str, boot_id: str) -> int:
        epoch_id = register(connection, host_id, boot_id)
        if epoch_id == 1:  # of another world
            first.clear()
        return epoch_id

    _patch(stack, db.ledger_leases, "lock_limits", lock)
    _patch(stack, db.registry, "register_epoch", register_epoch)


# --- one call --------------------------------------------------------------------------------


def forward_before_journal(stack: ExitStack) -> None:
    real = JournalWriter.append_hold

    def later(self: JournalWriter, hold: Any) -> None:
        asyncio.get_running_loop().call_later(0.002, real, self, hold)

    _patch(stack, JournalWriter, "append_hold", later)


def reuse_before_append(stack: ExitStack) -> None:
    def settle(self: Budgets, call: Any, record: Settle) -> None:
        if call.backed and call.settle(record.charges):
            self._line.freed([need[0] for need in call.needs])
        journal: Any = self._journal
        asyncio.get_running_loop().call_later(0.01, journal.append_settle, record)

    _patch(stack, Budgets, "settle", settle)


def reply_before_settlement(stack: ExitStack) -> None:
    real = proxy.gateway.Gateway.settle

    def settle(self: Any, call: Any, ending: str) -> None:
        if ending == "complete":
            asyncio.get_running_loop().call_later(0.01, real, self, call, ending)
        else:
            real(self, call, ending)

    def end(self: Any, call: Any) -> None:
        if call.exchange is not None:
            call.exchange.release()
        call.client.unwatch()
        self.in_flight.discard(call)

    _patch(stack, proxy.gateway.Gateway, "settle", settle)
    _patch(stack, proxy.gateway.Gateway, "_end", end)


def window_at_settle(stack: ExitStack) -> None:
    def now_charged(self: Budgets, call: Any, record: Settle) -> None:
        charges = []
        for (_, _, entry, _), (_, amount) in zip(call.needs, record.charges, strict=True):
            starts_at, _ = current_window(
                entry.period, entry.timezone, entry.week_start, entry.month_day, self._now_s()
            )
            charges.append(((entry.id, starts_at), amount))
        held, record.charges = record.charges, charges
        self._journal.append_settle(record)
        if call.backed and call.settle(held):
            self._line.freed([need[0] for need in call.needs])

    _patch(stack, Budgets, "settle", now_charged)


# --- near the end ----------------------------------------------------------------------------


def no_tickets(stack: ExitStack) -> None:
    def grant(self: Leases, *, settled: bool) -> None:
        for ticket in self._tickets:
            for window, amount in ticket.lacks.items():
                state = self._state(window)
                part = min(amount, max(state.grantable, 0))
                self._give(state, ticket.journal_id, part)
                ticket.lacks[window] -= part
        for state in self._windows.values():
            self._fill(state)

    _patch(stack, Leases, "_grant", grant)
    _patch(stack, Tickets, "number", lambda self: None)
    _patch(stack, Line, "_yields", lambda self, slice_: False)


_ONE: dict[str, Any] = {"hosts": 1, "workers": 1, "outage": "block"}
_TWO: dict[str, Any] = {"hosts": 2, "workers": 1, "outage": "block"}


def _faults(*names: str) -> dict[str, Any]:
    return {"faults": frozenset(names)}


MUTATIONS = {
    "inherit_lease": Mutation(
        "a restarted control goes on with its predecessor's lease",
        inherit_lease,
        _ONE | {"workers": 2} | _faults("kill_control", "kill_worker", "hang_ups"),
        first_seed=10,
    ),
    "adopt_without_lock": Mutation(
        "a worker whose connection is gone is taken for dead",
        adopt_without_lock,
        _ONE | _faults("channel_cut", "kill_control"),
    ),
    "release_on_expiry": Mutation(
        "the lease of a host that was not seen is lent again",
        release_on_expiry,
        _TWO | _faults("long_pause"),
    ),
    "forget_open_holds": Mutation(
        "recovery reads a journal from the committed offset only",
        forget_open_holds,
        _ONE | _faults("kill_control", "kill_worker"),
    ),
    "drop_open_holds": Mutation(
        "a new segment does not carry the holds that are open",
        drop_open_holds,
        _ONE | {"segment_bytes": 1_500} | _faults("kill_worker"),
    ),
    "blind_offset": Mutation(
        "offsets are stored without compare-and-set, and rows that exist move money again",
        blind_offset,
        _TWO | _faults("in_doubt", "database_errors", "kill_control", "foreign_drain"),
        first_seed=24,
    ),
    "unlocked_reread": Mutation(
        "after a commit of unknown outcome rows are read without their locks",
        unlocked_reread,
        _TWO | {"calls": 32, "flush_ms": 20} | _faults("in_doubt"),
        first_seed=43,
    ),
    "sqlite_normal": Mutation(
        "a commit does not survive a power cut, and segments it passed are deleted",
        sqlite_normal,
        _ONE | {"keep_h": 0.0005, "segment_bytes": 1_500} | _faults("power_loss"),
    ),
    "trust_truncated": Mutation(
        "after a power cut a lease is freed although a journal may lack its tail",
        trust_truncated,
        _ONE | {"sync": "os"} | _faults("power_loss"),
    ),
    "hand_back_unsynced": Mutation(
        "money of a settlement leaves the host before that settlement is on disk",
        hand_back_unsynced,
        _TWO
        | {"sync": "os", "calls": 40, "flush_ms": 400}
        | _faults("power_loss", "database_slow"),
        first_seed=120,
    ),
    "forward_before_journal": Mutation(
        "a request is forwarded before its hold is appended",
        forward_before_journal,
        _ONE | _faults("kill_worker"),
    ),
    "reuse_before_append": Mutation(
        "money of a settled hold is free before the settlement is appended",
        reuse_before_append,
        _ONE | _faults("kill_worker"),
        first_seed=4,
    ),
    "reply_before_settlement": Mutation(
        "the client has its reply before the settlement is appended",
        reply_before_settlement,
        _ONE | _faults("kill_worker"),
        first_seed=4,
    ),
    "window_at_settle": Mutation(
        "a call is charged to the windows of its end, not to those it held",
        window_at_settle,
        _ONE | _faults("clock_jump"),
    ),
    "overage_unbooked": Mutation(
        "a cost above its hold is not added to what its window has committed",
        overage_unbooked,
        _ONE | _faults("above_ceiling"),
    ),
    "stale_limit": Mutation(
        "leases are checked against the limit of when their window was made",
        stale_limit,
        _ONE | _faults("limits"),
    ),
    "lease_after_close": Mutation(
        "a lease in doubt commits after its epoch was closed",
        lease_after_close,
        _ONE | _faults("in_doubt", "kill_control", "kill_host"),
        first_seed=57,
    ),
    "no_tickets": Mutation(
        "near the end everybody leases and hands back at once, in no order",
        no_tickets,
        _TWO | _faults(),
    ),
}


@contextmanager
def applied(name: str) -> Iterator[dict[str, Any]]:
    """The hole is there; yields the scenario that shows it."""
    mutation = MUTATIONS[name]
    with ExitStack() as stack:
        mutation.patch(stack)
        yield mutation.scenario
