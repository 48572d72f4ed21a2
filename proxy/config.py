"""The configuration: every key declared once, with type, bounds and default.

`docs/configuration.md` explains each key; a test keeps the two together.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, Struct

from pricing.money import nano_from_usd

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Limit = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Meta(gt=0)]
Period = Literal[
    "request", "minute", "hour", "day", "week", "month", "quarter", "year", "total"
]  # fmt: skip
Weekday = Literal[
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"
]  # fmt: skip
Sampler = Literal[
    "", "always_on", "always_off", "traceidratio",
    "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
]  # fmt: skip
WEEKDAYS: tuple[str, ...] = Weekday.__args__  # type: ignore[attr-defined]


class ConfigError(Exception):
    """The configuration cannot be used. Every problem found, one line each, no secret in any."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Server(Struct, forbid_unknown_fields=True, frozen=True):
    host: str = "127.0.0.1"
    port: Port = 4000
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    keep_alive_s: Seconds = 75
    max_body_mb: Annotated[float, Meta(gt=0, le=4096)] = 100
    max_header_kb: Annotated[int, Meta(ge=1, le=1024)] = 64
    max_concurrency: Count = 1000
    connect_timeout_s: Seconds = 10
    first_byte_timeout_s: Seconds = 600
    idle_timeout_s: Seconds = 600
    drain_s: Annotated[float, Meta(ge=0)] = 30


class Database(Struct, forbid_unknown_fields=True, frozen=True):
    url: str = "sqlite+aiosqlite:///tollkeeper.db"


class Journal(Struct, forbid_unknown_fields=True, frozen=True):
    dir: str = "./journal"
    sync: Literal["os", "batch", "always"] = "os"
    flush_interval_ms: Annotated[int, Meta(ge=1, le=60_000)] = 100
    segment_mb: Annotated[int, Meta(ge=1, le=4096)] = 64
    keep_h: Annotated[float, Meta(ge=0)] = 24
    max_mb: Annotated[int, Meta(ge=2)] = 8192  # on disk; drained files go before their time


class Retention(Struct, forbid_unknown_fields=True, frozen=True):
    """Which calls are removed by themselves: those of months (UTC) before the last so many."""

    keep_months: Annotated[int, Meta(ge=0, le=1200)] = 0  # beside the current one; 0 = all are kept


class Viewer(Struct, forbid_unknown_fields=True, frozen=True):
    """Reads one team's figures over the admin API and the dashboard, and changes nothing."""

    name: str
    key: str
    team: str  # ORG/TEAM


ADMIN_NAME = "admin"  # whoever has `admin.key`; no viewer may be called so


class Admin(Struct, forbid_unknown_fields=True, frozen=True):
    host: str = "127.0.0.1"
    port: Port = 4001
    key: str = ""
    viewers: list[Viewer] = []


class Overlay(Struct, forbid_unknown_fields=True, frozen=True):
    """A negotiated price: fixed prices or a factor for matching entries."""

    provider: str = "*"
    model: str = "*"
    discount_percent: str = "0"
    prices: dict[str, str] = {}  # price key -> USD per unit, as exact decimal text
    max_input_tokens: Count | None = None
    max_output_tokens: Count | None = None
    team: str = "*"  # glob of ORG/TEAM


class Pricing(Struct, forbid_unknown_fields=True, frozen=True):
    unpriced: Literal["block", "ceiling"] = "block"
    table: str = ""  # id of a snapshot; "" = the newest that is effective
    tables_dir: str = ""  # more tables, beside those that are shipped
    unpriced_usd_per_mtok: str = ""  # declared ceiling rate for `unpriced: ceiling`
    overlays: list[Overlay] = []


class Aws(Struct, forbid_unknown_fields=True, frozen=True):
    """Amazon: where the models are, and what requests are signed with."""

    region: str = ""  # "" = the provider is none of Amazon's
    service: str = "bedrock"
    access_key_id: str = ""  # "" = what botocore finds
    secret_access_key: str = ""
    session_token: str = ""
    profile: str = ""


class Google(Struct, forbid_unknown_fields=True, frozen=True):
    """Google Cloud: where the models are, and whose access tokens requests carry."""

    location: str = ""  # "" = the provider is none of Google Cloud's
    service_account_file: str = ""  # "" = the application default credentials


class Azure(Struct, forbid_unknown_fields=True, frozen=True):
    """Microsoft Entra: the application whose access tokens requests carry."""

    tenant_id: str = ""  # "" = no tokens
    client_id: str = ""
    client_secret: str = ""
    federated_token_file: str = ""  # in place of a secret: a workload identity
    scope: str = "https://cognitiveservices.azure.com/.default"
    authority: str = "https://login.microsoftonline.com"


class Middleware(Struct, forbid_unknown_fields=True, frozen=True):
    """ASGI middleware, called with the application and the options."""

    path: str  # MODULE:NAME
    options: dict[str, str] = {}


class Provider(Struct, forbid_unknown_fields=True, frozen=True):
    base_url: str = ""
    dialect: str = ""  # "" = the provider's own
    api_key: str = ""  # "client": forward the caller's own credential
    api_key_header: str = ""  # "" = the dialect's
    prices: str = ""  # price table provider name; "free"; "" = the provider's own name
    clamp_field: str = ""
    allow_unmetered: bool = False
    inject_usage: bool = True
    refusal_status: Literal[0, 402, 429] = 0  # 0 = what the dialect's SDKs do not try again
    charge: Literal["priced", "reported"] = "priced"
    models: dict[str, str] = {}  # names that do not tell the model -> the model
    aws: Aws = Aws()
    google: Google = Google()
    azure: Azure = Azure()
    middleware: list[Middleware] = []


class Key(Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    key: str = ""
    key_sha256: str = ""
    user: str = ""
    expires: str = ""  # a date (its last second, UTC) or a timestamp; "" = never
    models: list[str] = []
    providers: list[str] = []
    refusal_status: Literal[0, 402, 429] = 0  # 0 = the provider's


class Project(Struct, forbid_unknown_fields=True, frozen=True):
    keys: list[Key] = []


class Team(Struct, forbid_unknown_fields=True, frozen=True):
    keys: list[Key] = []
    projects: dict[str, Project] = {}


class User(Struct, forbid_unknown_fields=True, frozen=True):
    email: str = ""


class Organization(Struct, forbid_unknown_fields=True, frozen=True):
    teams: dict[str, Team] = {}
    users: dict[str, User] = {}


MODEL_NAME = r"^[A-Za-z0-9_.:/@+-]{1,128}$(?!\n)"  # a name, no glob


class OnExhausted(Struct, forbid_unknown_fields=True, frozen=True):
    """What happens to a call that a budget cannot pay any more, besides being refused."""

    downgrade: dict[str, str] = {}  # glob of the model asked for -> the model it gets


class Customers(Struct, forbid_unknown_fields=True, frozen=True):
    """How a budget of `each: customer` treats the customers it meets."""

    tracked_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    beyond: Literal["refuse", "share"] = "refuse"
    required: bool = False  # a call must name its customer
    from_body: bool = False  # where no header does, the API's own field for end users names it


class Budget(Struct, forbid_unknown_fields=True, frozen=True):
    # organization/ORG, team/ORG/TEAM, project/ORG/TEAM/PROJECT, user/ORG/USER, key/KEY
    scope: str
    period: Period = "month"
    limit_usd: str | float | int | None = None  # exact decimal text once loaded
    limit_tokens: Limit | None = None
    limit_requests: Limit | None = None
    each: Literal["", "customer"] = ""  # every customer has a budget of its own like this one
    customers: Customers = Customers()
    timezone: str = "UTC"
    week_start: Weekday = "monday"
    month_day: Annotated[int, Meta(ge=1, le=31)] = 1  # beyond a month's end: its last day
    models: list[str] = []  # globs; empty = all
    providers: list[str] = []
    enforce: bool = True  # False: it counts, and refuses nothing
    clamp: bool = True
    clamp_share: Annotated[float, Meta(gt=0, le=1)] = 0.125
    clamp_min_tokens: Count = 1024
    hold: Literal["ceiling", "learned"] = "ceiling"
    hold_wait_ms: Annotated[int, Meta(ge=0, le=60_000)] = 2000
    server_tool_passes: Count = 4
    on_exhausted: OnExhausted = OnExhausted()
    alert_at: list[Annotated[float, Meta(gt=0, le=1000)]] = []  # per cent of the limit
    alert_exhaustion_h: list[Annotated[float, Meta(gt=0, le=8760)]] = []  # before it is expected

    def customer_problems(self) -> Iterator[tuple[str, str]]:
        """What cannot be said of a budget for each customer, as (key, why)."""
        if not self.each:
            if self.customers != Customers():
                yield "customers", "is for a budget of `each: customer`"
            return
        if self.period == "request":
            yield "each", "a cap per request is the same for every customer"
        if self.alert_exhaustion_h:
            yield "alert_exhaustion_h", "is not told of single customers: `alert_at` is"

    def unit_and_limit(self) -> tuple[str, int]:
        """("usd", nano-USD), ("tokens", n) or ("requests", n). A loaded budget has exactly one."""
        if self.limit_usd is not None:
            return "usd", nano_from_usd(Decimal(str(self.limit_usd)))
        if self.limit_tokens is not None:
            return "tokens", self.limit_tokens
        assert self.limit_requests is not None
        return "requests", self.limit_requests


class Log(Struct, forbid_unknown_fields=True, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    calls: bool = True


class Telemetry(Struct, forbid_unknown_fields=True, frozen=True):
    """OpenTelemetry. "auto": on where there is an endpoint, here or in a variable of its own."""

    endpoint: str = ""  # OTLP over HTTP, e.g. http://127.0.0.1:4318
    headers: dict[str, str] = {}
    traces: Literal["auto", "on", "off"] = "auto"
    metrics: Literal["auto", "on", "off"] = "auto"
    service_name: str = ""
    sampler: Sampler = ""
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0
    propagate_upstream: bool = True


class AlertChannel(Struct, forbid_unknown_fields=True, frozen=True):
    """Where alerts go. `webhook` and `slack` have a URL, `email` a server and addresses."""

    kind: Literal["webhook", "slack", "email", "log"]
    url: str = ""
    secret: str = ""  # signs webhooks
    host: str = ""
    port: Port = 0  # 0 = the usual one of `security`
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: str = ""
    sender: str = ""
    recipients: list[str] = []


class AlertRoute(Struct, forbid_unknown_fields=True, frozen=True):
    to: list[str] = []  # channels
    kinds: list[str] = []  # globs; empty = all
    scopes: list[str] = []


class Anomalies(Struct, forbid_unknown_fields=True, frozen=True):
    by: Literal["off", "organization", "team", "project", "user", "key"] = "team"
    weeks: Annotated[int, Meta(ge=4, le=52)] = 8
    minimum_usd: str | float | int = "5"  # above the usual
    threshold: Annotated[float, Meta(ge=1, le=100)] = 5.0


class Alerts(Struct, forbid_unknown_fields=True, frozen=True):
    channels: dict[str, AlertChannel] = {}
    routes: list[AlertRoute] = []  # none = everything to every channel
    anomalies: Anomalies = Anomalies()
    give_up_h: Annotated[float, Meta(gt=0, le=720)] = 24


class Report(Struct, forbid_unknown_fields=True, frozen=True):
    """A report that is sent by itself: of the last whole period."""

    name: str
    at: str  # daily HH:MM, weekly WEEKDAY HH:MM, monthly DAY HH:MM
    to: list[str] = []  # channels
    by: list[str] = []  # dimensions; empty = one total
    where: dict[str, str] = {}
    period: Literal["day", "week", "month", "quarter", "year"] = "day"
    timezone: str = "UTC"


class Config(Struct, forbid_unknown_fields=True, frozen=True):
    server: Server = Server()
    database: Database = Database()
    journal: Journal = Journal()
    admin: Admin = Admin()
    pricing: Pricing = Pricing()
    providers: dict[str, Provider] = {}
    organizations: dict[str, Organization] = {}
    budgets: list[Budget] = []
    log: Log = Log()
    telemetry: Telemetry = Telemetry()
    alerts: Alerts = Alerts()
    reports: list[Report] = []
    retention: Retention = Retention()
    middleware: list[Middleware] = []
    middleware_dir: str = "."
    on_ledger_outage: Literal["block", "allow"] = "block"
    on_disconnect: Literal["cancel", "drain"] = "cancel"


def expires_at_ms(text: str) -> int:
    """When a key ends, unix milliseconds: a date means its last moment, UTC unless it says.

    Raises ValueError.
    """
    moment = datetime.fromisoformat(text)
    if len(text) <= 10:
        moment = datetime.combine(moment.date(), time.max)
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)
