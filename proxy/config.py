"""The configuration: every key declared once, with type, default and help."""

from msgspec import Struct


class Server(Struct, forbid_unknown_fields=True, frozen=True):
    host: str = "127.0.0.1"
    port: int = 4000
    workers: int = 1
    keep_alive_s: float = 75
    max_body_mb: float = 100
    max_header_kb: int = 64
    max_concurrency: int = 1000
    connect_timeout_s: float = 10
    first_byte_timeout_s: float = 600
    idle_timeout_s: float = 600
    drain_s: float = 30


class Database(Struct, forbid_unknown_fields=True, frozen=True):
    url: str = "sqlite+aiosqlite:///tollkeeper.db"


class Journal(Struct, forbid_unknown_fields=True, frozen=True):
    dir: str = "./journal"
    sync: str = "os"  # os | batch | always
    flush_interval_ms: int = 100
    segment_mb: int = 64
    keep_h: float = 24


class Admin(Struct, forbid_unknown_fields=True, frozen=True):
    host: str = "127.0.0.1"
    port: int = 4001
    key: str = ""


class Overlay(Struct, forbid_unknown_fields=True, frozen=True):
    """A negotiated price: fixed prices or a factor for matching entries."""

    provider: str = "*"
    model: str = "*"
    discount_percent: str = "0"
    prices: dict[str, str] = {}  # price key -> USD per unit, as exact decimal text
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None


class Pricing(Struct, forbid_unknown_fields=True, frozen=True):
    unpriced: str = "block"  # block | ceiling
    table: str = ""  # id of a snapshot; "" = the newest that is effective
    unpriced_usd_per_mtok: str = ""  # declared ceiling rate for `unpriced: ceiling`
    overlays: list[Overlay] = []


class Provider(Struct, forbid_unknown_fields=True, frozen=True):
    base_url: str = ""
    dialect: str = ""  # openai | anthropic | gemini; "" = the provider's own name
    api_key: str = ""  # "client": forward the caller's own credential
    api_key_header: str = ""  # "" = the dialect's
    prices: str = ""  # price table provider name; "free"; "" = the provider's own name
    clamp_field: str = ""
    allow_unmetered: bool = False
    inject_usage: bool = True
    refusal_status: int = 429


class Key(Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    key: str = ""
    key_sha256: str = ""
    user: str = ""
    expires: str = ""
    models: list[str] = []
    providers: list[str] = []
    refusal_status: int = 0


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


class Budget(Struct, forbid_unknown_fields=True, frozen=True):
    # organization/ORG, team/ORG/TEAM, project/ORG/TEAM/PROJECT, user/ORG/USER, key/KEY
    scope: str
    period: str = "month"  # request minute hour day week month quarter year total
    limit_usd: str | float | int | None = None
    limit_tokens: int | None = None
    limit_requests: int | None = None
    timezone: str = "UTC"
    week_start: str = "monday"
    month_day: int = 1
    models: list[str] = []  # globs; empty = all
    providers: list[str] = []
    clamp: bool = True
    clamp_share: float = 0.125
    clamp_min_tokens: int = 1024
    hold: str = "ceiling"  # ceiling | learned
    hold_wait_ms: int = 2000
    server_tool_passes: int = 4
    alert_at: list[float] = []


class Log(Struct, forbid_unknown_fields=True, frozen=True):
    level: str = "info"
    calls: bool = True


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
    on_ledger_outage: str = "block"  # block | allow
    on_disconnect: str = "cancel"  # cancel | drain
