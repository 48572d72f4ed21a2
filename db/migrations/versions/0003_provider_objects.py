"""Files, batches and responses at providers, whose usage comes later than the call.

A revision is history: it repeats the models as they were, and is never edited to follow them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TABLE = "ai_provider_objects"
IDENTITY = ("provider", "account", "kind", "object_id")


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("account", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("object_id", sa.String(128), nullable=False),
        sa.Column("noted_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("requests", sa.JSON(), nullable=True),
        sa.Column("batch_id", BIG_ID, nullable=True),
        sa.Column("estimate", sa.JSON(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("call_id", sa.LargeBinary(16), nullable=True),
        sa.Column("adjustment_id", sa.LargeBinary(16), nullable=True),
        sa.Column("ready", sa.Boolean(), nullable=False),
        _fk("batch_id", f"{TABLE}.id"),
        _fk("call_id", "ai_usage_costs.call_id"),
        _fk("adjustment_id", "ai_usage_costs.call_id"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{TABLE}"),
        sa.UniqueConstraint(*IDENTITY, name=f"uq_{TABLE}_{'_'.join(IDENTITY)}"),
        sa.UniqueConstraint("call_id", name=f"uq_{TABLE}_call_id"),
        sa.UniqueConstraint("adjustment_id", name=f"uq_{TABLE}_adjustment_id"),
    )
    for column in ("noted_at_ms", "ready"):
        op.create_index(f"ix_{TABLE}_{column}", TABLE, [column])


def downgrade() -> None:
    op.drop_table(TABLE)


def _fk(column: str, target: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{TABLE}_{column}"
    return sa.ForeignKeyConstraint([column], [target], name=name, ondelete="RESTRICT")
