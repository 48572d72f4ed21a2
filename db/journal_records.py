"""What a journal holds: the record types and their encoding (protocol section 5).

Records are positional msgpack, so a field is only ever added at the end with a default.
Free of SQLAlchemy: workers import it.
"""

from msgspec import Struct, msgpack

# A window on the wire and in journals: (budget id, start in unix seconds). Control maps it to
# the row of ai_budget_windows. `amount` is in the budget's unit: nano-USD, tokens or requests.
Window = tuple[int, int]
Amounts = list[tuple[Window, int]]

ENDINGS = (
    "complete",  # the reply was relayed in full
    "client_gone",  # the client hung up
    "upstream_broken",  # the provider's connection broke after the first byte
    "upstream_error",  # the provider answered 4xx or 5xx
    "unreachable",  # nothing was sent, or no byte of an answer came
    "cut",  # we ended it: idle timeout, drain
    "lost",  # worker or host died: charged at the hold
    "unused",  # the turn of a session it was held for never began
    "open",  # the provider took it and bills it later: charged at the hold until that is known
)
NO_REQUEST = frozenset(("unreachable", "unused"))  # endings that budgets in requests do not count
# Charged at the hold: the usage is the ceiling's, and a correction may follow.
CHARGED_AT_HOLD = frozenset(("lost", "open"))
USAGE_SOURCES = ("reported", "estimated", "none")
CUSTOMER_TAG = "tollkeeper.customer"  # of a hold: the end customer its call named
SHARED = "*"  # in place of a customer: all those beyond the ones that a template tracks


class Hold(Struct, array_like=True, gc=False):
    """A call was admitted. In the page cache before its first byte goes upstream (rule 1)."""

    call_id: bytes  # UUIDv7 of the admission, 16 bytes
    at_ms: int  # wall clock of the admission, unix milliseconds
    amounts: Amounts
    key_id: int
    organization_id: int
    team_id: int
    project_id: int  # 0: none
    user: str  # name within the organization; "": none
    provider: str
    model: str  # as requested
    route: str
    stream: bool
    price_version: str
    ceiling_nano: int  # hold in nano-USD, whatever the units of the budgets
    ceiling_usage: dict[str, object]  # Usage.as_dict() that the hold was computed from
    backed: bool = True  # False: admitted without money (`on_ledger_outage: allow`)
    tags: dict[str, str] = {}
    client_retry: int = 0
    priced_model: str = ""  # the table entry the hold was priced with
    # Of budgets that are not enforced: those that would have refused the call. Nothing is held
    # there; a cap per request is (budget, 0), no window.
    spared: list[Window] = []


class Opens(Struct, array_like=True, gc=False):
    """What a provider made of a call that ended `open`: its final usage will settle the call."""

    kind: str  # batch, response
    account: str
    object_id: str
    estimate: dict[str, object]  # Usage.as_dict(), to charge if no reply ever tells


class Settle(Struct, array_like=True, gc=False):
    """A call ended. Appended before its money is free and before the reply's end (rule 2)."""

    call_id: bytes
    held: Amounts  # the hold's windows and amounts
    charges: Amounts  # the same windows in the same order
    ending: str  # one of ENDINGS
    http_status: int  # the provider's; 0: none
    usage: dict[str, object] | None  # Usage.as_dict(); None: nothing known and nothing charged
    usage_source: str  # one of USAGE_SOURCES
    price_version: str
    cost_nano: int
    cost_items: list[tuple[str, int, int]]  # (item, count, atto-USD per unit), exact
    model: str  # the table entry that was priced, provider/model
    response_id: str
    duration_ms: int
    first_byte_ms: int  # 0: no byte came
    error: str = ""  # low-cardinality error type
    flags: int = 0  # FLAG_* bits
    # What the price says, where the provider's own figure is charged; None: the cost is that.
    priced_nano: int | None = None
    opens: Opens | None = None


class Note(Struct, array_like=True, gc=False):
    """What a reply told of something the provider keeps. Notes of one object add up, in any
    order and however often they come."""

    provider: str  # as configured
    account: str  # "": the configured one
    kind: str  # file, batch, response
    object_id: str
    at_ms: int
    requests: dict[str, object] | None = None  # of a file: what bounds the requests in it
    outputs: list[str] = []  # of a batch: the files that have its results
    # Its final usage: `groups` of (names of the model, Usage.as_dict()), `source`, `ending`.
    result: dict[str, object] | None = None


FLAG_CLAMPED = 1
FLAG_UNPRICED = 2
FLAG_CEILING_VIOLATION = 4
FLAG_UNBACKED = 8
FLAG_LEARNED = 16  # more than a soft budget held for it, within the ceiling or not
FLAG_REPORTED_COST = 32  # charged is the provider's own figure (`charge: reported`)
FLAG_WOULD_REFUSE = 64  # a budget that is not enforced would have refused it

# A row with one of these explains overage in the windows it was charged to (I1c).
FLAGS_OVERAGE = FLAG_CEILING_VIOLATION | FLAG_UNBACKED | FLAG_LEARNED | FLAG_WOULD_REFUSE


class Segment(Struct, array_like=True, gc=False):
    """First record of each file: who writes it, and the holds still open before it (rule 7)."""

    journal_id: bytes
    epoch_id: int
    boot_id: str
    host_id: str
    number: int
    open_holds: list[Hold]


class Close(Struct, array_like=True, gc=False):
    """The clean end of a journal."""

    at_ms: int


Record = Segment | Hold | Settle | Close | Note
TYPES: tuple[type[Record], ...] = (Segment, Hold, Settle, Close, Note)  # index + 1 = type byte
TYPE_BYTES = {cls: index + 1 for index, cls in enumerate(TYPES)}

encode = msgpack.Encoder().encode
DECODERS = tuple(msgpack.Decoder(cls).decode for cls in TYPES)
