"""Repricing and reconciliation: adjustments that name their prices, providers' own figures.

A revision is history: it repeats the models as they were, and is never edited to follow them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OF_ROWS = ("provider_cost_nano", "drift_nano")
OF_ROLLUPS = ("adjusted_nano", "provider_cost_nano", "drift_nano")

# Corrections there are already: each is taken to follow on its call's own price.
KNOWN_ADJUSTMENTS = (
    "INSERT INTO ai_cost_adjustments (call_id, from_price_id, to_price_id)"
    " SELECT adjustment.call_id, original.price_id, adjustment.price_id"
    " FROM ai_usage_costs AS adjustment"
    " JOIN ai_usage_costs AS original ON original.call_id = adjustment.adjusts"
)


def upgrade() -> None:
    for name in OF_ROWS:
        op.add_column("ai_usage_costs", sa.Column(name, sa.BigInteger(), nullable=True))
    for name in OF_ROLLUPS:
        column = sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
        op.add_column("ai_cost_analytics", column)
    _create_repricings()
    _create_adjustments()
    _create_validations()
    op.execute(KNOWN_ADJUSTMENTS)


def downgrade() -> None:
    for table in ("ai_cost_validations", "ai_cost_adjustments", "ai_repricings"):
        op.drop_table(table)
    for name in OF_ROLLUPS:
        op.drop_column("ai_cost_analytics", name)
    for name in OF_ROWS:
        op.drop_column("ai_usage_costs", name)


def _create_repricings() -> None:
    op.create_table(
        "ai_repricings",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("price_version_id", BIG_ID, nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=True),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.Column("restated", sa.Boolean(), nullable=False),
        sa.Column("asked", sa.JSON(), nullable=False),
        sa.Column("started_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("read_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("read_call_id", sa.LargeBinary(16), nullable=True),
        sa.Column("calls_adjusted", sa.BigInteger(), nullable=False),
        sa.Column("adjusted_nano", sa.BigInteger(), nullable=False),
        _fk("ai_repricings", "price_version_id", "ai_price_versions.id"),
        sa.PrimaryKeyConstraint("id", name="pk_ai_repricings"),
    )


def _create_adjustments() -> None:
    op.create_table(
        "ai_cost_adjustments",
        sa.Column("call_id", sa.LargeBinary(16), nullable=False),
        sa.Column("repricing_id", BIG_ID, nullable=True),
        sa.Column("from_price_id", BIG_ID, nullable=True),
        sa.Column("to_price_id", BIG_ID, nullable=True),
        _fk("ai_cost_adjustments", "call_id", "ai_usage_costs.call_id"),
        _fk("ai_cost_adjustments", "repricing_id", "ai_repricings.id"),
        _fk("ai_cost_adjustments", "from_price_id", "ai_provider_model_costs.id"),
        _fk("ai_cost_adjustments", "to_price_id", "ai_provider_model_costs.id"),
        sa.PrimaryKeyConstraint("call_id", name="pk_ai_cost_adjustments"),
    )


def _create_validations() -> None:
    op.create_table(
        "ai_cost_validations",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("validated_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("file_sha256", sa.String(64), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("ledger_nano", sa.BigInteger(), nullable=False),
        sa.Column("provider_nano", sa.BigInteger(), nullable=False),
        sa.Column("threshold_percent", sa.String(16), nullable=False),
        sa.Column("exceeds", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ai_cost_validations"),
        sa.UniqueConstraint(
            "file_sha256",
            "source",
            "day",
            "model",
            name="uq_ai_cost_validations_file_sha256_source_day_model",
        ),
    )


def _fk(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}"
    return sa.ForeignKeyConstraint([column], [target], name=name, ondelete="RESTRICT")
