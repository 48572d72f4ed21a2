"""The worker's side of the money protocol: holds and settlements against slices of leases.

One thread, no I/O but the journal's append. All windows of a call are checked together and
taken together; a call that does not fit waits in line, first come, first served in every window
(protocol section 8), and holds nothing while it waits.
"""

import asyncio
from collections.abc import Callable

from db.journal_files import JournalFull
from db.journal_records import SHARED, Hold, Settle, Window
from proxy.customers import NONE_UNMET, Introductions, Unmet
from proxy.holds import Bounds, HeldCall, HoldJournal, HoldResult
from proxy.line import CallLater, Line
from proxy.scopes import BudgetIndex, Principal
from proxy.slices import Slice, WindowClock
from proxy.windows import current_window
from proxy.wire import BudgetEntry, Message, Met, Settings, Slices, Snapshot, Status

REPEAT_TICKS = 16  # flush intervals after which a status is told again: one may have been lost
SWEEP_TICKS = 600  # flush intervals between two looks for windows of the past
KEPT_S = 3600.0  # a window of the past is kept this long after its last use


class Budgets:
    """Not thread-safe. Clocks and timer are parameters, so that a simulation can drive it."""

    def __init__(
        self,
        send: Callable[[Message], None],
        journal: HoldJournal,
        *,
        now_s: Callable[[], float],
        monotonic: Callable[[], float],
        call_later: CallLater,
    ) -> None:
        self._line = Line(send, call_later)
        self._journal = journal
        self._now_s = now_s
        self._monotonic = monotonic
        self._settings = Settings()
        self.index = BudgetIndex(())
        self._introductions = Introductions(send, self._learn)
        self._clocks: dict[int, WindowClock] = {}  # by budget; none for `period: request`
        self._slices: dict[Window, Slice] = {}
        self._active: list[Slice] = []
        self._dropped: dict[int, int] = {}  # by budget: the newest window that was forgotten
        self._ticks = 0
        self._gone = False  # control is gone: nothing is admitted any more
        self._refusal: HoldResult | None = None  # of every call: control is gone, the disk is full

    # --- what applies

    def apply(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force. Money of deleted budgets and of lowered limits goes back,
        what is held settles where it was held. Raises ValueError for an impossible budget."""
        index = BudgetIndex(snapshot.budgets)
        former, self._clocks = self._clocks, {}
        recalled = set(former)
        for entry in snapshot.budgets:
            if entry.period == "request" or entry.each:
                continue
            self._clocks[entry.id] = WindowClock(entry)
            if entry.id in former and entry.limit >= former[entry.id].entry.limit:
                recalled.discard(entry.id)
        self.index, self._settings = index, snapshot.settings
        for slice_ in self._slices.values():
            slice_.follow(self._entry(slice_.window))
        self._line.give_back(s for s in self._slices.values() if s.window[0] in recalled)

    def for_call(self, principal: Principal, provider: str, model: str) -> tuple[BudgetEntry, ...]:
        """Every budget a call is charged to, caps per request included."""
        return self.index.match(principal, provider, model)

    def of(self, principal: Principal) -> tuple[BudgetEntry, ...]:
        """Every budget on a caller's scopes, the widest first."""
        return self.index.of(principal)

    async def meet(self, principal: Principal) -> Unmet:
        """Learn the budgets of the caller's customer; what there is none for."""
        templates = self.index.unmet(principal) if principal.customer else ()
        if not templates:
            return NONE_UNMET
        return await self._introductions.meet(principal.customer, templates)

    def _learn(self, customer: str, entries: tuple[BudgetEntry, ...]) -> None:
        forgotten = self.index.learn(customer, entries)
        for entry in forgotten:
            if entry.customer != SHARED:
                clock = self._clocks.pop(entry.id)
                if clock.slice is not None:
                    clock.slice.follow(None)  # what is free there goes back
        for entry in entries:
            if entry.id not in self._clocks:
                self._clocks[entry.id] = WindowClock(entry)

    def look(self, budget: BudgetEntry, now_s: float) -> Slice | None:
        """The current window of a budget; of one that this worker knows nothing of, control is
        asked and tells (`Slice.room`) within a flush interval or two. None: there is no window."""
        clock = self._clocks.get(budget.id)
        slice_ = None if clock is None else self._current(clock, now_s)
        if slice_ is not None and slice_.room is None:
            self._line.report(slice_)
        return slice_

    def free(self, budget: BudgetEntry, now_s: float) -> int:
        """Units that could be held in a budget's current window, as last known."""
        clock = self._clocks.get(budget.id)
        if clock is None:
            return budget.limit
        slice_ = clock.slice
        if slice_ is None or not clock.starts_at <= now_s < clock.ends_at:
            slice_ = self._current(clock, now_s)
        return budget.limit if slice_ is None else slice_.available

    # --- hold and settle

    def plan(
        self,
        call_id: bytes,
        ceiling_nano: int,
        applicable: tuple[BudgetEntry, ...],
        bounds: Bounds,
        now_s: float,
        *,
        whole: bool = True,
    ) -> HeldCall | None:
        """Fix windows and amounts, once, by the clock at admission. None: the clock went back to
        a window whose accounts are closed here. `ceiling_nano` is what the row names as hold.

        A clamp may have to lower what takes more than a budget's share of what is available, or
        (`whole`: the request has a limit of its own) more than that.
        """
        ceiling, learned = bounds.ceiling, bounds.learned
        strict = soft = (ceiling.nano, ceiling.tokens, 1)
        if learned is not None:
            soft = (learned.nano, learned.tokens, 1)
        call = HeldCall(call_id, ceiling_nano)
        for entry in applicable:
            clock = self._clocks.get(entry.id)
            if clock is None:
                if entry.customer and entry.enforce:  # forgotten a moment ago
                    return None
                continue
            slice_ = clock.slice
            if slice_ is None or not clock.starts_at <= now_s < clock.ends_at:
                slice_ = self._current(clock, now_s)
                if slice_ is None:
                    if not entry.enforce:
                        continue
                    return None
            unit = clock.unit
            amount = (soft if entry.learned else strict)[unit]
            free = slice_.free
            if amount and (free < amount or slice_.queue):
                call.fits = False
            if entry.clamp:
                free += slice_.beyond
                if amount > (free if whole else int(free * entry.clamp_share)):
                    call.crowded = True
            call.needs.append((slice_, amount, entry, unit))
            call.amounts.append((slice_.window, amount))
        return call

    def hold_at_once(self, record: Hold, call: HeldCall) -> HoldResult | None:
        """`hold` right after `plan`, if it needs no waiting; None if it does."""
        if self._refusal is not None:
            return self._refusal
        if not call.fits:
            return None
        call.take()
        return self._admit(call, record)

    async def hold(
        self,
        record: Hold,
        call: HeldCall,
        now_s: float,
        client_gone: "asyncio.Future[None] | None" = None,
    ) -> HoldResult:
        """Set aside what was planned and append the call's record, whose amounts are filled in
        here.

        Waits for money up to the least `hold_wait_ms` of the budgets in the way. May be
        cancelled. Raises JournalBroken.
        """
        while True:
            result = self.hold_at_once(record, call)
            if result is not None:
                return result
            result = self._line.spent(call)
            if result is None:
                result = await self._line.wait(call, now_s, client_gone)
            if result is None:
                return self._admit(call, record)
            if not call.spare(result.kind):  # else it is nobody's that is enforced
                break
        if result.kind != "outage" or not self._admits_unbacked:
            return result
        call.backed = False
        return self._admit(call, record)

    def hold_begun(self, record: Hold, call: HeldCall) -> HoldResult:
        """Journal what was planned for a call that has begun already, whatever money there is."""
        call.backed = False
        return self._admit(call, record)

    def settle(self, call: HeldCall, record: Settle) -> None:
        """End a hold: append the settlement, then free the money, in this order (rule 2).

        Raises JournalBroken; the money then stays held.
        """
        self._journal.append_settle(record)
        if call.backed and call.settle(record.charges):
            self._line.freed([need[0] for need in call.needs])

    # --- control

    def on_slices(self, message: Slices) -> None:
        """Money granted, and what is known of windows besides."""
        heard: dict[Window, Slice] = {}
        for window, total in message.granted:
            slice_ = self._named(window)
            if slice_ is not None:
                slice_.grant(total)
                heard[window] = slice_
                if not slice_.active:
                    slice_.active = True
                    self._active.append(slice_)
        for room in message.room:
            slice_ = self._named(room.window)
            if slice_ is not None:
                slice_.learn(room)
                heard[room.window] = slice_
        if not self._gone:
            self._refusal = HoldResult("full") if message.full else None
        self._line.freed(list(heard.values()))
        self._line.answered(message.answered)
        if message.outage:  # control still gives what it has, and answers at once
            self._line.end_answered(HoldResult("outage"))

    def status(self) -> Status:
        """The report of a flush interval; idle money goes back with it."""
        self._ticks += 1
        now, entries, active = self._monotonic(), [], []
        for slice_ in self._active:
            idle = slice_.tick()
            if slice_.scarce or slice_.retired:
                idle = self._line.surplus(slice_)
            elif slice_.queue:
                idle = 0
            slice_.give_back(idle)
            slice_.idle_since = now
            if slice_.has_news or self._ticks % REPEAT_TICKS == 0:
                entries.append(slice_.status())
            if slice_.free or slice_.held or slice_.queue:
                active.append(slice_)
            else:
                slice_.active = False
        self._active = active
        if self._ticks % SWEEP_TICKS == 0:
            self._sweep()
        return Status(entries)

    def on_met(self, met: Met) -> None:
        """The budgets of a customer."""
        self._introductions.on_met(met)

    def control_gone(self) -> None:
        """Nothing is admitted any more; what is held is settled as ever (protocol section 6)."""
        self._introductions.control_gone()
        self._gone, self._refusal = True, HoldResult("outage")
        self._line.end_all(self._refusal)

    def _admit(self, call: HeldCall, record: Hold) -> HoldResult:
        """Append the hold of money that is taken, before anything goes upstream (rule 1)."""
        record.amounts, record.backed = call.amounts, call.backed
        if call.spared:
            record.spared = [window for window, _ in call.spared]
        try:
            self._journal.append_hold(record)
        except JournalFull:
            self._undo(call)
            return HoldResult("full")
        except BaseException:
            self._undo(call)
            raise
        return HoldResult("held", call)

    def _undo(self, call: HeldCall) -> None:
        if call.backed:
            call.release()
            self._line.freed([need[0] for need in call.needs])

    @property
    def _admits_unbacked(self) -> bool:
        return self._settings.on_ledger_outage == "allow" and not self._gone

    # --- windows and their slices

    def _current(self, clock: WindowClock, now_s: float) -> Slice | None:
        """The slice of a budget's window at `now_s`."""
        if clock.slice is None or not clock.starts_at <= now_s < clock.ends_at:
            clock.slice = self._slice(clock.roll(now_s), clock.ends_at)
            if clock.slice is not None and clock.slice.retired:  # its customer was forgotten
                clock.slice.follow(clock.entry)
        return clock.slice

    def _slice(self, window: Window, ends_at: int) -> Slice | None:
        slice_ = self._slices.get(window)
        if slice_ is None and window[1] > self._dropped.get(window[0], -1):
            slice_ = self._slices[window] = Slice(window, ends_at)
            slice_.follow(self._entry(window))
            slice_.idle_since = self._monotonic()
        return slice_

    def _entry(self, window: Window) -> BudgetEntry | None:
        clock = self._clocks.get(window[0])
        return None if clock is None else clock.entry

    def _named(self, window: Window) -> Slice | None:
        """The slice of a window that control names."""
        slice_ = self._slices.get(window)
        clock = self._clocks.get(window[0])
        if slice_ is not None or clock is None:
            return slice_ or self._slice(window, 0)
        entry = clock.entry
        _, ends_at = current_window(
            entry.period, entry.timezone, entry.week_start, entry.month_day, window[1]
        )
        return self._slice(window, ends_at)

    def _sweep(self) -> None:
        """Forget windows of the past. Counted from their last use, not from their end: a clock
        that was wrong for a moment closes nothing."""
        now_s, used_before = self._now_s(), self._monotonic() - KEPT_S
        for window, slice_ in list(self._slices.items()):
            if not slice_.active and slice_.ends_at <= now_s and slice_.idle_since < used_before:
                del self._slices[window]
                self._dropped[window[0]] = max(window[1], self._dropped.get(window[0], -1))
        for clock in self._clocks.values():
            if clock.slice is not None and clock.slice.window not in self._slices:
                clock.slice = None
