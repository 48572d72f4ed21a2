"""What control knows of each window's money: its lease, its pool, its workers' slices. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from db.journal_records import Window
from db.ledger_types import LeaseState, OpenTicket
from proxy.wire import Room, SliceStatus

AHEAD_INTERVALS = 4  # a slice is kept filled for this many flush intervals of spending
LEASE_MS = 60_000  # of spending, that a host leases at once where other hosts lease too
LEASE_SHARE = 8  # a lease takes at most this part of what is left in its window at once
DECAY = 0.75  # of a worker's demand, per interval


@dataclass(slots=True)
class Slice:
    """A worker's part of a window. Totals since its life began, as in the messages."""

    granted: int = 0
    returned: int = 0
    consumed: int = 0  # drained into the ledger: charges, at most their holds
    used: int = 0  # charged by the worker, drained or not
    held: int = 0
    burned: int = 0  # since the last interval
    burn: float = 0.0  # per interval, decaying
    demand: float = 0.0  # held or lacking at once, decaying
    told_granted: int = 0  # what the worker knows
    told_room: Room | None = None

    @property
    def outstanding(self) -> int:
        """What may still be spent or returned: never above what the ledger has for it."""
        return self.granted - self.returned - self.consumed

    @property
    def free(self) -> int:
        return self.granted - self.returned - self.used - self.held

    def report(self, status: SliceStatus) -> None:
        """Totals only grow, so an old or repeated report changes nothing."""
        self.returned = max(self.returned, status.returned_total)
        self.used = max(self.used, status.used)
        self.held = status.held
        self.burned += status.burn

    def interval(self) -> None:
        """Once per flush interval."""
        self.burn = max(float(self.burned), self.burn * DECAY)
        self.burned = 0
        self.demand = max(float(self.held), self.demand * DECAY)

    @property
    def target(self) -> int:
        """Free money that lets the worker go on without asking. It is filled up at half of it."""
        return int(max(AHEAD_INTERVALS * self.burn, 2 * self.demand))


@dataclass(slots=True)
class WindowState:
    """One window. `granted` and `spent` are this control's lease, the rest is the window's."""

    window: Window
    limit: int = 0
    granted: int = 0
    spent: int = 0
    committed: int = 0
    spent_total: int = 0
    known: bool = False  # the ledger has told
    scarce: bool = False  # a call waits for it: nobody is granted ahead, free money comes back
    oldest: bytes = b""  # the call that is first in line
    slices: dict[bytes, Slice] = field(default_factory=dict)
    touched_ms: int = 0  # last granted, spent or asked for
    first: OpenTicket | None = None  # the oldest call that waits for it on another host
    published: int = 0  # number of the ticket that other hosts see here; -1: not known
    returning: int = 0  # offered to the ledger, outcome not known yet: nobody's (R4)

    @property
    def pool(self) -> int:
        """Leased, and in nobody's slice."""
        slices = sum(slice_.outstanding for slice_ in self.slices.values())
        return self.granted - self.spent - slices - self.returning

    def ahead(self, room: int, intervals: int | None) -> int:
        """What a lease takes at once of what is left. Where other hosts lease too, it is what
        this one has shown it needs, for so many flush intervals: the first of many would take all
        that the last ones need. None: there are no others."""
        share = room // LEASE_SHARE
        if intervals is None:
            return share
        slices = self.slices.values()
        return min(share, int(sum(intervals * s.burn + 2 * s.demand for s in slices)))

    def top_up(self, intervals: int | None) -> int:
        """What a lease in use takes before it is used up: an outage may begin at any time."""
        slices = self.slices.values()
        if not any(slice_.burn >= 1 for slice_ in slices):
            return 0
        free = self.pool + sum(max(slice_.free, 0) for slice_ in slices)
        ahead = self.ahead(self.room, intervals)
        return ahead - free if 2 * free < ahead else 0

    @property
    def room(self) -> int:
        """What could still be leased, as last known."""
        return max(self.limit - self.committed, 0)

    @property
    def over_limit(self) -> bool:
        return self.known and self.committed > self.limit

    @property
    def grantable(self) -> int:
        """What of the pool may be granted: nothing while a limit that was lowered may forbid it."""
        return self.pool if self.known and not self.over_limit else 0

    def set_lease(self, lease: LeaseState) -> None:
        """This control's lease, as the ledger has it now."""
        self.committed += lease.granted - self.granted
        self.spent_total += lease.spent - self.spent
        self.granted, self.spent = lease

    def slice_of(self, journal_id: bytes) -> Slice:
        found = self.slices.get(journal_id)
        if found is None:
            found = self.slices[journal_id] = Slice()
        return found


def over(windows: Mapping[Window, WindowState], idle_since_ms: int) -> list[Window]:
    """Windows that have a successor and of which nothing is left here."""
    newest: dict[int, int] = {}
    for budget_id, starts_at in windows:
        newest[budget_id] = max(newest.get(budget_id, 0), starts_at)
    return [
        window
        for window, state in windows.items()
        if window[1] < newest[window[0]]
        and state.touched_ms < idle_since_ms
        and state.granted <= state.spent
        and not any(slice_.outstanding for slice_ in state.slices.values())
    ]
