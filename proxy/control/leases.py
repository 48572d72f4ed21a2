"""How this host's money gets to its workers: leases from the ledger, slices to workers, tickets.

A state machine over messages and an asynchronous ledger; clock and ledger are parameters. What a
window's pool is follows from totals alone (see `slices`), so no step can lose or double money.

Ample: a slice is filled ahead of what its worker spends, and a lease ahead of its slices. Scarce,
once a call somewhere does not fit: the oldest ticket that needs a window is served first, others
give back what is free (protocol section 8), on this host and on all that share the database.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from db.journal_records import Window
from db.ledger_types import LeaseLedger, LeaseOutcome, LeaseRequest, LeaseState, OutcomeUnknown
from db.writer import Flush
from proxy.control.outbox import Outbox, Send
from proxy.control.slices import LEASE_MS, WindowState, over
from proxy.control.tickets import GRACE_MS, Others, Ticket, Tickets
from proxy.wire import ANSWER_WAIT_MS, Status, Unwant, Want

ROUNDS = 2  # a window not known yet is asked for once to learn its state, once to lease
KEEP_MS = 3_600_000  # a window over and idle for this long is forgotten
ELSEWHERE = b"elsewhere"  # the call that is first in line, where it is another host's


class Leases:
    def __init__(
        self,
        epoch_id: int,
        ledger: LeaseLedger,
        *,
        now_ms: Callable[[], int],
        sync: Callable[[], Awaitable[None]],
        idle_ms: int,
        interval_ms: int,
        shared: bool,
    ) -> None:
        self._epoch_id = epoch_id
        self._ledger = ledger
        self._now_ms = now_ms
        self._sync = sync  # all journals to disk: before money leaves the host (rule 6)
        self._idle_ms = idle_ms
        self._shared = shared  # other hosts lease from the same windows
        self._intervals = max(LEASE_MS // interval_ms, 1) if shared else None
        self.limits: dict[int, int] = {}  # by budget: of the last snapshot, and those told since
        self._windows: dict[Window, WindowState] = {}
        self._outbox = Outbox(self._windows)
        self._tickets = Tickets()
        self._others = Others()
        self._in_doubt = False  # a LEASE of unknown outcome: its money is nobody's (R4)
        self.outage = False

    # --- what happens

    def set_limits(self, limits: Mapping[int, int], wait_ms: int = 0) -> None:
        """Limits by budget id, of a new snapshot; a budget that is missing was deleted. `wait_ms`:
        the longest a call may wait in any of them."""
        self.limits = dict(limits)
        self._others.patience_ms = max(ANSWER_WAIT_MS, wait_ms) + 2 * GRACE_MS
        for ticket in self._tickets:
            ticket.spent = False
        for state in self._windows.values():
            limit = self.limits.get(state.window[0], 0)
            if limit != state.limit:
                state.limit, state.known = limit, False  # ask what it means for this window

    def attach(self, journal_id: bytes, send: Send) -> None:
        """A worker whose journal is registered."""
        self._outbox.attach(journal_id, send, outage=self.outage)

    def detach(self, journal_id: bytes) -> None:
        """A worker's connection is gone. Its slices stay until its journal is finished."""
        self._outbox.detach(journal_id)
        self._tickets.end_of(journal_id)

    def on_status(self, journal_id: bytes, status: Status) -> bool:
        """True: money came back that another host waits for."""
        now, owed = self._now_ms(), False
        for report in status.slices:
            state = self._state(report.window)
            state.slice_of(journal_id).report(report)
            if report.burn or report.held:
                state.touched_ms = now
            owed = owed or (state.first is not None and state.pool > 0)
        return owed

    def on_want(self, journal_id: bytes, want: Want) -> None:
        """Again for the same call: the amounts are new, the place in the queue is kept."""
        ticket = self._tickets.want(journal_id, want)
        if ticket is None:
            self._outbox.answer(journal_id, want.call_id, [w for w, _ in want.amounts])
            return
        now = self._now_ms()
        for window, amount in want.amounts:
            state = self._state(window)
            state.touched_ms = now
            slice_ = state.slice_of(journal_id)
            slice_.demand = max(slice_.demand, float(slice_.held + amount))

    def on_unwant(self, _journal_id: bytes, unwant: Unwant) -> None:
        self._tickets.end(unwant.call_id)

    def on_flush(self, flush: Flush) -> None:
        """A journal was drained: money of its worker's slices is now the ledger's."""
        for window, lease in flush.leases.items():
            state = self._windows.get(window)
            if state is None:
                continue
            if flush.epoch_id == self._epoch_id:
                state.set_lease(lease)
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
        self._tickets.expire(now)
        for window in over(self._windows, now - KEEP_MS):
            del self._windows[window]

    @property
    def waiting(self) -> int:
        """Calls that lack money."""
        return self._tickets.waiting

    # --- what follows from it

    async def look(self) -> None:
        """Read who waits on other hosts. Raises what the ledger raises."""
        if not self._shared:
            return
        found, now = await self._ledger.tickets(self._epoch_id), self._now_ms()
        for state in self._windows.values():
            tickets = found.get(state.window, [])
            for ticket in tickets:
                self._tickets.saw(ticket.number)
            first = self._others.oldest(tickets)
            state.first = self._others.first(state.window, first, now)

    async def step(self) -> None:
        """Lease what is needed, give back what is not, grant, and tell the workers. Raises what
        the ledger raises; what is in the pools is granted all the same."""
        asked: list[LeaseRequest] = []
        try:
            if self._in_doubt:
                await self._learn()
            for _ in range(ROUNDS):
                requests = self._requests()
                if not requests or requests == asked:
                    break
                asked = requests
                await self._lease(requests)
                if self._shared:  # who waits all the same takes a place among all hosts
                    self._grant(settled=False)
                    self._tickets.number()
        finally:
            self.grant(answer=True)

    def grant(self, *, answer: bool = False) -> bool:
        """Grant from the pools and tell the workers: no I/O. True: calls wait all the same.
        `answer`: also those that have to wait, whose workers now know what there is."""
        self._grant(settled=answer)
        if answer:
            for ticket in self._tickets:
                self._answer(ticket)
        self._outbox.send(outage=self.outage)
        return any(ticket.waits for ticket in self._tickets)

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
            for ticket in self._tickets:
                self._answer(ticket)
        self._outbox.send(outage=outage, everybody=changed)

    def set_full(self, full: bool) -> bool:
        """The journal's disk has no room for more calls, or has again. True: that is new."""
        if changed := full != self._outbox.full:
            self._outbox.full = full
            self._outbox.send(outage=self.outage, everybody=True)
        return changed

    async def _lease(self, requests: list[LeaseRequest]) -> None:
        for request in requests:  # nobody's from now on: a call may want it while the disk is slow
            state = self._windows[request.window]
            state.returning = max(-request.delta, 0)
            state.published = -1 if request.publish else state.published
        if any(request.delta < 0 for request in requests):
            try:
                await self._sync()
            except BaseException:
                self._certain()
                raise
        self._in_doubt = True
        others = self._others.ignored if self._shared else None
        try:
            outcomes = await self._ledger.lease(self._epoch_id, requests, others)
        except OutcomeUnknown:
            raise
        except Exception:
            self._certain()  # rolled back
            raise
        self._certain()
        for request in requests:
            if request.publish:
                self._windows[request.window].published = request.ticket
        for outcome in outcomes:
            self._learned(self._windows[outcome.window], outcome)

    def _learned(self, state: WindowState, outcome: LeaseOutcome) -> None:
        state.limit, state.committed = outcome.limit, outcome.committed
        state.granted, state.spent = outcome.granted, outcome.spent
        state.spent_total, state.known = outcome.spent_total, True
        state.first = self._others.first(state.window, outcome.first, self._now_ms())
        self._tickets.saw(outcome.newest)
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
            state.set_lease(leases.get(window, LeaseState(0, 0)))
            state.known = False

    # --- deciding

    def _requests(self) -> list[LeaseRequest]:
        """Changes to this control's leases, at most one per window."""
        lacking = self._tickets.lacking()
        firsts = self._tickets.firsts(waiting=True) if self._shared else {}
        now = self._now_ms()
        requests = []
        for state in list(self._windows.values()):
            needed, ticket = lacking.get(state.window, 0), firsts.get(state.window)
            delta = self._change(state, needed, ticket, now)
            number = ticket.number if ticket is not None else 0
            publish = self._shared and number != state.published
            if delta or publish or (not state.known and (needed or state.slices)):
                requests.append(
                    LeaseRequest(
                        state.window,
                        delta,
                        state.granted,
                        at_least=1 if delta > 0 else 0,
                        ticket=number,
                        wanted=ticket.lacks[state.window] if ticket is not None and number else 0,
                        publish=publish,
                    )
                )
        return requests

    def _change(self, state: WindowState, lacking: int, ticket: Ticket | None, now: int) -> int:
        pool = state.pool
        if state.known and state.over_limit:
            return -max(pool, 0)
        if state.first is not None:
            return self._change_in_line(state, ticket)
        ahead = 0 if state.scarce else sum(max(s.target - s.free, 0) for s in state.slices.values())
        short = max(lacking, ahead) - pool
        if not state.known:  # whatever there is of it
            return max(short, state.ahead(state.limit, self._intervals)) if lacking else 0
        if short > 0:
            if not state.room and not (self._shared and lacking > pool):
                return 0
            if lacking > state.room:
                return short
            return max(short, state.ahead(state.room, self._intervals))
        if pool > 0 and not lacking and now - state.touched_ms >= self._idle_ms:
            return -pool
        return 0 if lacking or state.scarce else state.top_up(self._intervals)

    def _change_in_line(self, state: WindowState, ticket: Ticket | None) -> int:
        """A call of another host waits: only the oldest gets money, exactly what it lacks, and
        everybody else gives back what is free."""
        if ticket is None or (state.pool > 0 and ticket.is_behind(state.first, self._epoch_id)):
            return -max(state.pool, 0)
        return ticket.lacks[state.window] - state.pool  # if it is the oldest: the ledger knows

    def _grant(self, *, settled: bool) -> None:
        """Tickets first, oldest first; what they leave, ahead. `settled`: the ledger has been
        asked for what is lacking, so what still waits is scarce."""
        # An older ticket waits for these: no other worker gets any. Its own may, and serves its
        # calls in its own order; that need not be the order in which it asked for them.
        reserved: dict[Window, bytes] = {}
        for ticket in self._tickets:
            states = [(self._state(w), amount) for w, amount in ticket.lacks.items() if amount]
            if not states:
                continue
            id_ = ticket.journal_id
            ticket.spent = any(s.known and amount > s.limit - s.spent_total for s, amount in states)
            if ticket.spent:  # its worker sees that too
                self._answer(ticket)
            elif all(
                s.grantable >= amount
                and reserved.get(s.window, id_) == id_
                and not ticket.is_behind(s.first, self._epoch_id)
                for s, amount in states
            ):
                for state, amount in states:
                    self._give(state, id_, amount)
                    ticket.lacks[state.window] = 0
                self._answer(ticket)
            else:
                for state, _ in states:
                    reserved.setdefault(state.window, id_)
        if settled:
            self._set_scarce(reserved.keys())
        for state in self._windows.values():
            if state.window not in reserved and state.first is None:
                self._fill(state)

    def _set_scarce(self, reserved: Collection[Window]) -> None:
        """Who waits for a window is told with it: the worker of the oldest ticket keeps what it
        has, everybody else gives back what is free."""
        firsts = self._tickets.firsts()
        for state in self._windows.values():
            ticket = firsts.get(state.window)
            scarce, oldest = state.window in reserved or state.first is not None, b""
            if ticket is None or ticket.is_behind(state.first, self._epoch_id):
                oldest = ELSEWHERE if state.first is not None else b""
            elif scarce:
                oldest = ticket.call_id
            if (scarce, oldest) != (state.scarce, state.oldest):
                state.scarce, state.oldest = scarce, oldest
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

    def _answer(self, ticket: Ticket) -> None:
        if not ticket.answered:
            ticket.answered = True
            self._outbox.answer(ticket.journal_id, ticket.call_id, list(ticket.lacks))

    # --- windows

    def _state(self, window: Window) -> WindowState:
        state = self._windows.get(window)
        if state is None:
            limit = self.limits.get(window[0], 0)
            state = self._windows[window] = WindowState(window, limit, touched_ms=self._now_ms())
        return state
