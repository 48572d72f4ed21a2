"""Who there is and what they may spend: hierarchy, keys, budgets, and the revision of it all."""

from typing import Any

from sqlalchemy import BigInteger, SmallInteger, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.model_base import Base, Json
from db.model_base import refers_to as _ref
from db.model_base import row_id as _id


class Declared:
    """Who made a row, and when it was deleted."""

    source: Mapped[str] = mapped_column(String(16))  # config|cli|api|header|template
    created_at_ms: Mapped[int] = mapped_column(BigInteger)
    tombstoned_at_ms: Mapped[int | None] = mapped_column(BigInteger)


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


class CustomerBudget(Base):
    """The budget of one end customer, made from a template: a budget on another scope that says
    so in its options. The customer's own limit and options are the template's, always."""

    __tablename__ = "ai_customer_budgets"
    __table_args__ = (UniqueConstraint("template_id", "customer"),)
    budget_id: Mapped[int] = _ref("ai_budgets.id", primary_key=True)
    template_id: Mapped[int] = _ref("ai_budgets.id")
    customer: Mapped[str] = mapped_column(String(128))  # "*": all beyond those tracked


class Revision(Base):
    """One row: bumped by every change of keys, budgets or prices, so that control notices."""

    __tablename__ = "ai_revisions"
    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(BigInteger)
