"""How this host's money gets to its workers: leases from the ledger, slices to workers, tickets.

A state machine over messages and an asynchronous ledger; clock and ledger are parameters. What a
window's pool is follows from totals alone (see `slices`), so no step can lose or double money.

Ample: a slice is filled ahead of what its worker spends, and a lease ahead of its slices. Scarce,
once a call somewhere does not fit: the oldest ticket that needs a window is served first, others
give back what is free (protocol section 8).
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from db.journal_records import Amounts, Window
from db.ledger_types import LeaseOutcome, LeaseRequest, LeaseState, OutcomeUnknown
from db.writer import Flush
from proxy.control.outbox import Outbox, Send
from proxy.control.slices import LEASE_SHARE, WindowState
from proxy.wire import Status, Unwant, Want

ROUNDS = 2  # a window not known yet is asked for once to learn its state, once to lease
GRACE_MS = 1_000  # a worker ends its own wants; this is for one that does not
TICKETS_MAX = 100_000
KEEP_MS = 3_600_000  # a window over and idle for this long is forgotten


class LeaseLedger(Protocol):
    async def lease(self, epoch_id: int, requests: list[LeaseRequest]) -> list[LeaseOutcome]: ...

    async def leases(self, epoch_id: int) -> dict[Window, LeaseState]: ...


@dataclass(slots=True)
class Ticket:
    journal_id: bytes
    call_id: bytes
    amounts: Amounts  # what is lacking
    deadline_ms: int
    answered: bool = False


class Leases:
    def __init__(
        self,
        epoch_id: int,
        ledger: LeaseLedger,
        *,
        now_ms: Callable[[], int],
        sync: Callable[[], Awaitable[None]],
        idle_ms: int,
        shared: bool,
    ) -> None:
        self._epoch_id = epoch_id
        self._ledger = ledger
        self._now_ms = now_ms
        self._sync = sync  # all journals to disk: before money leaves the host (rule 6)
        self._idle_ms = idle_ms
        self._shared = shared  # other hosts lease from the same windows
        self._limits: dict[int, int] = {}
        self._windows: dict[Window, WindowState] = {}
        self._outbox = Outbox(self._windows)
        self._tickets: dict[bytes, Ticket] = {}  # by call, oldest first
        self._in_doubt = False  # a LEASE of unknown outcome: its money is nobody's (R4)
        self.outage = False

    # --- what happens

    def set_limits(self, limits: Mapping[int, int]) -> None:
        """Limits by budget id, of a new snapshot; a budget that is missing was deleted."""
        self._limits = dict(limits)
        for state in self._windows.values():
            limit = self._limits.get(state.window[0], 0)
            if limit != state.limit:
                state.limit, state.known = limit, False  # ask what it means for this window

    def attach(self, journal_id: bytes, send: Send) -> None:
        """A worker whose journal is registered."""
        self._outbox.attach(journal_id, send, outage=self.outage)

    def detach(self, journal_id: bytes) -> None:
        """A worker's connection is gone. Its slices stay until its journal is finished."""
        self._outbox.detach(journal_id)
        for ticket in [t for t in self._tickets.values() if t.journal_id == journal_id]:
            del self._tickets[ticket.call_id]

    def on_status(self, journal_id: bytes, status: Status) -> None:
        now = self._now_ms()
        for report in status.slices:
            state = self._state(report.window)
            state.slice_of(journal_id).report(report)
            if report.burn or report.held:
                state.touched_ms = now

    def on_want(self, journal_id: bytes, want: Want) -> None:
        """Again for the same call: the amounts are new, the place in the queue is kept."""
        known = self._tickets.get(want.call_id)
        if known is not None:
            known.amounts, known.answered = want.amounts, False
            return
        if len(self._tickets) >= TICKETS_MAX:
            self._end(Ticket(journal_id, want.call_id, want.amounts, 0))
            return
        ticket = Ticket(journal_id, want.call_id, want.amounts, want.deadline_ms)
        self._tickets[want.call_id] = ticket
        now = self._now_ms()
        for window, amount in want.amounts:
            state = self._state(window)
            state.touched_ms = now
            slice_ = state.slice_of(journal_id)
            slice_.demand = max(slice_.demand, float(slice_.held + amount))

    def on_unwant(self, _journal_id: bytes, unwant: Unwant) -> None:
        self._tickets.pop(unwant.call_id, None)

    def on_flush(self, flush: Flush) -> None:
        """A journal was drained: money of its worker's slices is now the ledger's."""
        for window, lease in flush.leases.items():
            state = self._windows.get(window)
            if state is None:
                continue
            if flush.epoch_id == self._epoch_id:
                self._set_lease(state, lease)
            else:
                state.known = False  # spent by a former epoch: ask
            self._outbox.tell_all(state)
        for window, amount in flush.consumed.items():
            state = self._windows.get(window)
            if state is not None and flush.journal_id in state.slices:
                state.slices[flush.journal_id].consumed += amount
        if flush.finished:
            for state in self._windows.values():
                if state.slices.pop(flush.journal_id, None) is not None:
                    self._outbox.tell_all(state)

    def refresh(self, windows: Iterable[Window]) -> None:
        """Their money has changed in the ledger: ask what there is now."""
        for window in windows:
            state = self._windows.get(window)
            if state is not None:
                state.known = False

    def interval(self) -> None:
        """Once per flush interval: decay what is remembered of demand."""
        now = self._now_ms()
        for state in self._windows.values():
            for slice_ in state.slices.values():
                slice_.interval()
        for ticket in [t for t in self._tickets.values() if t.deadline_ms + GRACE_MS < now]:
            del self._tickets[ticket.call_id]
        self._forget_old(now)

    @property
    def waiting(self) -> int:
        return len(self._tickets)

    # --- what follows from it

    async def step(self) -> None:
        """Lease what is needed, give back what is not, grant, and tell the workers. Raises what
        the ledger raises; what is in the pools is granted all the same."""
        try:
            if self._in_doubt:
                await self._learn()
            for _ in range(ROUNDS):
                requests = self._requests()
                if not requests:
                    break
                await self._lease(requests)
        finally:
            self.grant(answer=True)

    def grant(self, *, answer: bool = False) -> bool:
        """Grant from the pools and tell the workers: no I/O. True: calls wait all the same.
        `answer`: also those that have to wait, whose workers now know what there is."""
        self._grant(settled=answer)
        if answer:
            for ticket in self._tickets.values():
                self._answer(ticket)
        self._outbox.send(outage=self.outage)
        return bool(self._tickets)

    async def give_back(self) -> None:
        """Return every pool to the ledger: at the end, when no worker is left."""
        requests = [
            LeaseRequest(state.window, -state.pool, state.granted)
            for state in self._windows.values()
            if state.pool > 0
        ]
        if requests:
            await self._lease(requests)

    def set_outage(self, outage: bool) -> None:
        """The ledger cannot be reached, or can again: calls that the pools cannot pay are told."""
        changed = outage != self.outage
        self.outage = outage
        self._grant(settled=True)
        if outage:
            for ticket in list(self._tickets.values()):
                self._end(ticket)
        self._outbox.send(outage=outage, everybody=changed)

    async def _lease(self, requests: list[LeaseRequest]) -> None:
        for request in requests:  # nobody's from now on: a call may want it while the disk is slow
            self._windows[request.window].returning = max(-request.delta, 0)
        if any(request.delta < 0 for request in requests):
            try:
                await self._sync()
            except BaseException:
                self._certain()
                raise
        self._in_doubt = True
        try:
            outcomes = await self._ledger.lease(self._epoch_id, requests)
        except OutcomeUnknown:
            raise
        except Exception:
            self._certain()  # rolled back
            raise
        self._certain()
        for outcome in outcomes:
            state = self._windows[outcome.window]
            state.limit, state.committed = outcome.limit, outcome.committed
            state.granted, state.spent = outcome.granted, outcome.spent
            state.spent_total, state.known = outcome.spent_total, True
            self._outbox.tell_all(state)

    def _certain(self) -> None:
        self._in_doubt = False
        for state in self._windows.values():
            state.returning = 0

    async def _learn(self) -> None:
        """After a commit of unknown outcome: what the ledger says under its lock is so (R4)."""
        leases = await self._ledger.leases(self._epoch_id)
        self._certain()
        for window, state in self._windows.items():
            self._set_lease(state, leases.get(window, LeaseState(0, 0)))
            state.known = False

    def _set_lease(self, state: WindowState, lease: LeaseState) -> None:
        state.committed += lease.granted - state.granted
        state.spent_total += lease.spent - state.spent
        state.granted, state.spent = lease

    # --- deciding

    def _lacking(self) -> dict[Window, int]:
        lacking: dict[Window, int] = {}
        for ticket in self._tickets.values():
            for window, amount in ticket.amounts:
                lacking[window] = lacking.get(window, 0) + amount
        return lacking

    def _requests(self) -> list[LeaseRequest]:
        """Changes to this control's leases, at most one per window."""
        lacking = self._lacking()
        now = self._now_ms()
        requests = []
        for state in list(self._windows.values()):
            needed = lacking.get(state.window, 0)
            delta = self._change(state, needed, now)
            if delta or (not state.known and (needed or state.slices)):
                at_least = 1 if delta > 0 else 0
                requests.append(LeaseRequest(state.window, delta, state.granted, at_least))
        return requests

    def _change(self, state: WindowState, lacking: int, now: int) -> int:
        pool = state.pool
        ahead = sum(max(s.target - s.free, 0) for s in state.slices.values())
        short = max(lacking, ahead) - pool
        if not state.known:  # whatever there is of it
            return max(short, state.limit // LEASE_SHARE) if lacking else 0
        if state.over_limit:
            return -max(pool, 0)
        if short > 0:
            if not state.room and not (self._shared and lacking > pool):
                return 0
            return short if lacking > state.room else max(short, state.room // LEASE_SHARE)
        if pool > 0 and not lacking and self._is_idle(state, now):
            return -pool
        return 0

    def _is_idle(self, state: WindowState, now: int) -> bool:
        return now - state.touched_ms >= self._idle_ms

    def _grant(self, *, settled: bool) -> None:
        """Tickets first, oldest first; what they leave, ahead. `settled`: the ledger has been
        asked for what is lacking, so what still waits is scarce."""
        # An older ticket waits for these: no other worker gets any. Its own may, and serves its
        # calls in its own order; that need not be the order in which it asked for them.
        reserved: dict[Window, bytes] = {}
        for ticket in list(self._tickets.values()):
            states = [(self._state(window), amount) for window, amount in ticket.amounts]
            if any(s.known and amount > s.limit - s.spent_total for s, amount in states):
                self._end(ticket)  # spent: its worker sees that too
            elif all(
                s.grantable >= amount
                and reserved.get(s.window, ticket.journal_id) == ticket.journal_id
                for s, amount in states
            ):
                for state, amount in states:
                    self._give(state, ticket.journal_id, amount)
                self._end(ticket)
            else:
                for state, _ in states:
                    reserved.setdefault(state.window, ticket.journal_id)
        if settled:
            self._set_scarce(reserved.keys())
        for state in self._windows.values():
            if state.window not in reserved:
                self._fill(state)

    def _set_scarce(self, reserved: Collection[Window]) -> None:
        """Who waits for a window is told with it: the worker of the oldest ticket keeps what it
        has, everybody else gives back what is free."""
        oldest: dict[Window, bytes] = {}
        for ticket in self._tickets.values():
            for window, _ in ticket.amounts:
                oldest.setdefault(window, ticket.call_id)
        for state in self._windows.values():
            scarce = state.window in reserved
            first = oldest.get(state.window, b"") if scarce else b""
            if (scarce, first) != (state.scarce, state.oldest):
                state.scarce, state.oldest = scarce, first
                self._outbox.tell_all(state)

    def _fill(self, state: WindowState) -> None:
        """Ahead: what a worker will need, and its share of what nobody else asked for."""
        needy = [
            (id_, slice_)
            for id_, slice_ in state.slices.items()
            if id_ in self._outbox and 2 * slice_.free < slice_.target
        ]
        for index, (journal_id, slice_) in enumerate(needy):
            pool = state.grantable
            if pool <= 0:
                return
            share = pool // (len(self._outbox) * (len(needy) - index))
            self._give(state, journal_id, min(pool, max(slice_.target - slice_.free, share)))

    def _give(self, state: WindowState, journal_id: bytes, amount: int) -> None:
        if amount > 0:
            assert amount <= state.pool, (amount, state)
            state.slice_of(journal_id).granted += amount
            state.touched_ms = self._now_ms()
            self._outbox.tell(journal_id, state.window)

    def _end(self, ticket: Ticket) -> None:
        """The want is over: granted, or never to be."""
        self._answer(ticket)
        self._tickets.pop(ticket.call_id, None)

    def _answer(self, ticket: Ticket) -> None:
        if not ticket.answered:
            ticket.answered = True
            windows = [window for window, _ in ticket.amounts]
            self._outbox.answer(ticket.journal_id, ticket.call_id, windows)

    # --- windows

    def _state(self, window: Window) -> WindowState:
        state = self._windows.get(window)
        if state is None:
            limit = self._limits.get(window[0], 0)
            state = self._windows[window] = WindowState(window, limit, touched_ms=self._now_ms())
        return state

    def _forget_old(self, now: int) -> None:
        """Windows that have a successor and of which nothing is left here."""
        newest: dict[int, int] = {}
        for budget_id, starts_at in self._windows:
            newest[budget_id] = max(newest.get(budget_id, 0), starts_at)
        for window, state in list(self._windows.items()):
            in_use = state.granted > state.spent or any(
                s.outstanding for s in state.slices.values()
            )
            if window[1] < newest[window[0]] and not in_use and now - state.touched_ms > KEEP_MS:
                del self._windows[window]
