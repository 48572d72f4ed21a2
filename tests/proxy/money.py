"""Doubles for the two neighbours of a worker's budgets: its journal and its control."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from db.journal_files import JournalFull
from db.journal_records import Hold, Settle, Window
from proxy.budgets import Budgets
from proxy.holds import Bounds, HoldResult
from proxy.wire import (
    BudgetEntry,
    Message,
    PricesEntry,
    Room,
    Settings,
    Slices,
    Snapshot,
    Status,
    Unwant,
    Want,
)


async def hold(
    budgets: Budgets,
    record: Hold,
    applicable: tuple[BudgetEntry, ...],
    bounds: Bounds,
    now_s: float,
    client_gone: "asyncio.Future[None] | None" = None,
) -> HoldResult:
    """Plan and hold, as admission does."""
    plan = budgets.plan(record.call_id, record.ceiling_nano, applicable, bounds, now_s)
    if plan is None:
        return HoldResult("outage")
    return await budgets.hold(record, plan, now_s, client_gone)


class ManualClock:
    """Wall clock, monotonic clock and timers that move only when told."""

    def __init__(self, now_s: float = 1_780_000_000.0) -> None:
        self.now = now_s
        self._order = itertools.count()
        self._timers: list[tuple[float, int, ManualTimer]] = []

    def now_s(self) -> float:
        return self.now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> "ManualTimer":
        timer = ManualTimer(callback)
        heapq.heappush(self._timers, (self.now + delay_s, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._timers)
            timer.fire()
        self.now = end


class ManualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        if self._callback is not None:
            self._callback()


@dataclass
class ListJournal:
    """Keeps records in memory; `full` refuses holds."""

    records: list[Hold | Settle] = field(default_factory=list)
    full: bool = False

    def append_hold(self, hold: Hold) -> None:
        if self.full:
            raise JournalFull("the disk is full")
        self.records.append(hold)

    def append_settle(self, settle: Settle) -> None:
        self.records.append(settle)

    @property
    def open_holds(self) -> dict[bytes, Hold]:
        out = {}
        for record in self.records:
            if isinstance(record, Hold):
                out[record.call_id] = record
            else:
                out.pop(record.call_id)
        return out


def a_snapshot(*budgets: BudgetEntry, **settings: object) -> Snapshot:
    prices = PricesEntry("v1", "", "")
    return Snapshot(1, 1, (), (), budgets, prices, (), Settings(**settings))


def a_worker(clock: ManualClock, send: Callable[[Message], None], journal: ListJournal) -> Budgets:
    return Budgets(
        send, journal, now_s=clock.now_s, monotonic=clock.now_s, call_later=clock.call_later
    )


# --- a control that follows the protocol ----------------------------------------------------------


@dataclass
class LedgerWindow:
    limit: int
    committed: int = 0  # all of it granted to this control
    spent: int = 0
    capped: int = 0  # the highest that `committed` may be: a lowered limit takes nothing back


@dataclass
class Part:
    """A worker's slice as control knows it."""

    granted: int = 0
    returned: int = 0
    drained: int = 0


class FakeControl:
    """Section 4 and 8 of the protocol for several workers, as simply as possible.

    `send(worker, message)` delivers. `ahead` is granted beyond what a call lacks while a window
    is ample. With `names_oldest` it tells who is first in line.
    """

    def __init__(
        self, send: Callable[[int, Slices], None], *, ahead: int = 0, names_oldest: bool = True
    ) -> None:
        self._send = send
        self._ahead = ahead
        self._names_oldest = names_oldest
        self.windows: dict[Window, LedgerWindow] = {}
        self.limits: dict[int, int] = {}
        self.parts: dict[tuple[int, Window], Part] = {}
        self.tickets: dict[bytes, tuple[int, dict[Window, int]]] = {}  # the oldest first
        self.workers: list[int] = []

    def window(self, window: Window) -> LedgerWindow:
        if window not in self.windows:
            limit = self.limits[window[0]]
            self.windows[window] = LedgerWindow(limit, capped=limit)
        return self.windows[window]

    def part(self, worker: int, window: Window) -> Part:
        return self.parts.setdefault((worker, window), Part())

    def pool(self, window: Window) -> int:
        out = sum(p.granted - p.returned for (_, w), p in self.parts.items() if w == window)
        return self.window(window).committed - out

    def receive(self, worker: int, message: Message) -> None:
        if isinstance(message, Status):
            for status in message.slices:
                self.part(worker, status.window).returned = status.returned_total
            self.serve()
        elif isinstance(message, Want):
            _, given = self.tickets.get(message.call_id, (worker, {}))
            wanted = dict.fromkeys(given, 0) | dict(message.amounts)
            self.tickets[message.call_id] = (worker, wanted)  # keeps its place if it had one
            for window in wanted:
                self.window(window)
            self.serve([message.call_id])
        elif isinstance(message, Unwant):
            self.tickets.pop(message.call_id, None)
            self.serve()

    def serve(self, answered: list[bytes] | None = None) -> None:
        """Give the oldest ticket of each window what it lacks, then tell everybody."""
        for window in list(self.windows):
            first = self.oldest(window)
            if first is None:
                continue
            worker, wanted = self.tickets[first]
            lack = wanted[window]
            if not lack:
                continue
            if self.take(window, lack + self._ahead):
                lack += self._ahead
            elif not self.take(window, lack):
                continue
            self.part(worker, window).granted += lack
            wanted[window] = 0
        self.tell(answered or [])

    def take(self, window: Window, amount: int) -> bool:
        """Lease what the pool lacks."""
        row, more = self.window(window), amount - self.pool(window)
        if more > 0:
            if row.committed + more > row.limit:
                return False
            row.committed += more
        return True

    def oldest(self, window: Window) -> bytes | None:
        """The first call that needs money of a window, be it that it has been given to it."""
        return next((c for c, (_, wanted) in self.tickets.items() if window in wanted), None)

    def flush(self, journals: dict[int, ListJournal]) -> None:
        """Drain every journal: charges become known as spent."""
        for part in self.parts.values():
            part.drained = 0
        for row in self.windows.values():
            row.spent = 0
        for worker, journal in journals.items():
            for record in journal.records:
                if isinstance(record, Settle):
                    for (window, held), (_, charge) in zip(
                        record.held, record.charges, strict=True
                    ):
                        self.window(window).spent += charge
                        self.part(worker, window).drained += min(held, charge)
        self.tell([])

    def give_back(self) -> None:
        """Return the pool to the ledger."""
        for window, row in self.windows.items():
            row.committed -= self.pool(window)
            row.capped = max(row.limit, min(row.capped, row.committed))

    def set_limit(self, budget_id: int, limit: int) -> None:
        self.limits[budget_id] = limit
        for window, row in self.windows.items():
            if window[0] == budget_id:
                row.limit = limit
                row.capped = max(limit, min(row.capped, row.committed))
        self.tell([])

    def tell(self, answered: list[bytes]) -> None:
        for worker in self.workers:
            granted = [(w, p.granted) for (who, w), p in self.parts.items() if who == worker]
            rooms = [self._room(worker, window) for window in self.windows]
            self._send(worker, Slices(granted, rooms, answered))

    def _room(self, worker: int, window: Window) -> Room:
        row, first = self.window(window), self.oldest(window)
        return Room(
            window,
            row.limit,
            row.spent,
            row.committed,
            row.limit - row.committed + self.pool(window),
            scarce=first is not None,
            oldest=first or b"" if self._names_oldest else b"",
            drained=self.part(worker, window).drained,
        )
