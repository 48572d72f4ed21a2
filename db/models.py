"""All tables, in one place. No table name is written anywhere else.

Money is BigInteger nano-USD, token and request counts BigInteger; times of the hierarchy are
unix milliseconds (`*_at_ms`), window starts unix seconds. Deleting tombstones: rows that cost
rows refer to are never removed, so every reference is a foreign key with RESTRICT unless the
child has no meaning of its own.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.model_base import Base, BigId, Json
from db.model_base import refers_to as _ref
from db.model_base import row_id as _id

__all__ = ["Base"]


def _call_ref(**options: Any) -> Mapped[Any]:
    reference = ForeignKey("ai_usage_costs.call_id", ondelete="RESTRICT")
    return mapped_column(LargeBinary(16), reference, **options)


class Declared:
    """Who made a row, and when it was deleted."""

    source: Mapped[str] = mapped_column(String(16))  # config | cli | api | header (users)
    created_at_ms: Mapped[int] = mapped_column(BigInteger)
    tombstoned_at_ms: Mapped[int | None] = mapped_column(BigInteger)


class Spend:
    """Whose, on what and how much: what a cost row and its rollup have in common."""

    key_id: Mapped[int] = _ref("ai_api_keys.id")
    organization_id: Mapped[int] = _ref("ai_organizations.id")
    team_id: Mapped[int] = _ref("ai_teams.id")
    project_id: Mapped[int | None] = _ref("ai_projects.id")
    user_id: Mapped[int | None] = _ref("ai_users.id")
    provider: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(256))  # as requested
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    cache_read_tokens: Mapped[int] = mapped_column(BigInteger)
    cache_write_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    cost_nano: Mapped[int] = mapped_column(BigInteger)


# --- hierarchy -----------------------------------------------------------------------------


class Organization(Declared, Base):
    __tablename__ = "ai_organizations"
    id: Mapped[int] = _id()
    name: Mapped[str] = mapped_column(String(128), unique=True)


class Team(Declared, Base):
    __tablename__ = "ai_teams"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)
    id: Mapped[int] = _id()
    organization_id: Mapped[int] = _ref("ai_organizations.id")
    name: Mapped[str] = mapped_column(String(128))


class Project(Declared, Base):
    __tablename__ = "ai_projects"
    __table_args__ = (UniqueConstraint("team_id", "name"),)
    id: Mapped[int] = _id()
    team_id: Mapped[int] = _ref("ai_teams.id")
    name: Mapped[str] = mapped_column(String(128))


class User(Declared, Base):
    """A person or service inside an organization; also made by the first call that names one."""

    __tablename__ = "ai_users"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)
    id: Mapped[int] = _id()
    organization_id: Mapped[int] = _ref("ai_organizations.id")
    name: Mapped[str] = mapped_column(String(128))
    email: Mapped[str] = mapped_column(String(254), default="")


class ApiKey(Base):
    __tablename__ = "ai_api_keys"
    id: Mapped[int] = _id()
    name: Mapped[str] = mapped_column(String(128), unique=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    hint: Mapped[str] = mapped_column(String(16), default="")  # last characters, for people
    team_id: Mapped[int] = _ref("ai_teams.id")
    project_id: Mapped[int | None] = _ref("ai_projects.id")
    user_id: Mapped[int | None] = _ref("ai_users.id")
    models: Mapped[list[Any]] = mapped_column(Json, default=list)  # globs; empty = all
    providers: Mapped[list[Any]] = mapped_column(Json, default=list)
    refusal_status: Mapped[int] = mapped_column(SmallInteger, default=0)
    expires_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    source: Mapped[str] = mapped_column(String(16))
    created_at_ms: Mapped[int] = mapped_column(BigInteger)


# --- budgets -------------------------------------------------------------------------------


class Budget(Declared, Base):
    """A limit on a scope for a period. Re-creating one revives its tombstone, spend included."""

    __tablename__ = "ai_budgets"
    id: Mapped[int] = _id()
    # scope path + unit + period + zone + anchors + filters: what makes two budgets the same one
    identity: Mapped[str] = mapped_column(String(512), unique=True)
    scope_kind: Mapped[str] = mapped_column(String(16))
    unit: Mapped[str] = mapped_column(String(16))  # usd | tokens | requests
    limit_value: Mapped[int] = mapped_column(BigInteger)
    period: Mapped[str] = mapped_column(String(16))
    timezone: Mapped[str] = mapped_column(String(64), default="UTC")
    week_start: Mapped[int] = mapped_column(SmallInteger, default=0)
    month_day: Mapped[int] = mapped_column(SmallInteger, default=1)
    models: Mapped[list[Any]] = mapped_column(Json, default=list)
    providers: Mapped[list[Any]] = mapped_column(Json, default=list)
    options: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)  # clamp, waits, alerts


class OrganizationBudget(Base):
    __tablename__ = "ai_organization_budgets"
    budget_id: Mapped[int] = _ref("ai_budgets.id", primary_key=True)
    organization_id: Mapped[int] = _ref("ai_organizations.id")


class TeamBudget(Base):
    __tablename__ = "ai_team_budgets"
    budget_id: Mapped[int] = _ref("ai_budgets.id", primary_key=True)
    team_id: Mapped[int] = _ref("ai_teams.id")


class ProjectBudget(Base):
    __tablename__ = "ai_project_budgets"
    budget_id: Mapped[int] = _ref("ai_budgets.id", primary_key=True)
    project_id: Mapped[int] = _ref("ai_projects.id")


class UserBudget(Base):
    __tablename__ = "ai_user_budgets"
    budget_id: Mapped[int] = _ref("ai_budgets.id", primary_key=True)
    user_id: Mapped[int] = _ref("ai_users.id")


class KeyBudget(Base):
    __tablename__ = "ai_key_budgets"
    budget_id: Mapped[int] = _ref("ai_budgets.id", primary_key=True)
    key_id: Mapped[int] = _ref("ai_api_keys.id")


# --- the ledger (protocol section 2) --------------------------------------------------------


class Window(Base):
    __tablename__ = "ai_budget_windows"
    __table_args__ = (
        UniqueConstraint("budget_id", "starts_at"),
        CheckConstraint("committed >= 0", name="committed"),
        CheckConstraint("overage >= 0", name="overage"),
    )
    id: Mapped[int] = _id()
    budget_id: Mapped[int] = _ref("ai_budgets.id")
    starts_at: Mapped[int] = mapped_column(BigInteger)  # unix seconds
    committed: Mapped[int] = mapped_column(BigInteger, default=0)
    overage: Mapped[int] = mapped_column(BigInteger, default=0)
    extra: Mapped[int] = mapped_column(BigInteger, default=0)  # temporary raise of the limit
    # committed - overage when the limit was last lowered below it (I1a); 0: it fitted
    lowered_from: Mapped[int] = mapped_column(BigInteger, default=0)


class Epoch(Base):
    """One life of one control. Epoch 0 belongs to no host: it takes adjustments."""

    __tablename__ = "ai_control_epochs"
    id: Mapped[int] = _id()
    host_id: Mapped[str] = mapped_column(String(64))
    boot_id: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(8))  # open | lost | closed
    opened_at_ms: Mapped[int] = mapped_column(BigInteger)
    seen_at_ms: Mapped[int] = mapped_column(BigInteger)  # the database's clock


class Lease(Base):
    __tablename__ = "ai_budget_leases"
    __table_args__ = (CheckConstraint("spent <= granted", name="spent"),)
    window_id: Mapped[int] = _ref("ai_budget_windows.id", primary_key=True)
    epoch_id: Mapped[int] = _ref("ai_control_epochs.id", primary_key=True, index=True)
    granted: Mapped[int] = mapped_column(BigInteger, default=0)
    spent: Mapped[int] = mapped_column(BigInteger, default=0)
    wanted: Mapped[int] = mapped_column(BigInteger, default=0)
    ticket: Mapped[int] = mapped_column(BigInteger, default=0)


class JournalOffset(Base):
    __tablename__ = "ai_journal_offsets"
    journal_id: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)
    epoch_id: Mapped[int] = _ref("ai_control_epochs.id", index=True)
    segment: Mapped[int] = mapped_column(Integer, default=0)
    offset: Mapped[int] = mapped_column(BigInteger, default=0)
    finished: Mapped[bool] = mapped_column(default=False)
    truncated: Mapped[bool] = mapped_column(default=False)


class ChargeSet(Base):
    """A distinct set of windows that rows were charged to."""

    __tablename__ = "ai_charge_sets"
    id: Mapped[int] = _id()
    digest: Mapped[str] = mapped_column(String(64), unique=True)  # sha256 of the sorted window ids


class ChargeSetWindow(Base):
    __tablename__ = "ai_charge_set_windows"
    charge_set_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("ai_charge_sets.id", ondelete="CASCADE"), primary_key=True
    )
    window_id: Mapped[int] = _ref("ai_budget_windows.id", primary_key=True, index=True)


# --- prices --------------------------------------------------------------------------------


class PriceVersion(Base):
    """A price version rows were priced with: a table file plus overlays; never changed."""

    __tablename__ = "ai_price_versions"
    id: Mapped[int] = _id()
    version: Mapped[str] = mapped_column(String(96), unique=True)
    table_id: Mapped[str] = mapped_column(String(96))
    sha256: Mapped[str] = mapped_column(String(64))
    source: Mapped[str] = mapped_column(String(128))
    effective_from: Mapped[str] = mapped_column(String(32))
    overlays: Mapped[list[Any]] = mapped_column(Json, default=list)
    created_at_ms: Mapped[int] = mapped_column(BigInteger)


class ModelCost(Base):
    """A price entry that rows refer to: its prices as they were, so rows can be re-computed."""

    __tablename__ = "ai_provider_model_costs"
    __table_args__ = (UniqueConstraint("price_version_id", "model"),)
    id: Mapped[int] = _id()
    price_version_id: Mapped[int] = _ref("ai_price_versions.id")
    model: Mapped[str] = mapped_column(String(256))  # provider/model, the entry's key
    entry: Mapped[dict[str, Any]] = mapped_column(Json)


# --- cost rows -----------------------------------------------------------------------------


class UsageCost(Spend, Base):
    """One call, append-only.

    An adjustment is another row that names the call it adjusts (never another adjustment): its
    counts, cost and charges are differences to be added, its `usage`, price and items are what the
    call is now priced with, whole, and it ends `lost` only while that usage is still the ceiling's.
    So the sum of all rows is what was spent, and the sum over one call is the cost of its last
    row's usage and price. One without a charge set leaves budgets as they were.
    """

    __tablename__ = "ai_usage_costs"
    __table_args__ = (
        Index("ix_ai_usage_costs_at", "at_ms"),
        Index("ix_ai_usage_costs_key_at", "key_id", "at_ms"),
    )
    call_id: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)  # UUIDv7
    at_ms: Mapped[int] = mapped_column(BigInteger)
    charge_set_id: Mapped[int | None] = _ref("ai_charge_sets.id")  # None: no budget applied
    # Few rows are adjustments. The migration makes the index partial: a condition here would load
    # every dialect it names, with their drivers, into each process.
    adjusts: Mapped[bytes | None] = _call_ref(index=True)
    route: Mapped[str] = mapped_column(String(64))
    stream: Mapped[bool]
    http_status: Mapped[int] = mapped_column(SmallInteger)
    ending: Mapped[str] = mapped_column(String(16))
    usage_source: Mapped[str] = mapped_column(String(12))
    usage: Mapped[dict[str, Any] | None] = mapped_column(Json)  # Usage.as_dict(), whole
    price_id: Mapped[int | None] = _ref("ai_provider_model_costs.id")  # None: not priced
    cost_items: Mapped[list[Any] | None] = mapped_column(Json)
    hold_nano: Mapped[int] = mapped_column(BigInteger)
    charged_tokens: Mapped[int] = mapped_column(BigInteger)  # to budgets in tokens
    charged_requests: Mapped[int] = mapped_column(SmallInteger)  # to budgets in requests
    duration_ms: Mapped[int] = mapped_column(Integer)
    first_byte_ms: Mapped[int] = mapped_column(Integer)
    client_retry: Mapped[int] = mapped_column(SmallInteger)
    flags: Mapped[int] = mapped_column(SmallInteger)
    error: Mapped[str] = mapped_column(String(64))
    response_id: Mapped[str] = mapped_column(String(128))
    tags: Mapped[dict[str, Any] | None] = mapped_column(Json)
    provider_cost_nano: Mapped[int | None] = mapped_column(BigInteger)  # its own figure, if any
    drift_nano: Mapped[int | None] = mapped_column(BigInteger)  # that figure less our price's


class Repricing(Base):
    """One run of repricing: what it was asked for, and how far it has come."""

    __tablename__ = "ai_repricings"
    id: Mapped[int] = _id()
    price_version_id: Mapped[int] = _ref("ai_price_versions.id")
    since_ms: Mapped[int | None] = mapped_column(BigInteger)  # None: from the first call
    until_ms: Mapped[int] = mapped_column(BigInteger)
    restated: Mapped[bool]  # whether budgets are charged the differences
    asked: Mapped[dict[str, Any]] = mapped_column(Json)  # as it was asked for: finds it again
    started_at_ms: Mapped[int] = mapped_column(BigInteger)
    finished_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    read_at_ms: Mapped[int | None] = mapped_column(BigInteger)  # the last call that was read,
    read_call_id: Mapped[bytes | None] = mapped_column(LargeBinary(16))  # None: none yet
    calls_adjusted: Mapped[int] = mapped_column(BigInteger, default=0)
    adjusted_nano: Mapped[int] = mapped_column(BigInteger, default=0)


class CostAdjustment(Base):
    """What is to be said of a cost row that is an adjustment: from which price to which."""

    __tablename__ = "ai_cost_adjustments"
    call_id: Mapped[bytes] = _call_ref(primary_key=True)
    repricing_id: Mapped[int | None] = _ref("ai_repricings.id")  # None: of one call, by itself
    from_price_id: Mapped[int | None] = _ref("ai_provider_model_costs.id")  # None: not priced
    to_price_id: Mapped[int | None] = _ref("ai_provider_model_costs.id")


class ProviderObject(Base):
    """What a provider keeps for later, as replies told of it: files, batches, responses.

    One that has the call that made it (`call_id`) and the final usage (`result`) is `ready`: its
    call is corrected once, by `adjustment_id`.
    """

    __tablename__ = "ai_provider_objects"
    __table_args__ = (UniqueConstraint("provider", "account", "kind", "object_id"),)
    id: Mapped[int] = _id()
    provider: Mapped[str] = mapped_column(String(64))  # as configured
    account: Mapped[str] = mapped_column(String(16))  # "": the configured one
    kind: Mapped[str] = mapped_column(String(8))  # file | batch | response
    object_id: Mapped[str] = mapped_column(String(128))
    noted_at_ms: Mapped[int] = mapped_column(BigInteger, index=True)
    requests: Mapped[dict[str, Any] | None] = mapped_column(Json)  # of a file: what bounds them
    batch_id: Mapped[int | None] = _ref("ai_provider_objects.id")  # of a file: it has the results
    estimate: Mapped[dict[str, Any] | None] = mapped_column(Json)  # usage, if no reply ever tells
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    call_id: Mapped[bytes | None] = _call_ref(unique=True)
    adjustment_id: Mapped[bytes | None] = _call_ref(unique=True)
    ready: Mapped[bool] = mapped_column(default=False, index=True)


class CostValidation(Base):
    """One line of a comparison of the ledger with a provider's own cost export."""

    __tablename__ = "ai_cost_validations"
    __table_args__ = (UniqueConstraint("file_sha256", "source", "day", "model"),)
    id: Mapped[int] = _id()
    validated_at_ms: Mapped[int] = mapped_column(BigInteger)
    source: Mapped[str] = mapped_column(String(16))  # openai | anthropic | openrouter | csv
    file_sha256: Mapped[str] = mapped_column(String(64))
    day: Mapped[str] = mapped_column(String(10))  # ISO date, UTC
    model: Mapped[str] = mapped_column(String(256))  # "": all of the day
    calls: Mapped[int] = mapped_column(BigInteger)
    ledger_nano: Mapped[int] = mapped_column(BigInteger)
    provider_nano: Mapped[int] = mapped_column(BigInteger)
    threshold_percent: Mapped[str] = mapped_column(String(16))
    exceeds: Mapped[bool]


class CostAnalytics(Spend, Base):
    """Hourly rollup, maintained in the flush transaction; one shard per host, no shared row."""

    __tablename__ = "ai_cost_analytics"
    # hour:host:key:project:user:provider:model, because unique keys do not hold over NULLs
    shard: Mapped[str] = mapped_column(String(512), primary_key=True)
    hour: Mapped[int] = mapped_column(BigInteger, index=True)  # unix hours
    host_id: Mapped[str] = mapped_column(String(64))
    calls: Mapped[int] = mapped_column(BigInteger)
    adjusted_nano: Mapped[int] = mapped_column(BigInteger)  # the adjustments in it
    provider_cost_nano: Mapped[int] = mapped_column(BigInteger)  # as rows have them
    drift_nano: Mapped[int] = mapped_column(BigInteger)


class Revision(Base):
    """One row: bumped by every change of keys, budgets or prices, so that control notices."""

    __tablename__ = "ai_revisions"
    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(BigInteger)
