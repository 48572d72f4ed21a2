"""Everything the first release stores: hierarchy, budgets, ledger, prices, cost rows, rollups.

A revision is history: it repeats the models as they were, and is never edited to follow them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ADJUSTMENTS = "adjusts IS NOT NULL"
SCOPES = {
    "organization": "ai_organizations",
    "team": "ai_teams",
    "project": "ai_projects",
    "user": "ai_users",
    "key": "ai_api_keys",
}


def upgrade() -> None:
    _create_hierarchy()
    _create_budgets()
    _create_ledger()
    _create_prices()
    _create_cost_rows()
    _create_rollups()
    op.execute("INSERT INTO ai_revisions (id, revision) VALUES (1, 1)")
    # Epoch 0 belongs to no host: leases of adjustments refer to it.
    op.execute(
        "INSERT INTO ai_control_epochs (id, host_id, boot_id, state, opened_at_ms, seen_at_ms)"
        " VALUES (0, '', '', 'open', 0, 0)"
    )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


TABLES = (
    "ai_organizations",
    "ai_teams",
    "ai_projects",
    "ai_users",
    "ai_api_keys",
    "ai_budgets",
    *(f"ai_{scope}_budgets" for scope in SCOPES),
    "ai_budget_windows",
    "ai_control_epochs",
    "ai_budget_leases",
    "ai_journal_offsets",
    "ai_charge_sets",
    "ai_charge_set_windows",
    "ai_price_versions",
    "ai_provider_model_costs",
    "ai_usage_costs",
    "ai_cost_analytics",
    "ai_revisions",
)


def _id() -> sa.Column[int]:
    return sa.Column("id", BIG_ID, autoincrement=True, nullable=False)


def _ref(name: str, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, BIG_ID, nullable=nullable)


def _big(name: str, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _int(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _small(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.SmallInteger(), nullable=False)


def _bool(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False)


def _json(name: str, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.JSON(), nullable=nullable)


def _fk(table: str, column: str, target: str, rule: str = "RESTRICT") -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [target], name=f"fk_{table}_{column}", ondelete=rule)


def _unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=f"uq_{table}_{'_'.join(columns)}")


def _create_hierarchy() -> None:
    op.create_table(
        "ai_organizations",
        _id(),
        _text("name", 128),
        _text("source", 16),
        _big("created_at_ms"),
        _big("tombstoned_at_ms", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_ai_organizations"),
        _unique("ai_organizations", "name"),
    )
    op.create_table(
        "ai_teams",
        _id(),
        _ref("organization_id"),
        _text("name", 128),
        _text("source", 16),
        _big("created_at_ms"),
        _big("tombstoned_at_ms", nullable=True),
        _fk("ai_teams", "organization_id", "ai_organizations.id"),
        sa.PrimaryKeyConstraint("id", name="pk_ai_teams"),
        _unique("ai_teams", "organization_id", "name"),
    )
    op.create_table(
        "ai_projects",
        _id(),
        _ref("team_id"),
        _text("name", 128),
        _text("source", 16),
        _big("created_at_ms"),
        _big("tombstoned_at_ms", nullable=True),
        _fk("ai_projects", "team_id", "ai_teams.id"),
        sa.PrimaryKeyConstraint("id", name="pk_ai_projects"),
        _unique("ai_projects", "team_id", "name"),
    )
    op.create_table(
        "ai_users",
        _id(),
        _ref("organization_id"),
        _text("name", 128),
        _text("email", 254),
        _text("source", 16),
        _big("created_at_ms"),
        _big("tombstoned_at_ms", nullable=True),
        _fk("ai_users", "organization_id", "ai_organizations.id"),
        sa.PrimaryKeyConstraint("id", name="pk_ai_users"),
        _unique("ai_users", "organization_id", "name"),
    )
    op.create_table(
        "ai_api_keys",
        _id(),
        _text("name", 128),
        _text("sha256", 64),
        _text("hint", 16),
        _ref("team_id"),
        _ref("project_id", nullable=True),
        _ref("user_id", nullable=True),
        _json("models"),
        _json("providers"),
        _small("refusal_status"),
        _big("expires_at_ms", nullable=True),
        _big("revoked_at_ms", nullable=True),
        _text("source", 16),
        _big("created_at_ms"),
        _fk("ai_api_keys", "team_id", "ai_teams.id"),
        _fk("ai_api_keys", "project_id", "ai_projects.id"),
        _fk("ai_api_keys", "user_id", "ai_users.id"),
        sa.PrimaryKeyConstraint("id", name="pk_ai_api_keys"),
        _unique("ai_api_keys", "name"),
        _unique("ai_api_keys", "sha256"),
    )


def _create_budgets() -> None:
    op.create_table(
        "ai_budgets",
        _id(),
        _text("identity", 512),
        _text("scope_kind", 16),
        _text("unit", 16),
        _big("limit_value"),
        _text("period", 16),
        _text("timezone", 64),
        _small("week_start"),
        _small("month_day"),
        _json("models"),
        _json("providers"),
        _json("options"),
        _text("source", 16),
        _big("created_at_ms"),
        _big("tombstoned_at_ms", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_ai_budgets"),
        _unique("ai_budgets", "identity"),
    )
    for scope, owners in SCOPES.items():
        table = f"ai_{scope}_budgets"
        op.create_table(
            table,
            _ref("budget_id"),
            _ref(f"{scope}_id"),
            _fk(table, "budget_id", "ai_budgets.id"),
            _fk(table, f"{scope}_id", f"{owners}.id"),
            sa.PrimaryKeyConstraint("budget_id", name=f"pk_{table}"),
        )


def _create_ledger() -> None:
    op.create_table(
        "ai_budget_windows",
        _id(),
        _ref("budget_id"),
        _big("starts_at"),
        _big("committed"),
        _big("overage"),
        _big("extra"),
        _big("lowered_from"),
        _fk("ai_budget_windows", "budget_id", "ai_budgets.id"),
        sa.CheckConstraint("committed >= 0", name=op.f("ck_ai_budget_windows_committed")),
        sa.CheckConstraint("overage >= 0", name=op.f("ck_ai_budget_windows_overage")),
        sa.PrimaryKeyConstraint("id", name="pk_ai_budget_windows"),
        _unique("ai_budget_windows", "budget_id", "starts_at"),
    )
    op.create_table(
        "ai_control_epochs",
        _id(),
        _text("host_id", 64),
        _text("boot_id", 64),
        _text("state", 8),
        _big("opened_at_ms"),
        _big("seen_at_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_ai_control_epochs"),
    )
    op.create_table(
        "ai_budget_leases",
        _ref("window_id"),
        _ref("epoch_id"),
        _big("granted"),
        _big("spent"),
        _big("wanted"),
        _big("ticket"),
        _fk("ai_budget_leases", "window_id", "ai_budget_windows.id"),
        _fk("ai_budget_leases", "epoch_id", "ai_control_epochs.id"),
        sa.CheckConstraint("spent <= granted", name=op.f("ck_ai_budget_leases_spent")),
        sa.PrimaryKeyConstraint("window_id", "epoch_id", name="pk_ai_budget_leases"),
    )
    op.create_index("ix_ai_budget_leases_epoch_id", "ai_budget_leases", ["epoch_id"])
    op.create_table(
        "ai_journal_offsets",
        sa.Column("journal_id", sa.LargeBinary(16), nullable=False),
        _ref("epoch_id"),
        _int("segment"),
        _big("offset"),
        _bool("finished"),
        _bool("truncated"),
        _fk("ai_journal_offsets", "epoch_id", "ai_control_epochs.id"),
        sa.PrimaryKeyConstraint("journal_id", name="pk_ai_journal_offsets"),
    )
    op.create_index("ix_ai_journal_offsets_epoch_id", "ai_journal_offsets", ["epoch_id"])
    op.create_table(
        "ai_charge_sets",
        _id(),
        _text("digest", 64),
        sa.PrimaryKeyConstraint("id", name="pk_ai_charge_sets"),
        _unique("ai_charge_sets", "digest"),
    )
    op.create_table(
        "ai_charge_set_windows",
        _ref("charge_set_id"),
        _ref("window_id"),
        _fk("ai_charge_set_windows", "charge_set_id", "ai_charge_sets.id", "CASCADE"),
        _fk("ai_charge_set_windows", "window_id", "ai_budget_windows.id"),
        sa.PrimaryKeyConstraint("charge_set_id", "window_id", name="pk_ai_charge_set_windows"),
    )
    op.create_index("ix_ai_charge_set_windows_window_id", "ai_charge_set_windows", ["window_id"])


def _create_prices() -> None:
    op.create_table(
        "ai_price_versions",
        _id(),
        _text("version", 96),
        _text("table_id", 96),
        _text("sha256", 64),
        _text("source", 128),
        _text("effective_from", 32),
        _json("overlays"),
        _big("created_at_ms"),
        sa.PrimaryKeyConstraint("id", name="pk_ai_price_versions"),
        _unique("ai_price_versions", "version"),
    )
    op.create_table(
        "ai_provider_model_costs",
        _id(),
        _ref("price_version_id"),
        _text("model", 256),
        _json("entry"),
        _fk("ai_provider_model_costs", "price_version_id", "ai_price_versions.id"),
        sa.PrimaryKeyConstraint("id", name="pk_ai_provider_model_costs"),
        _unique("ai_provider_model_costs", "price_version_id", "model"),
    )


def _create_cost_rows() -> None:
    op.create_table(
        "ai_usage_costs",
        sa.Column("call_id", sa.LargeBinary(16), nullable=False),
        _big("at_ms"),
        _ref("key_id"),
        _ref("organization_id"),
        _ref("team_id"),
        _ref("project_id", nullable=True),
        _ref("user_id", nullable=True),
        _ref("charge_set_id", nullable=True),
        sa.Column("adjusts", sa.LargeBinary(16), nullable=True),
        _text("provider", 64),
        _text("model", 256),
        _text("route", 64),
        _bool("stream"),
        _small("http_status"),
        _text("ending", 16),
        _text("usage_source", 12),
        _big("input_tokens"),
        _big("cache_read_tokens"),
        _big("cache_write_tokens"),
        _big("output_tokens"),
        _big("reasoning_tokens"),
        _json("usage", nullable=True),
        _ref("price_id", nullable=True),
        _big("cost_nano"),
        _json("cost_items", nullable=True),
        _big("hold_nano"),
        _big("charged_tokens"),
        _small("charged_requests"),
        _int("duration_ms"),
        _int("first_byte_ms"),
        _small("client_retry"),
        _small("flags"),
        _text("error", 64),
        _text("response_id", 128),
        _json("tags", nullable=True),
        _fk("ai_usage_costs", "key_id", "ai_api_keys.id"),
        _fk("ai_usage_costs", "organization_id", "ai_organizations.id"),
        _fk("ai_usage_costs", "team_id", "ai_teams.id"),
        _fk("ai_usage_costs", "project_id", "ai_projects.id"),
        _fk("ai_usage_costs", "user_id", "ai_users.id"),
        _fk("ai_usage_costs", "charge_set_id", "ai_charge_sets.id"),
        _fk("ai_usage_costs", "adjusts", "ai_usage_costs.call_id"),
        _fk("ai_usage_costs", "price_id", "ai_provider_model_costs.id"),
        sa.PrimaryKeyConstraint("call_id", name="pk_ai_usage_costs"),
    )
    op.create_index(
        "ix_ai_usage_costs_adjusts",
        "ai_usage_costs",
        ["adjusts"],
        sqlite_where=sa.text(ADJUSTMENTS),
        postgresql_where=sa.text(ADJUSTMENTS),
    )
    op.create_index("ix_ai_usage_costs_at", "ai_usage_costs", ["at_ms"])
    op.create_index("ix_ai_usage_costs_key_at", "ai_usage_costs", ["key_id", "at_ms"])


def _create_rollups() -> None:
    op.create_table(
        "ai_cost_analytics",
        _text("shard", 512),
        _big("hour"),
        _text("host_id", 64),
        _ref("key_id"),
        _ref("organization_id"),
        _ref("team_id"),
        _ref("project_id", nullable=True),
        _ref("user_id", nullable=True),
        _text("provider", 64),
        _text("model", 256),
        _big("calls"),
        _big("input_tokens"),
        _big("cache_read_tokens"),
        _big("cache_write_tokens"),
        _big("output_tokens"),
        _big("reasoning_tokens"),
        _big("cost_nano"),
        _fk("ai_cost_analytics", "key_id", "ai_api_keys.id"),
        _fk("ai_cost_analytics", "organization_id", "ai_organizations.id"),
        _fk("ai_cost_analytics", "team_id", "ai_teams.id"),
        _fk("ai_cost_analytics", "project_id", "ai_projects.id"),
        _fk("ai_cost_analytics", "user_id", "ai_users.id"),
        sa.PrimaryKeyConstraint("shard", name="pk_ai_cost_analytics"),
    )
    op.create_index("ix_ai_cost_analytics_hour", "ai_cost_analytics", ["hour"])
    op.create_table(
        "ai_revisions",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        _big("revision"),
        sa.PrimaryKeyConstraint("id", name="pk_ai_revisions"),
    )
