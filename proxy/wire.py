"""The messages between the planes (protocol section 4), and what carries them.

Money is sent as totals, not increments, so a repeated message does no harm. A channel is
ordered. Both ends take it as a parameter: a socket pair in production, a pair of queues when
both planes run in one process, a simulated one in the simulation.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from db.journal_records import Window

PROTOCOL_VERSION = 1
# What a worker gives control to answer a want, however short a budget's hold_wait_ms is: a disk
# that stalls for seconds is no outage.
ANSWER_WAIT_MS = 5_000


# --- what a snapshot holds -----------------------------------------------------------------


class KeyEntry(Struct, array_like=True, frozen=True):
    """An API key and the place in the hierarchy its calls are charged to."""

    id: int
    sha256: str  # hex
    name: str
    organization_id: int
    organization: str
    team_id: int
    team: str
    project_id: int = 0  # 0: none
    project: str = ""
    user: str = ""  # bound user; "" = none, `x-tollkeeper-user` may name one
    expires_at: int = 0  # unix seconds; 0 = never
    revoked: bool = False
    models: tuple[str, ...] = ()  # globs; empty = all
    providers: tuple[str, ...] = ()
    refusal_status: int = 0  # 0 = the provider's


class ProjectEntry(Struct, array_like=True, frozen=True):
    """A project `x-tollkeeper-project` may name."""

    id: int
    team_id: int
    name: str


class BudgetEntry(Struct, array_like=True, frozen=True):
    """A budget. `scope` is its path, e.g. "team/acme/search"; the kind is its first part."""

    id: int
    scope: str
    unit: str  # "usd" (nano-USD), "tokens", "requests"
    limit: int
    period: str
    timezone: str = "UTC"
    week_start: int = 0  # Monday
    month_day: int = 1
    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    clamp: bool = True
    clamp_share: float = 0.125
    clamp_min_tokens: int = 1024
    hold_wait_ms: int = 2000
    server_tool_passes: int = 4
    learned: bool = False
    enforce: bool = True  # False: it counts, and refuses nothing; it does not clamp either
    downgrade: tuple[tuple[str, str], ...] = ()  # (glob of models, the model in their stead)
    raised: int = 0  # the part of the limit that is temporary
    each: str = ""  # "customer": a template, every customer has a budget of its own like this
    customers_max: int = 0  # of a template: how many customers have one
    beyond: str = ""  # and what happens to further ones: refuse | share
    customer_required: bool = False  # calls must name their customer
    customer_from_body: bool = False  # the body may do so
    template: int = 0  # the budget that a customer's was made from,
    customer: str = ""  # and the customer; "*": all those beyond `customers_max`


class OverlayEntry(Struct, array_like=True, frozen=True):
    provider: str
    model: str
    discount_percent: str
    prices: dict[str, str]
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    team: str = "*"


class PricesEntry(Struct, array_like=True, frozen=True):
    """The price version in force: a table file and the overlays that make it this version."""

    version: str
    table_path: str
    table_sha256: str
    overlays: tuple[OverlayEntry, ...] = ()
    unpriced: str = "block"
    unpriced_atto_per_token: int = 0


class AwsEntry(Struct, array_like=True, frozen=True):
    """How requests are signed for Amazon; without keys, those botocore finds."""

    region: str
    service: str = "bedrock"
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    profile: str = ""


class GoogleEntry(Struct, array_like=True, frozen=True):
    """Where tokens for Google Cloud come from; "": the application default credentials."""

    service_account_file: str = ""


class AzureEntry(Struct, array_like=True, frozen=True):
    """The application of Microsoft Entra whose tokens requests carry."""

    authority: str
    tenant_id: str
    client_id: str
    client_secret: str
    federated_token_file: str  # in place of a secret
    scope: str


class ProviderEntry(Struct, array_like=True, frozen=True):
    name: str
    dialect: str
    base_url: str
    api_key: str  # "client" = forward the caller's own
    api_key_header: str
    prices: str  # provider name in the price table, or "free"
    clamp_field: str = ""
    allow_unmetered: bool = False
    inject_usage: bool = True
    refusal_status: int = 0  # 0 = the dialect's
    charge_reported: bool = False
    region: str = ""  # prices of this region come before general ones
    models: dict[str, str] = {}  # what calls name -> the model it is
    aws: AwsEntry | None = None  # requests are signed
    google: GoogleEntry | None = None  # requests carry an access token
    azure: AzureEntry | None = None  # the same


class MiddlewareEntry(Struct, array_like=True, frozen=True):
    """ASGI middleware: `path` is MODULE:NAME, `options` are given by name."""

    path: str
    options: dict[str, str] = {}


class MiddlewareSet(Struct, array_like=True, frozen=True):
    """What stands around the call path, the first of a list outermost."""

    directory: str  # also searched for modules; "": none is
    of_all: tuple[MiddlewareEntry, ...] = ()
    of_providers: dict[str, tuple[MiddlewareEntry, ...]] = {}


class TracingEntry(Struct, array_like=True, frozen=True):
    """Which calls are traced. `spans`, `metrics`: what is exported of them."""

    spans: bool
    metrics: bool
    follow_parent: bool  # a caller's decision counts
    ratio: float  # of the other traces


class Settings(Struct, array_like=True, frozen=True):
    """What a worker needs of the configuration besides the above."""

    max_body_bytes: int = 100 * 2**20
    max_concurrency: int = 1000
    connect_timeout_s: float = 10
    first_byte_timeout_s: float = 600
    idle_timeout_s: float = 600
    drain_s: float = 30
    flush_interval_ms: int = 100
    on_ledger_outage: str = "block"
    on_disconnect: str = "cancel"
    log_calls: bool = True
    propagate_upstream: bool = True  # `traceparent` and `tracestate` go to providers
    tracing: TracingEntry | None = None


# --- messages ------------------------------------------------------------------------------


class Welcome(Struct, array_like=True, tag="welcome"):
    """control -> worker, first on every connection: what a worker needs to open its journal and
    its server. Sent once the ledger is open and the epoch is registered."""

    epoch_id: int
    host_id: str
    boot_id: str
    journal_dir: str
    journal_sync: str
    segment_bytes: int
    keep_alive_s: float = 75
    header_bytes_max: int = 64 * 1024
    middleware: MiddlewareSet | None = None


class Hello(Struct, array_like=True, tag="hello"):
    """worker -> control, the answer to Welcome: the journal is created, locked and renamed."""

    journal_id: bytes
    pid: int
    version: int = PROTOCOL_VERSION


class Snapshot(Struct, array_like=True, tag="snapshot"):
    """control -> worker: everything a worker knows. The first one opens the doors. Of the budgets
    of customers it holds those that this host has asked for lately."""

    revision: int
    epoch_id: int
    keys: tuple[KeyEntry, ...]
    projects: tuple[ProjectEntry, ...]
    budgets: tuple[BudgetEntry, ...]
    prices: PricesEntry
    providers: tuple[ProviderEntry, ...]
    settings: Settings


class Ack(Struct, array_like=True, tag="ack"):
    """worker -> control: a revision is in force here."""

    revision: int


class Room(Struct, array_like=True):
    """What a worker is told of a window besides its own slice."""

    window: Window
    limit: int
    spent: int  # drained into the ledger, all leases
    committed: int  # granted to anybody
    free: int  # limit - committed + control's pool: what could still be granted
    scarce: bool = False  # somebody waits: nobody is granted ahead, free money goes back
    oldest: bytes = b""  # scarce: the call that is first in line, if known
    drained: int = -1  # how much of this worker's `used` is part of `spent`; -1: unknown


class Slices(Struct, array_like=True, tag="slices"):
    """control -> worker: totals granted since hello, per window, and what is known of them."""

    granted: list[tuple[Window, int]]
    room: list[Room]
    answered: list[bytes] = []  # wants this message is the answer to (granted or not)
    outage: bool = False  # the ledger is out of reach: what is answered and not granted is not had
    full: bool = False  # the journal has taken all the disk it may: no new calls


class SliceStatus(Struct, array_like=True):
    window: Window
    returned_total: int
    used: int
    held: int
    burn: int  # charged since the last status


class Refused(Struct, array_like=True, frozen=True):
    """A call that was answered with an error of ours, for people to look at. Names are "" where
    the call had not come so far that they were known."""

    at_ms: int
    request_id: str
    code: str
    status: int
    message: str
    organization: str
    team: str
    project: str
    user: str
    key: str
    provider: str
    model: str
    details: dict[str, str]  # of a budget: its scope, limit, spent, held, needed


class RefusedGroup(Struct, array_like=True, frozen=True):
    """Refused calls that are alike, since the last status: all of them are counted."""

    organization: str
    team: str
    key: str
    provider: str
    model: str
    code: str
    scope: str  # of the budget; "": of none
    calls: int
    last_at_ms: int


class Status(Struct, array_like=True, tag="status"):
    """worker -> control, each flush interval, and at once for a scarce window."""

    slices: list[SliceStatus]
    metrics: bytes = b""  # encoded counters of this worker, totals
    calls: list[bytes] = []  # encoded records of traced calls that have ended since the last one
    refused: list[Refused] = []  # since the last one, as many as there is room for
    refused_groups: list[RefusedGroup] = []


class Want(Struct, array_like=True, tag="want"):
    """worker -> control: a call does not fit in the slices. `amounts` is what is lacking; a want
    that comes again for the same call replaces the amounts and keeps its ticket."""

    call_id: bytes
    amounts: list[tuple[Window, int]]
    deadline_ms: int  # unix milliseconds


class Unwant(Struct, array_like=True, tag="unwant"):
    """worker -> control: the call was admitted, refused, or its client went away."""

    call_id: bytes


class Drain(Struct, array_like=True, tag="drain"):
    """control -> worker: stop accepting, finish what is in flight, journal CLOSE, exit."""


class Ask(Struct, array_like=True, tag="ask"):
    """worker -> control: what is known of something a provider keeps."""

    ask_id: int
    provider: str
    account: str
    kind: str
    object_id: str


class Answer(Struct, array_like=True, tag="answer"):
    """control -> worker."""

    ask_id: int
    found: bool
    requests: dict[str, object] | None = None  # of a file: what bounds the requests in it
    outage: bool = False  # the ledger is out of reach: nothing is known


class Meet(Struct, array_like=True, tag="meet"):
    """worker -> control: the budgets of a customer that were made, or are to be, from these
    templates."""

    ask_id: int
    customer: str
    templates: tuple[int, ...]


class Met(Struct, array_like=True, tag="met"):
    """control -> worker. Of a template that is in neither there is nothing any more."""

    ask_id: int
    budgets: tuple[BudgetEntry, ...] = ()
    beyond: tuple[int, ...] = ()  # templates that track as many customers as they may
    outage: bool = False  # the ledger is out of reach: nothing is known


Message = (
    Welcome
    | Hello
    | Snapshot
    | Ack
    | Slices
    | Status
    | Want
    | Unwant
    | Drain
    | Ask
    | Answer
    | Meet
    | Met
)


class Channel(Protocol):
    """One end of an ordered, reliable connection between a worker and its control."""

    def start(self, on_message: Callable[[Message], None], on_close: Callable[[], None]) -> None:
        """Begin delivery. `on_close` is called once, when the other end is gone."""

    def send(self, message: Message) -> None:
        """Queue a message; dropped silently once the other end is gone."""

    def close(self) -> None:
        """Close this end."""

    @property
    def congested(self) -> bool:
        """The other end is slow to read: what can be left out should be."""
        return False
