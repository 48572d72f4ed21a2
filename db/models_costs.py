"""Prices that rows refer to, cost rows, their rollups, and what is known of them later."""

from typing import Any

from sqlalchemy import (
    BigInteger,
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


def _call_ref(**options: Any) -> Mapped[Any]:
    reference = ForeignKey("ai_usage_costs.call_id", ondelete="RESTRICT")
    return mapped_column(LargeBinary(16), reference, **options)


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


class CostDay(Spend, Base):
    """Daily rollup: hourly ones of all hosts added up, of days (UTC) that are folded."""

    __tablename__ = "ai_cost_days"
    shard: Mapped[str] = mapped_column(String(512), primary_key=True)  # as above, without host
    day: Mapped[int] = mapped_column(BigInteger, index=True)  # unix days
    calls: Mapped[int] = mapped_column(BigInteger)
    adjusted_nano: Mapped[int] = mapped_column(BigInteger)
    provider_cost_nano: Mapped[int] = mapped_column(BigInteger)
    drift_nano: Mapped[int] = mapped_column(BigInteger)


class FoldedDay(Base):
    """A day that was folded: all days up to the last of these are, be it of nothing."""

    __tablename__ = "ai_folded_days"
    day: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    folded_at_ms: Mapped[int] = mapped_column(BigInteger)


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
    # Of these, what retention has removed.
    pruned_calls: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    pruned_nano: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")


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
    # Of a file: it has the results. Few are, so the index is partial, as that of `adjusts`.
    batch_id: Mapped[int | None] = _ref("ai_provider_objects.id", index=True)
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


class Retention(Base):
    """One run of removing calls before a horizon. The latest horizon is in force from its begin."""

    __tablename__ = "ai_retentions"
    id: Mapped[int] = _id()
    horizon_ms: Mapped[int] = mapped_column(BigInteger)
    begun_at_ms: Mapped[int] = mapped_column(BigInteger)
    finished_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    calls: Mapped[int] = mapped_column(BigInteger)
    cost_nano: Mapped[int] = mapped_column(BigInteger)  # of all their rows
