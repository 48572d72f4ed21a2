"""Leases, slices and tickets, on a ledger in memory."""

from dataclasses import dataclass, field

import pytest

from db.ledger_types import LeaseOutcome, LeaseState, OpenTicket, OutcomeUnknown
from db.writer import Flush
from proxy.control.leases import ELSEWHERE, KEEP_MS, Leases
from proxy.control.slices import LEASE_MS, LEASE_SHARE, WindowState
from proxy.control.tickets import GRACE_MS
from proxy.wire import ANSWER_WAIT_MS, Slices, SliceStatus, Status, Unwant, Want

W = (1, 0)
V = (2, 0)
EPOCH = 5
IDLE_MS = 1_000
INTERVAL_MS = 100


@dataclass
class Account:
    limit: int
    granted: int = 0
    spent: int = 0
    others: int = 0  # granted to other hosts
    first: OpenTicket | None = None  # that waits on another host
    ticket: int = 0  # ours, as others see it

    @property
    def committed(self) -> int:
        return self.granted + self.others


@dataclass
class Ledger:
    """The LEASE statement and its lock, without a database."""

    accounts: dict = field(default_factory=dict)
    calls: list = field(default_factory=list)
    fault: str = ""

    async def lease(self, epoch_id, requests, ignored=None):
        assert epoch_id == EPOCH
        self.calls.append([(request.window, request.delta) for request in requests])
        fault, self.fault = self.fault, ""
        if fault == "refused":
            raise OSError("no route")
        if fault == "undone":
            raise OutcomeUnknown
        outcomes = [
            self._one(request, ignored or ())
            for request in requests
            if request.window in self.accounts
        ]
        if fault == "lost":
            raise OutcomeUnknown
        return outcomes

    def _one(self, request, ignored):
        account = self.accounts[request.window]
        delta = request.delta
        first = None if account.first in ignored else account.first
        if request.publish:
            account.ticket = request.ticket
        if delta > 0:
            delta = min(delta, account.limit - account.committed)
            delta = delta if delta >= max(1, request.at_least or request.delta) else 0
            if first and not (request.ticket > 0 and (request.ticket, EPOCH) < first):
                delta = 0
        if request.expected != account.granted or account.granted + delta < account.spent:
            delta = 0
        account.granted += delta
        return LeaseOutcome(
            request.window, delta, account.granted, account.spent, account.limit,
            account.committed, account.spent, first, account.first.number if account.first else 0,
        )  # fmt: skip

    async def tickets(self, epoch_id):
        return {w: [a.first] for w, a in self.accounts.items() if a.first}

    async def leases(self, epoch_id):
        return {w: LeaseState(a.granted, a.spent) for w, a in self.accounts.items()}


class Worker:
    """What a worker does with its slice; nothing is written down."""

    def __init__(self, desk: "Desk", journal_id: bytes) -> None:
        self.desk = desk
        self.id = journal_id
        self.granted, self.returned, self.used, self.held = {}, {}, {}, {}
        self.rooms, self.answered, self.told = {}, [], []
        self.waiting: list[bytes] = []
        desk.leases.attach(journal_id, self.receive)

    def receive(self, message: Slices) -> None:
        self.told.append(message)
        self.answered += message.answered
        self.granted.update(message.granted)
        self.rooms.update({room.window: room for room in message.room})

    def free(self, window=W) -> int:
        taken = (self.returned, self.used, self.held)
        return self.granted.get(window, 0) - sum(part.get(window, 0) for part in taken)

    def want(self, call_id: bytes, *amounts, wait_ms: int = 10_000) -> None:
        deadline_ms = self.desk.now_ms + wait_ms
        if call_id not in self.waiting:
            self.waiting.append(call_id)
        self.desk.leases.on_want(self.id, Want(call_id, list(amounts), deadline_ms))

    def hold(self, amount: int, window=W) -> None:
        """The first call that waits, if any, is admitted."""
        assert self.free(window) >= amount
        self.held[window] = self.held.get(window, 0) + amount
        if self.waiting:
            self.unwant(self.waiting[0])

    def unwant(self, call_id: bytes) -> None:
        self.waiting.remove(call_id)
        self.desk.leases.on_unwant(self.id, Unwant(call_id))

    def settle(self, held: int, cost: int, window=W) -> None:
        self.held[window] -= held
        self.used[window] = self.used.get(window, 0) + cost

    def give_back(self, window=W) -> None:
        self.returned[window] = self.returned.get(window, 0) + self.free(window)

    def report(self, burn: int = 0) -> None:
        slices = [
            SliceStatus(
                window,
                self.returned.get(window, 0),
                self.used.get(window, 0),
                self.held.get(window, 0),
                burn,
            )
            for window in self.granted
        ]
        self.desk.leases.on_status(self.id, Status(slices))


class Desk:
    """Leases with their surroundings."""

    def __init__(self, *, shared: bool = False, **limits: int) -> None:
        self.now_ms = 1_000_000
        self.syncs = 0
        self.during_sync = lambda: None
        windows = {"w": W, "v": V}
        self.ledger = Ledger({windows[name]: Account(limit) for name, limit in limits.items()})
        self.leases = Leases(
            EPOCH,
            self.ledger,
            now_ms=lambda: self.now_ms,
            sync=self.sync,
            idle_ms=IDLE_MS,
            interval_ms=INTERVAL_MS,
            shared=shared,
        )
        self.leases.set_limits({w[0]: a.limit for w, a in self.ledger.accounts.items()})
        self.workers: list[Worker] = []

    def forget_demand(self) -> None:
        for _ in range(100):
            self.leases.interval()

    async def sync(self) -> None:
        self.syncs += 1
        self.during_sync()

    def worker(self) -> Worker:
        worker = Worker(self, bytes([len(self.workers)]))
        self.workers.append(worker)
        return worker

    def drained(self, worker: Worker, window=W, *, finished: bool = False, lost: int = 0) -> None:
        """All that a worker has used is in the ledger now."""
        account = self.ledger.accounts[window]
        before = getattr(worker, "drained", 0)
        charge = worker.used.get(window, 0) + lost - before
        worker.drained = before + charge
        account.spent += charge
        lease = {window: LeaseState(account.granted, account.spent)}
        self.leases.on_flush(Flush(worker.id, EPOCH, {window: charge}, lease, finished))

    def check(self) -> None:
        """I2, as far as control can know it."""
        for window, account in self.ledger.accounts.items():
            assert account.committed <= max(account.limit, account.committed)
            out = sum(
                w.granted.get(window, 0) - w.returned.get(window, 0) - getattr(w, "drained", 0)
                for w in self.workers
                if not getattr(w, "over", False)
            )
            assert 0 <= out <= account.granted - account.spent, (window, out, account)


# --- ample ---------------------------------------------------------------------------------


async def test_a_want_is_leased_and_granted_at_once():
    desk = Desk(w=1_000)
    worker = desk.worker()
    worker.want(b"a", (W, 100))
    await desk.leases.step()
    assert worker.free() >= 100
    assert worker.answered == [b"a"]
    assert worker.rooms[W].limit == 1_000
    assert desk.leases.waiting == 0
    desk.check()


async def test_a_lease_is_ahead_of_what_is_lacking_so_that_the_next_call_need_not_ask():
    desk = Desk(w=8_000)
    worker = desk.worker()
    worker.want(b"a", (W, 10))
    await desk.leases.step()
    assert desk.ledger.accounts[W].granted == 1_000
    worker.want(b"b", (W, 500))
    assert desk.leases.grant() is False
    assert b"b" in worker.answered
    assert len(desk.ledger.calls) == 1


async def test_a_call_needs_all_its_windows():
    desk = Desk(w=1_000, v=50)
    worker = desk.worker()
    worker.want(b"a", (W, 100), (V, 60))
    await desk.leases.step()
    assert worker.answered == [b"a"]
    assert worker.free(V) < 60
    assert worker.rooms[V].limit == 50


async def test_what_is_spent_is_filled_up_ahead():
    desk = Desk(w=100_000)
    worker = desk.worker()
    worker.want(b"a", (W, 100))
    await desk.leases.step()
    worker.give_back()
    worker.returned[W] -= 100
    worker.hold(100)
    worker.settle(100, 80)
    worker.report(burn=80)
    desk.leases.interval()
    await desk.leases.step()
    assert worker.free() >= 4 * 80
    desk.check()


async def test_idle_money_goes_back_after_it_is_on_disk():
    desk = Desk(w=8_000)
    worker = desk.worker()
    worker.want(b"a", (W, 10))
    await desk.leases.step()
    worker.give_back()
    worker.report()
    for _ in range(40):
        desk.leases.interval()
    await desk.leases.step()
    assert desk.ledger.accounts[W].granted == 1_000
    desk.now_ms += IDLE_MS
    await desk.leases.step()
    assert desk.ledger.accounts[W].granted == 0
    assert desk.syncs == 1
    desk.check()


async def test_what_is_on_its_way_back_is_granted_to_nobody():
    desk = Desk(w=1_000)
    worker = desk.worker()
    worker.want(b"a", (W, 100))
    await desk.leases.step()
    worker.give_back()
    worker.report()
    desk.now_ms += IDLE_MS

    def a_call_comes() -> None:
        worker.want(b"b", (W, 100))
        desk.leases.grant()
        assert worker.free() == 0

    desk.during_sync = a_call_comes
    await desk.leases.step()
    assert desk.syncs == 1
    desk.check()
    await desk.leases.step()
    assert worker.free() >= 100
    desk.check()


async def test_what_could_not_be_given_back_for_the_disk_can_be_granted():
    desk = Desk(w=1_000)
    worker = desk.worker()
    worker.want(b"a", (W, 1_000))
    await desk.leases.step()
    worker.give_back()
    worker.report()
    desk.now_ms += IDLE_MS
    desk.forget_demand()

    def the_disk_fails() -> None:
        raise OSError("input/output error")

    desk.during_sync = the_disk_fails
    with pytest.raises(OSError, match="input/output"):
        await desk.leases.step()
    worker.want(b"b", (W, 1_000))
    desk.leases.grant()
    assert worker.free() == 1_000
    desk.check()


async def test_everything_can_be_given_back_at_the_end():
    desk = Desk(w=8_000)
    worker = desk.worker()
    worker.want(b"a", (W, 10))
    await desk.leases.step()
    worker.hold(10)
    worker.settle(10, 7)
    desk.leases.detach(worker.id)
    desk.drained(worker, finished=True)
    worker.over = True
    await desk.leases.give_back()
    assert desk.ledger.accounts[W].granted == 7
    desk.check()


# --- scarce --------------------------------------------------------------------------------


async def test_the_last_cent_can_be_spent():
    desk = Desk(w=100)
    worker = desk.worker()
    for number in range(10):
        worker.want(bytes([number]), (W, 10 - max(worker.free(), 0)))
        await desk.leases.step()
        worker.hold(10)
        worker.settle(10, 10)
        worker.report()
        desk.drained(worker)
        desk.check()
    assert worker.used[W] == 100
    worker.want(b"x", (W, 1))
    await desk.leases.step()
    assert worker.answered[-1] == b"x"
    assert worker.rooms[W].spent == 100


async def test_a_budget_of_nothing_is_answered_at_once():
    desk = Desk(w=0)
    worker = desk.worker()
    worker.want(b"a", (W, 1))
    await desk.leases.step()
    assert worker.answered == [b"a"]
    assert (worker.rooms[W].limit, worker.rooms[W].spent) == (0, 0)
    assert desk.leases.waiting == 0


async def test_the_oldest_ticket_is_served_first():
    desk = Desk(w=100)
    first, second = desk.worker(), desk.worker()
    first.want(b"a", (W, 100))
    await desk.leases.step()
    first.hold(50)
    first.hold(50)
    second.want(b"b", (W, 60))
    first.want(b"c", (W, 10))
    await desk.leases.step()
    assert desk.leases.waiting == 2
    assert {b"b", b"c"} <= {*first.answered, *second.answered}
    assert all(w.rooms[W].scarce and w.rooms[W].oldest == b"b" for w in (first, second))
    first.settle(50, 20)
    first.give_back()
    first.report()
    desk.drained(first)
    await desk.leases.step()
    assert desk.leases.waiting == 2  # 30 are free: enough for c, but b is older
    assert first.free() == 0
    second.unwant(b"b")
    await desk.leases.step()
    assert first.free() >= 10
    desk.check()


async def test_a_younger_ticket_whose_windows_nobody_older_needs_is_not_kept_waiting():
    desk = Desk(w=10, v=10)
    worker = desk.worker()
    worker.want(b"a", (W, 10))
    await desk.leases.step()
    worker.hold(10)
    worker.want(b"b", (W, 5))
    worker.want(b"c", (V, 5))
    await desk.leases.step()
    assert desk.leases.waiting == 1
    assert worker.free(V) >= 5


async def test_a_want_that_comes_again_keeps_its_place():
    desk = Desk(w=100)
    worker = desk.worker()
    worker.want(b"z", (W, 100))
    await desk.leases.step()
    worker.hold(100)
    worker.want(b"a", (W, 50))
    worker.want(b"b", (W, 50))
    worker.want(b"a", (W, 40))
    await desk.leases.step()
    assert worker.rooms[W].oldest == b"a"
    assert desk.leases.waiting == 2


async def test_tickets_end_with_their_time_and_their_worker():
    desk = Desk(w=100)
    holder, other = desk.worker(), desk.worker()
    holder.want(b"z", (W, 100))
    await desk.leases.step()
    holder.want(b"a", (W, 50), wait_ms=0)
    other.want(b"b", (W, 50), wait_ms=100_000)
    desk.now_ms += GRACE_MS + 1
    desk.leases.interval()
    assert desk.leases.waiting == 1
    desk.leases.detach(other.id)
    assert desk.leases.waiting == 0


async def test_while_somebody_waits_nobody_is_granted_ahead():
    desk = Desk(w=100)
    busy, waiting = desk.worker(), desk.worker()
    busy.want(b"a", (W, 90))
    await desk.leases.step()
    busy.hold(90)
    busy.give_back()
    busy.report(burn=50)
    waiting.want(b"b", (W, 50))
    await desk.leases.step()
    before = busy.granted[W]
    desk.leases.interval()
    await desk.leases.step()
    assert busy.granted[W] == before
    desk.check()


# --- limits --------------------------------------------------------------------------------


async def test_a_lowered_limit_recalls_what_is_not_held():
    desk = Desk(w=800)
    worker = desk.worker()
    worker.want(b"a", (W, 300))
    await desk.leases.step()
    worker.hold(100)
    desk.ledger.accounts[W].limit = 150
    desk.leases.set_limits({1: 150})
    await desk.leases.step()
    assert worker.rooms[W].scarce
    worker.give_back()
    worker.report()
    await desk.leases.step()
    assert [(W, -200)] in desk.ledger.calls
    assert desk.ledger.accounts[W].granted <= 150
    given_back = [call for call in desk.ledger.calls if any(delta < 0 for _, delta in call)]
    assert desk.syncs == len(given_back) > 0
    assert not worker.rooms[W].scarce
    desk.check()


async def test_what_comes_back_under_a_lowered_limit_is_not_granted_again():
    desk = Desk(w=800)
    worker = desk.worker()
    worker.want(b"a", (W, 300))
    await desk.leases.step()
    worker.hold(100)
    desk.ledger.accounts[W].limit = 150
    desk.leases.set_limits({1: 150})
    worker.give_back()
    worker.report()
    worker.want(b"b", (W, 100))
    assert desk.leases.grant()  # it waits: what was free before is above the limit now
    assert worker.free() == 0
    await desk.leases.step()
    assert worker.free() == 0
    desk.check()


async def test_calls_of_one_worker_do_not_reserve_against_each_other():
    """The worker's first call asked again, after a later one: it lacks less, and gets it."""
    desk = Desk(w=100)
    worker = desk.worker()
    worker.want(b"z", (W, 100))
    await desk.leases.step()
    worker.hold(100)
    worker.want(b"later", (W, 60))
    worker.want(b"first", (W, 30))
    await desk.leases.step()
    worker.settle(50, 10)
    worker.give_back()
    worker.report()
    await desk.leases.step()
    assert worker.free() >= 30
    desk.check()


async def test_a_raised_limit_lets_those_who_wait_go_on():
    desk = Desk(w=100)
    worker = desk.worker()
    worker.want(b"a", (W, 100))
    await desk.leases.step()
    worker.hold(100)
    worker.want(b"b", (W, 80))
    await desk.leases.step()
    assert worker.free() == 0
    desk.ledger.accounts[W].limit = 200
    desk.leases.set_limits({1: 200})
    await desk.leases.step()
    assert worker.free() >= 80


async def test_other_hosts_share_a_window():
    desk = Desk(shared=True, w=100)
    desk.ledger.accounts[W].others = 90
    worker = desk.worker()
    worker.want(b"a", (W, 30))
    await desk.leases.step()
    assert desk.leases.waiting == 1
    desk.ledger.accounts[W].others = 60
    await desk.leases.step()
    assert worker.free() >= 30


# --- other hosts ---------------------------------------------------------------------------

ELDER, YOUNGER = OpenTicket(1, 9), OpenTicket(40, 9)


async def shared(**limits):
    """A host with money ahead, in a slice that is not needed now."""
    desk = Desk(shared=True, **limits)
    worker = desk.worker()
    worker.want(b"z", *((w, 10) for w in desk.ledger.accounts))
    await desk.leases.step()
    worker.unwant(b"z")
    return desk, worker


async def test_money_that_another_host_waits_for_is_given_back_at_once():
    desk, worker = await shared(w=100)
    account = desk.ledger.accounts[W]
    worker.hold(5)
    account.first = ELDER
    await desk.leases.look()
    await desk.leases.step()
    assert (worker.rooms[W].scarce, worker.rooms[W].oldest) == (True, ELSEWHERE)
    worker.give_back()
    status = Status([SliceStatus(W, worker.returned[W], 0, 5, 0)])
    assert desk.leases.on_status(worker.id, status) is True
    await desk.leases.step()
    assert account.granted == 5
    worker.settle(5, 2)
    worker.give_back()
    worker.report()
    desk.drained(worker)
    await desk.leases.step()
    assert account.granted == 2
    account.first = None
    await desk.leases.look()
    await desk.leases.step()
    assert not worker.rooms[W].scarce
    desk.check()


async def test_a_call_stands_behind_older_ones_of_other_hosts():
    desk, worker = await shared(w=100)
    account = desk.ledger.accounts[W]
    worker.give_back()
    worker.report()
    account.first = ELDER
    worker.want(b"a", (W, 20))
    await desk.leases.step()
    assert worker.free() == 0
    assert account.ticket > ELDER.number
    assert worker.rooms[W].oldest == ELSEWHERE
    account.first = None
    await desk.leases.step()
    assert worker.free() >= 20
    await desk.leases.step()
    assert account.ticket == 0


async def test_a_call_that_is_older_gets_what_it_lacks_and_no_more():
    desk, worker = await shared(w=100)
    account = desk.ledger.accounts[W]
    worker.give_back()
    worker.report()
    account.others = 100 - account.granted
    worker.want(b"a", (W, 30))
    await desk.leases.step()
    mine = account.ticket
    assert 0 < mine < YOUNGER.number
    account.first, account.others = YOUNGER, 0
    worker.want(b"b", (W, 5))  # younger than both
    await desk.leases.step()
    assert worker.free() == 30
    assert account.granted == 30
    assert worker.rooms[W].oldest == b"a"
    worker.hold(30)
    await desk.leases.step()
    assert worker.rooms[W].oldest == ELSEWHERE
    assert account.ticket > YOUNGER.number
    assert worker.free() == 0


async def test_a_call_that_asks_again_after_a_grant_keeps_its_place():
    """Its worker's own line gave the money to another call."""
    desk, worker = await shared(w=100)
    account = desk.ledger.accounts[W]
    worker.give_back()
    worker.report()
    account.others = 100
    worker.want(b"a", (W, 30))
    await desk.leases.step()
    mine = account.ticket
    account.others, account.first = 0, YOUNGER
    await desk.leases.step()
    assert worker.free() == 30
    worker.held[W] = 30
    worker.want(b"a", (W, 30))
    await desk.leases.step()
    assert account.ticket in (0, mine)
    assert worker.free() == 30
    other = desk.worker()
    other.want(b"b", (W, 70))
    await desk.leases.step()
    assert worker.rooms[W].oldest == b"a"
    assert other.free() == 0


async def test_places_are_in_one_order_over_all_windows():
    """Else calls of two hosts could wait for each other in a circle."""
    desk, worker = await shared(w=100, v=100)
    worker.give_back(W)
    worker.give_back(V)
    worker.report()
    for account in desk.ledger.accounts.values():
        account.others = 100 - account.granted
        account.first = YOUNGER
    worker.want(b"a", (W, 90))
    worker.want(b"b", (W, 90), (V, 90))
    worker.want(b"c", (V, 90))
    await desk.leases.step()
    assert [ticket.number for ticket in desk.leases._tickets] == [41, 42, 43]
    assert (desk.ledger.accounts[W].ticket, desk.ledger.accounts[V].ticket) == (41, 42)


async def test_a_host_that_stands_still_for_too_long_is_passed_over():
    desk, worker = await shared(w=100)
    account = desk.ledger.accounts[W]
    worker.give_back()
    worker.report()
    account.first = ELDER
    worker.want(b"a", (W, 20), wait_ms=60_000)
    await desk.leases.step()
    desk.now_ms += ANSWER_WAIT_MS + 2 * GRACE_MS + 1
    await desk.leases.step()
    await desk.leases.step()
    assert worker.free() >= 20


# --- faults --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["lost", "undone"])
async def test_a_lease_of_unknown_outcome_is_learned_before_it_is_used(fault):
    desk = Desk(w=800)
    worker = desk.worker()
    desk.ledger.fault = fault
    worker.want(b"a", (W, 100))
    with pytest.raises(OutcomeUnknown):
        await desk.leases.step()
    assert worker.free() == 0
    desk.check()
    await desk.leases.step()
    assert worker.free() >= 100
    desk.check()


@pytest.mark.parametrize("fault", ["lost", "undone"])
async def test_a_return_of_unknown_outcome_is_nobodys_meanwhile(fault):
    desk = Desk(w=800)
    worker = desk.worker()
    worker.want(b"a", (W, 10))
    await desk.leases.step()
    worker.give_back()
    worker.report()
    for _ in range(40):
        desk.leases.interval()
    desk.now_ms += IDLE_MS
    desk.ledger.fault = fault
    with pytest.raises(OutcomeUnknown):
        await desk.leases.step()
    worker.want(b"b", (W, 50))
    assert desk.leases.grant() is True
    assert worker.free() == 0
    await desk.leases.step()
    assert worker.free() >= 50
    desk.check()


async def test_an_outage_is_told_and_pools_go_on():
    desk = Desk(w=8_000)
    worker = desk.worker()
    worker.want(b"a", (W, 10))
    await desk.leases.step()
    worker.give_back()
    worker.report()
    desk.ledger.fault = "refused"
    worker.want(b"b", (W, 5_000))
    worker.want(b"c", (V, 1))
    with pytest.raises(OSError, match="no route"):
        await desk.leases.step()
    desk.leases.set_outage(True)
    assert {b"b", b"c"} <= set(worker.answered)
    assert worker.told[-1].outage
    worker.want(b"d", (W, 200))
    desk.leases.set_outage(True)
    assert worker.free() >= 200
    desk.leases.set_outage(False)
    assert not worker.told[-1].outage
    late = desk.worker()
    assert late.told == []
    desk.check()


async def test_a_worker_that_comes_during_an_outage_is_told():
    desk = Desk(w=100)
    desk.leases.set_outage(True)
    assert desk.worker().told[-1].outage


async def test_a_dead_workers_slice_stays_until_its_journal_is_finished():
    desk = Desk(w=100)
    dead = desk.worker()
    dead.want(b"a", (W, 100))
    await desk.leases.step()
    dead.hold(60)
    desk.leases.detach(dead.id)
    heir = desk.worker()
    heir.want(b"b", (W, 40))
    await desk.leases.step()
    assert heir.free() == 0
    desk.drained(dead, finished=True, lost=60)
    dead.over = True
    await desk.leases.step()
    assert heir.free() == 40
    desk.check()


async def test_repeated_and_old_messages_do_no_harm():
    desk = Desk(w=800)
    worker = desk.worker()
    worker.want(b"a", (W, 100))
    await desk.leases.step()
    worker.give_back()
    worker.report()
    worker.report()
    stale = Status([SliceStatus(W, 0, 0, 0, 0)])
    desk.leases.on_status(worker.id, stale)
    worker.want(b"b", (W, 60))
    await desk.leases.step()
    desk.check()
    assert worker.free() >= 60


async def test_windows_of_the_past_are_forgotten():
    desk = Desk(w=800)
    desk.ledger.accounts[1, 60] = Account(800)
    worker = desk.worker()
    worker.want(b"a", (W, 100))
    await desk.leases.step()
    worker.give_back()
    worker.report()
    for _ in range(40):
        desk.leases.interval()
    desk.now_ms += IDLE_MS
    await desk.leases.step()
    worker.want(b"b", ((1, 60), 10))
    await desk.leases.step()
    assert W in desk.leases._windows
    desk.now_ms += KEEP_MS + 1
    desk.leases.interval()
    assert W not in desk.leases._windows
    assert (1, 60) in desk.leases._windows


# --- how much at once ----------------------------------------------------------------------


def test_a_host_alone_leases_a_share_of_what_is_left():
    state = WindowState(W, 8_000)
    assert state.ahead(8_000, None) == 1_000


@pytest.mark.parametrize("shared", [False, True])
async def test_a_lease_in_use_is_topped_up_before_it_is_used_up(shared):
    desk = Desk(w=100_000, shared=shared)
    worker = desk.worker()
    worker.want(b"a", (W, 20))
    await desk.leases.step()
    worker.hold(20)
    worker.settle(20, 10)
    asked = len(desk.ledger.calls)
    for _ in range(4):
        worker.report(burn=10)
        desk.leases.interval()
        await desk.leases.step()
    leased = desk.ledger.accounts[W].granted
    minute = LEASE_MS // INTERVAL_MS * 10
    assert leased >= (minute if shared else 100_000 // LEASE_SHARE)
    assert len(desk.ledger.calls) - asked <= 1  # and then there is enough for a while
    for _ in range(50):
        desk.leases.interval()
        await desk.leases.step()
    assert desk.ledger.accounts[W].granted == leased  # nothing burns: nothing is taken
    desk.check()


def test_among_hosts_a_lease_is_what_this_one_has_shown_it_needs():
    """Eighths of what is left, each host after the other, would leave nothing to the last."""
    state = WindowState(W, 8_000)
    assert state.ahead(8_000, 600) == 0
    slice_ = state.slice_of(b"worker")
    slice_.burn, slice_.demand = 3.0, 50.0
    assert state.ahead(10**6, 600) == 600 * 3 + 2 * 50
    assert state.ahead(80, 600) == 80 // LEASE_SHARE
