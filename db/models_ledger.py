"""The ledger: what each window has granted to whom, and how far journals were read."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.model_base import Base, BigId
from db.model_base import refers_to as _ref
from db.model_base import row_id as _id


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
    spared: Mapped[int] = mapped_column(BigInteger, default=0)  # calls it would have refused


class Raise(Base):
    """A limit is higher for a while. Append-only: one that was too high is followed by one below
    zero. In force from `from_ms` until before `until_ms`, by the database's clock."""

    __tablename__ = "ai_budget_raises"
    id: Mapped[int] = _id()
    budget_id: Mapped[int] = _ref("ai_budgets.id", index=True)
    amount: Mapped[int] = mapped_column(BigInteger)  # in the budget's unit
    from_ms: Mapped[int] = mapped_column(BigInteger)
    until_ms: Mapped[int] = mapped_column(BigInteger)
    made_by: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(String(512))
    created_at_ms: Mapped[int] = mapped_column(BigInteger)


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
    __table_args__ = (
        CheckConstraint("spent <= granted", name="spent"),
        # Hardly any lease has a ticket. The migration makes the index partial, see `UsageCost`.
        Index("ix_ai_budget_leases_ticket", "ticket"),
    )
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
    window_id: Mapped[int] = _ref("ai_budget_windows.id", primary_key=True)


class PrunedCharges(Base):
    """What cost rows that were removed had charged to a set of windows, so that these can still be
    added up: all of it, of rows flagged as overage, of adjustments upwards; by unit."""

    __tablename__ = "ai_pruned_charges"
    charge_set_id: Mapped[int] = _ref("ai_charge_sets.id", primary_key=True)
    usd: Mapped[int] = mapped_column(BigInteger)
    tokens: Mapped[int] = mapped_column(BigInteger)
    requests: Mapped[int] = mapped_column(BigInteger)
    flagged_usd: Mapped[int] = mapped_column(BigInteger)
    flagged_tokens: Mapped[int] = mapped_column(BigInteger)
    flagged_requests: Mapped[int] = mapped_column(BigInteger)
    raised_usd: Mapped[int] = mapped_column(BigInteger)
    raised_tokens: Mapped[int] = mapped_column(BigInteger)
    raised_requests: Mapped[int] = mapped_column(BigInteger)
