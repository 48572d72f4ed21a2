"""A call's money: what it holds, the line it waits in, and how the attempt to hold ends."""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct

from db.journal_records import Amounts, Hold, Settle, Window
from pricing.ceiling import Ceiling
from proxy.slices import Slice
from proxy.windows import FOREVER
from proxy.wire import BudgetEntry


class Bounds(Struct, frozen=True):
    """What a call may need."""

    ceiling: Ceiling  # the most it can cost
    learned: Ceiling | None = None  # what soft budgets hold; None: the ceiling, as strict ones do

    def of(self, budget: BudgetEntry) -> Ceiling:
        """What `budget` holds."""
        return self.ceiling if self.learned is None or not budget.learned else self.learned

    def needed(self, budget: BudgetEntry) -> int:
        """The same in the budget's unit."""
        bound = self.of(budget)
        return {"usd": bound.nano, "tokens": bound.tokens, "requests": 1}[budget.unit]

    def whole(self, budgets: Iterable[BudgetEntry]) -> Ceiling:
        """What the call's row names as its hold, and is charged if its worker dies: the ceiling,
        unless nobody holds that."""
        if self.learned is None or not all(b.learned or b.unit == "requests" for b in budgets):
            return self.ceiling
        return self.learned


class HeldCall:
    """What one call sets aside in each window it is charged to.

    The loops of this class run several times per call; that is why they do a slice's sums
    themselves, as `Slice` describes them, and call no `min()`.
    """

    __slots__ = (
        "amounts", "backed", "call_id", "ceiling_nano", "crowded", "fits", "needs", "spared",
    )  # fmt: skip

    def __init__(self, call_id: bytes, ceiling_nano: int) -> None:
        self.call_id = call_id
        self.ceiling_nano = ceiling_nano  # as in the journal's record of the hold
        self.backed = True  # False: admitted without money (`on_ledger_outage: allow`)
        self.fits = True  # when planned: all windows have the money, and nobody waits for it
        self.crowded = False  # when planned: some budget's clamp may have to lower this
        # Budgets that would have refused it and are not enforced, with their windows ((id, 0) of
        # a cap per request); None: all of its budgets are enforced.
        self.spared: list[tuple[Window, BudgetEntry]] | None = None
        self.amounts: Amounts = []
        self.needs: list[tuple[Slice, int, BudgetEntry, int]] = []  # as `amounts`; the unit last

    def charges(self, *, cost_nano: int, tokens: int, requests: int) -> Amounts:
        """What a settlement charges: the windows of the hold in their order, each in its unit."""
        values = (cost_nano, tokens, requests)
        return [(slice_.window, values[unit]) for slice_, _, _, unit in self.needs]

    def exceeded(self, charges: Amounts) -> bool:
        """Whether a window is charged more than is held there."""
        for (_, amount, _, _), (_, used) in zip(self.needs, charges, strict=True):
            if used > amount and amount:  # none: the budget is not enforced
                return True
        return False

    def spare(self, kind: str) -> bool:
        """Hold nothing where a budget that is not enforced would refuse as `kind` says. False:
        it was not one of those."""
        if self.spared is None or kind not in ("spent", "busy", "outage"):
            return False
        found = False
        for index, (slice_, amount, entry, unit) in enumerate(self.needs):
            if entry.enforce or not amount:
                continue
            left = slice_.left
            spent = left is not None and amount > left
            if spent or (kind != "spent" and slice_.lacks(amount)):
                self.needs[index] = (slice_, 0, entry, unit)
                self.amounts[index] = (slice_.window, 0)
                self.spared.append((slice_.window, entry))
                found = True
        if found:
            self.fits = not any(s.lacks(amount) for s, amount, _, _ in self.needs if amount)
        return found

    @property
    def remaining_nano(self) -> int | None:
        """What could still be held in the tightest budget in USD, as last known; None: no such
        budget."""
        least: int | None = None
        needs = self.needs
        if self.spared is not None:
            needs = [need for need in needs if need[2].enforce]
        for slice_, _, _, unit in needs:
            if unit == 0:
                free = slice_.free + slice_.beyond
                if least is None or free < least:
                    least = free
        return least

    def take(self) -> None:
        for slice_, amount, _, _ in self.needs:
            free = slice_.free - amount
            assert free >= 0
            slice_.free = free
            slice_.held += amount
            if free < slice_.low:  # noqa: PLR1730
                slice_.low = free

    def release(self) -> None:
        """Give up a hold that was never journaled."""
        for slice_, amount, _, _ in self.needs:
            slice_.held -= amount
            slice_.free += amount
            assert slice_.held >= 0

    def settle(self, charges: Amounts) -> bool:
        """End the hold: what it did not need is free, what it did is used. True: somebody may be
        waiting for that."""
        watched = False
        for (slice_, amount, _, _), (window, used) in zip(self.needs, charges, strict=True):
            assert window == slice_.window
            if used > amount:  # noqa: PLR1730
                used = amount  # the rest is not backed by this slice: the ledger books it
            slice_.held -= amount
            slice_.used += used
            slice_.free += amount - used
            if slice_.watched:
                watched = True
        return watched


class HoldResult(Struct, frozen=True):
    """How an attempt to hold ended.

    held - the money is set aside and the hold journaled; `held` is there, and only then
    spent - the ceiling is more than what is left of `budget`: do not retry
    busy - it would fit, were others not holding the money: retry after `retry_after_s`
    outage - control or the ledger cannot be reached, and the slices do not suffice
    full - the journal has no room
    gone - the client went away while the call waited
    """

    kind: str
    held: HeldCall | None = None
    budget: BudgetEntry | None = None
    spent: int = 0  # these three in the unit of the budget
    held_amount: int = 0  # by calls in flight on this worker
    needed: int = 0
    resets_at_s: int | None = None  # None: never
    retry_after_s: int = 1


class Ticket:
    """A call's place in the line. It holds no money while it waits."""

    __slots__ = (
        "admitted", "answered", "asked", "call", "deadline_ms", "expired", "future", "granted",
        "needs", "result", "wait_s",
    )  # fmt: skip

    def __init__(self, call: HeldCall, wait_s: float) -> None:
        self.call = call
        self.needs = {slice_: amount for slice_, amount, _, _ in call.needs if amount}
        self.wait_s = wait_s
        self.deadline_ms = 0  # unix
        self.asked: dict[Slice, int] = {}  # what control was last told is lacking,
        self.granted: list[int] = []  # and what it had granted until then
        self.answered = False  # control has replied
        self.expired = False  # its time is up, only the answer is waited for
        self.admitted = False  # its money is taken
        self.result: HoldResult | None = None  # None: admitted
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def busy(self) -> HoldResult:
        """The refusal of a call that would fit, were others not holding the money."""
        lacking = [n for n in self.call.needs if n[1] > n[0].free] or self.call.needs
        slice_, amount, entry, _ = lacking[0]
        return refused("busy", slice_, amount, entry, round(self.wait_s))


class HoldJournal(Protocol):
    """What holds need of a journal."""

    def append_hold(self, hold: Hold) -> None:
        """Raises JournalFull where the hold's settlement might find no room."""

    def append_settle(self, settle: Settle) -> None:
        """Succeeds on a full disk too."""


def refused(
    kind: str, slice_: Slice, needed: int, budget: BudgetEntry, retry_after_s: int = 0
) -> HoldResult:
    """A result that names the budget in the way."""
    return HoldResult(
        kind,
        budget=budget,
        spent=slice_.spent,
        held_amount=slice_.held,
        needed=needed,
        resets_at_s=None if slice_.ends_at >= FOREVER else slice_.ends_at,
        retry_after_s=max(1, min(60, retry_after_s)),
    )
