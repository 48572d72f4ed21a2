"""What goes into the ledger's statements and what comes out of them."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from db.journal_records import Hold, Note, Settle, Window

Position = tuple[int, int]  # segment, offset


class LedgerError(Exception):
    """A statement that cannot be carried out, now or later."""


class EpochClosed(LedgerError):
    """The epoch was closed or released: its control may not lease any more."""


class OutcomeUnknown(Exception):
    """COMMIT failed: it may have happened, or happen still. Read under a lock to learn (R4)."""


class Batch(Struct, frozen=True):
    """What was read of one journal from `start` to `end`."""

    journal_id: bytes
    epoch_id: int
    start: Position
    end: Position
    settled: list[tuple[Hold, Settle]]
    lost: list[Hold] = []  # holds still open at the end of a journal that is finished here
    finish: bool = False
    truncated: bool = False  # its tail may be missing (R7) or a record in it is damaged (rule 5)
    notes: list[Note] = []


class LeaseState(NamedTuple):
    granted: int
    spent: int


class JournalState(NamedTuple):
    epoch_id: int
    position: Position
    finished: bool
    truncated: bool


class Drained(Struct, frozen=True):
    """The effect of one batch. `moved` tells where the offset really is when it was not `start`:
    somebody else has drained this journal, and nothing was done."""

    rows: int = 0
    duplicates: int = 0
    dead: int = 0
    unbacked: int = 0  # money booked without asking, all windows together
    leases: dict[Window, LeaseState] = {}  # of the batch's epoch, after it
    moved: Position | None = None
    finished: bool = False  # with `moved`: the journal is finished already
    ready: int = 0  # open calls whose final usage is known now


class Correction(Struct, frozen=True):
    """What a call has really used and cost: of a lost one, or at other prices. `call_id` names the
    row this makes, so that a correction made twice counts once."""

    call_id: bytes
    adjusts: bytes
    at_ms: int
    usage: dict[str, Any]
    usage_source: str
    price_version: str
    model: str  # the table entry, provider/model
    cost_nano: int  # the whole cost, not the difference
    cost_items: list[tuple[str, int, int]] | None  # None: not itemised, as of a lost call
    ending: str = ""  # "": the call's own, or `complete` if it was lost
    unpriced: bool = False  # the price is a declared one still
    restate: bool = True  # whether the budgets the call was charged to are charged the difference


class Adjusted(NamedTuple):
    """What corrections have changed."""

    calls: int
    nano: int  # the sum of the differences


class AskedRepricing(Struct, frozen=True):
    """A run as it is asked for. `words` are those of the command: the same words find a run that
    was begun and not ended, whatever times they mean by now."""

    price_version: str
    described: "PriceDescription"  # of the version; no entry
    since_ms: int | None
    until_ms: int
    restate: bool
    words: dict[str, Any]


class Read(NamedTuple):
    """The last call a run has read, in the order of time."""

    at_ms: int
    call_id: bytes


class Run(NamedTuple):
    """A run of repricing that has begun, perhaps long ago."""

    id: int
    since_ms: int | None
    until_ms: int
    started_at_ms: int
    read: Read | None
    adjusted: Adjusted


class OpenTicket(NamedTuple):
    """Who is first in line for a window on a host. The least is the oldest of all hosts."""

    number: int
    epoch_id: int


class LeaseRequest(Struct, frozen=True):
    """Change a lease by `delta`; for `delta > 0` anything from `at_least` up will do."""

    window: Window
    delta: int
    expected: int  # `granted` as control knows it
    at_least: int = 0  # 0: all of delta or nothing
    ticket: int = 0  # number of the ticket that is first in line here; 0: nobody waits
    wanted: int = 0  # what it lacks
    publish: bool = False  # tell the other hosts of that ticket, or that there is none any more


class LeaseOutcome(Struct, frozen=True):
    """`delta` is what was granted (0: nothing changed); the rest is the state after it."""

    window: Window
    delta: int
    granted: int  # of this lease
    spent: int  # of this lease
    limit: int
    committed: int
    spent_total: int  # of all leases in this window
    first: OpenTicket | None = None  # the oldest of other hosts
    newest: int = 0  # the highest number of other hosts


class LeaseLedger(Protocol):
    """What of the ledger control's leases go by."""

    async def lease(
        self, epoch_id: int, requests: list[LeaseRequest], ignored: Collection[OpenTicket] | None
    ) -> list[LeaseOutcome]: ...

    async def leases(self, epoch_id: int) -> dict[Window, LeaseState]: ...

    async def tickets(self, epoch_id: int) -> dict[Window, list[OpenTicket]]: ...


class PriceDescription(Struct, frozen=True):
    """What a row's price version and table entry were, so that the row can be re-computed."""

    table_id: str
    sha256: str
    source: str
    effective_from: str
    overlays: list[Any]
    entry: dict[str, Any]


class Settled(NamedTuple):
    """An open call that was settled."""

    call_id: bytes
    nano: int  # what it has cost
    change: int  # nano-USD, against what it was charged
    windows: list[Window]  # whose money this has changed


class FoundObject(NamedTuple):
    """What is known of something a provider keeps."""

    requests: dict[str, Any] | None


DescribePrice = Callable[[str, str], PriceDescription | None]
DeadLetter = Callable[[Hold, Settle | None, str], None]
