"""Rollups by tag: of calls before a moment that moves on, for organization, team and project."""

from sqlalchemy import BigInteger, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from db.model_base import Base, BigId
from db.model_base import refers_to as _ref


class Tagged:
    """Of calls of one tag and value: whose, and how much; sums as cost rollups have them."""

    # time:team:project:value:tag, because unique keys do not hold over NULLs
    shard: Mapped[str] = mapped_column(String(512), primary_key=True)
    tag: Mapped[str] = mapped_column(String(128))
    value: Mapped[str] = mapped_column(String(128))
    organization_id: Mapped[int] = _ref("ai_organizations.id")
    team_id: Mapped[int] = _ref("ai_teams.id")
    project_id: Mapped[int | None] = _ref("ai_projects.id")
    calls: Mapped[int] = mapped_column(BigInteger)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    cache_read_tokens: Mapped[int] = mapped_column(BigInteger)
    cache_write_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    cost_nano: Mapped[int] = mapped_column(BigInteger)
    adjusted_nano: Mapped[int] = mapped_column(BigInteger)
    provider_cost_nano: Mapped[int] = mapped_column(BigInteger)
    drift_nano: Mapped[int] = mapped_column(BigInteger)


class TagHour(Tagged, Base):
    __tablename__ = "ai_tag_hours"
    __table_args__ = (Index("ix_ai_tag_hours_tag_hour", "tag", "hour"),)
    hour: Mapped[int] = mapped_column(BigInteger)  # unix hours


class TagDay(Tagged, Base):
    __tablename__ = "ai_tag_days"
    __table_args__ = (Index("ix_ai_tag_days_tag_day", "tag", "day"),)
    day: Mapped[int] = mapped_column(BigInteger)  # unix days


class TagName(Base):
    """A tag that there was when calls were added up. A wide one has too many values for that:
    reports read the calls."""

    __tablename__ = "ai_tag_names"
    tag: Mapped[str] = mapped_column(String(128), primary_key=True)
    wide: Mapped[bool] = mapped_column(default=False)


class TagFold(Base):
    """Which calls are added up: those of [since, until). There is one row, of id 1, or none."""

    __tablename__ = "ai_tag_folds"
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    since_ms: Mapped[int] = mapped_column(BigInteger)  # calls before it were removed too early
    until_ms: Mapped[int] = mapped_column(BigInteger)
