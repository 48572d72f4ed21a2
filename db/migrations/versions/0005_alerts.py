"""Alerts: thresholds of budgets, what was told, and to whom.

A revision is history: it repeats the models as they were, and is never edited to follow them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
CONFIGS = "ai_budget_alert_configs"
ALERTS = "ai_budget_alerts"
DELIVERIES = "ai_budget_alert_deliveries"


def upgrade() -> None:
    op.create_table(
        CONFIGS,
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("budget_id", BIG_ID, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("threshold", sa.BigInteger(), nullable=False),
        _fk(CONFIGS, "budget_id", "ai_budgets.id", "RESTRICT"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{CONFIGS}"),
        sa.UniqueConstraint(
            "budget_id", "kind", "threshold", name=f"uq_{CONFIGS}_budget_id_kind_threshold"
        ),
    )
    op.create_table(
        ALERTS,
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("identity", sa.String(256), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("severity", sa.String(8), nullable=False),
        sa.Column("scope", sa.String(512), nullable=False),
        sa.Column("summary", sa.String(1024), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("budget_id", BIG_ID, nullable=True),
        sa.Column("window_starts_at", sa.BigInteger(), nullable=True),
        sa.Column("host_id", sa.String(64), nullable=False),
        sa.Column("raised_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        _fk(ALERTS, "budget_id", "ai_budgets.id", "RESTRICT"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{ALERTS}"),
        sa.UniqueConstraint("identity", name=f"uq_{ALERTS}_identity"),
    )
    op.create_index(f"ix_{ALERTS}_raised_at_ms", ALERTS, ["raised_at_ms"])
    op.create_table(
        DELIVERIES,
        sa.Column("alert_id", sa.String(36), nullable=False),
        sa.Column("event", sa.String(8), nullable=False),
        sa.Column("channel", sa.String(64), nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("next_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("done_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.String(200), nullable=False),
        _fk(DELIVERIES, "alert_id", f"{ALERTS}.id", "CASCADE"),
        sa.PrimaryKeyConstraint("alert_id", "event", "channel", name=f"pk_{DELIVERIES}"),
    )
    op.create_index(f"ix_{DELIVERIES}_state_next_at_ms", DELIVERIES, ["state", "next_at_ms"])


def downgrade() -> None:
    for table in (DELIVERIES, ALERTS, CONFIGS):
        op.drop_table(table)


def _fk(table: str, column: str, target: str, ondelete: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}"
    return sa.ForeignKeyConstraint([column], [target], name=name, ondelete=ondelete)
