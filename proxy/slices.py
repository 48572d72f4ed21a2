"""The part of a window's money that one worker has, and the windows of a budget.

A slice is counted in totals since the worker's hello, so that messages can be repeated:
`free = granted - returned - used - held`, never below zero (I2).
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

from db.journal_records import Window
from proxy.windows import current_window
from proxy.wire import BudgetEntry, Room, SliceStatus

if TYPE_CHECKING:
    from proxy.holds import Ticket

IDLE_TICKS = 600  # flush intervals after which money nobody used goes back, if nobody asks sooner
UNITS = {"usd": 0, "tokens": 1, "requests": 2}


class Slice:
    """One window's money on this worker."""

    __slots__ = (
        "_peak",
        "_reported",
        "_ticks",
        "_told",
        "_used_before",
        "active",
        "beyond",
        "declared",
        "drained",
        "ends_at",
        "free",
        "granted",
        "held",
        "idle_since",
        "low",
        "oldest",
        "queue",
        "queued",
        "retired",
        "returned",
        "room",
        "scarce",
        "used",
        "watched",
        "window",
    )

    def __init__(self, window: Window, ends_at: int) -> None:
        self.window = window
        self.ends_at = ends_at
        self.granted = 0
        self.returned = 0
        self.used = 0  # charges, each at most its hold
        self.held = 0
        self.free = 0
        self.room: Room | None = None
        self.beyond = 0  # what control could still grant; its limit while that is not known
        self.scarce = False  # as the room says
        self.oldest = b""  # the call that is first in line, wherever it waits; b"": not known
        self.drained = 0  # the part of `used` that is in `room.spent`
        self.queue: OrderedDict[Ticket, int] = OrderedDict()  # waiting calls, the oldest first
        self.queued = 0  # what they need together
        self.retired = False  # the budget is deleted: nothing new is charged here
        self.declared = 0  # its limit in the snapshot, which may be ahead of the room's
        self.watched = False  # money that becomes free must not just lie here
        self.active = False  # has something to report
        self.idle_since = 0.0  # monotonic time of the last status that had something to report
        self.low = 0  # the least that was free since the idle period began
        self._used_before = 0  # `used` when the idle period began
        self._peak = 0  # the most that was held at a tick of the idle period
        self._reported = 0  # `used` in the last status
        self._ticks = 0
        self._told: SliceStatus | None = None

    # --- money

    def grant(self, total: int) -> None:
        """Take note of what has been granted since hello; an older message changes nothing."""
        if total > self.granted:
            self.free += total - self.granted
            self.granted = total

    def give_back(self, amount: int) -> None:
        assert 0 <= amount <= self.free
        self.free -= amount
        self.returned += amount
        self.low = min(self.low, self.free)

    # --- what is known of the window besides

    def learn(self, room: Room) -> None:
        """`room.spent` holds what control had drained of this worker when it wrote the message:
        the part it names, else at most what had been used by now."""
        self.room, self.scarce, self.oldest = room, room.scarce, room.oldest
        self.beyond = max(room.free, 0)
        self.watch()
        self.drained = self.used if room.drained < 0 else room.drained

    @property
    def spent(self) -> int:
        """Spent for certain, by anybody: neither more than the truth nor counted twice, and less
        than it by what others, or we (if control does not name it), have not drained yet."""
        return (self.room.spent if self.room else 0) + self.used - self.drained

    @property
    def left(self) -> int | None:
        """The most a call can ever get of this window; None: not known yet. A limit that has just
        been raised is in the snapshot before it is in the room: nothing is final until both say
        so."""
        room = self.room
        return None if room is None else max(room.limit, self.declared) - self.spent

    def follow(self, budget: BudgetEntry | None) -> None:
        """Take note of what a snapshot says of this window's budget; None: it is deleted."""
        self.retired = budget is None
        self.declared = 0 if budget is None else budget.limit
        if self.room is None:
            self.beyond = self.declared
        self.watch()

    @property
    def available(self) -> int:
        """What could be held: our own, and what control could still grant."""
        return self.free + self.beyond

    def lacks(self, amount: int) -> bool:
        """Whether a call has to wait for `amount`."""
        return self.free < amount or bool(self.queue)

    def watch(self) -> None:
        """Take note of a change of `queue`, `scarce` or `retired`."""
        self.watched = self.scarce or self.retired or bool(self.queue)

    # --- reporting

    def tick(self) -> int:
        """A flush interval has passed: how much has been idle for several of them.

        As much stays as was burnt or held in that time: control would grant it again at once.
        """
        self._ticks += 1
        self._peak = max(self._peak, self.held)
        if self._ticks < IDLE_TICKS:
            return 0
        idle = max(0, self.low - max(self.used - self._used_before, self._peak))
        self.low, self._used_before, self._peak, self._ticks = self.free, self.used, 0, 0
        return idle

    def status(self) -> SliceStatus:
        burn, self._reported = self.used - self._reported, self.used
        self._told = SliceStatus(self.window, self.returned, self.used, self.held, burn)
        return self._told

    @property
    def has_news(self) -> bool:
        """Whether the next status would say something that the last one did not."""
        told = self._told
        return told is None or (told.returned_total, told.used, told.held) != (
            self.returned,
            self.used,
            self.held,
        )


class WindowClock:
    """The current window of one budget, computed once per window."""

    __slots__ = ("ends_at", "entry", "slice", "starts_at", "unit")

    def __init__(self, entry: BudgetEntry) -> None:
        self.entry = entry
        self.unit = UNITS[entry.unit]
        self.starts_at, self.ends_at = 0, 0  # none yet
        self.slice: Slice | None = None

    def roll(self, now_s: float) -> Window:
        """Move to the window of `now_s`; its slice is to be set by the caller."""
        entry = self.entry
        self.starts_at, self.ends_at = current_window(
            entry.period, entry.timezone, entry.week_start, entry.month_day, now_s
        )
        self.slice = None
        return entry.id, self.starts_at
