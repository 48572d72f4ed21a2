"""Tables of alerts: what budgets ask to be told of, what was told, and to whom."""

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.model_base import Base, Json
from db.model_base import refers_to as _ref
from db.model_base import row_id as _id


class AlertConfig(Base):
    """A threshold of a budget, as its options declare it."""

    __tablename__ = "ai_budget_alert_configs"
    __table_args__ = (UniqueConstraint("budget_id", "kind", "threshold"),)
    id: Mapped[int] = _id()
    budget_id: Mapped[int] = _ref("ai_budgets.id")
    kind: Mapped[str] = mapped_column(String(32))
    threshold: Mapped[int] = mapped_column(BigInteger)  # thousandths of a per cent, or of an hour


class Alert(Base):
    """Something people are told of, once: whoever inserts its identity tells."""

    __tablename__ = "ai_budget_alerts"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # UUID; the idempotency key
    identity: Mapped[str] = mapped_column(String(256), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    severity: Mapped[str] = mapped_column(String(8))  # info | warning | critical
    scope: Mapped[str] = mapped_column(String(512))  # whom it is about; "": the whole host
    summary: Mapped[str] = mapped_column(String(1024))
    facts: Mapped[dict[str, Any]] = mapped_column(Json)
    budget_id: Mapped[int | None] = _ref("ai_budgets.id")
    window_starts_at: Mapped[int | None] = mapped_column(BigInteger)  # unix seconds
    host_id: Mapped[str] = mapped_column(String(64))
    raised_at_ms: Mapped[int] = mapped_column(BigInteger, index=True)
    ended_at_ms: Mapped[int | None] = mapped_column(BigInteger)


class AlertDelivery(Base):
    """One message to one channel: that an alert was raised, or that it has ended."""

    __tablename__ = "ai_budget_alert_deliveries"
    __table_args__ = (
        Index("ix_ai_budget_alert_deliveries_state_next_at_ms", "state", "next_at_ms"),
    )
    alert_id: Mapped[str] = mapped_column(
        String(36), ForeignKey("ai_budget_alerts.id", ondelete="CASCADE"), primary_key=True
    )
    event: Mapped[str] = mapped_column(String(8), primary_key=True)  # raised | ended
    channel: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(12))  # pending | delivered | given_up
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    since_ms: Mapped[int] = mapped_column(BigInteger)
    next_at_ms: Mapped[int] = mapped_column(BigInteger)  # not to be tried before
    done_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str] = mapped_column(String(200), default="")  # of the last attempt
