"""Temporary raises of limits; budgets that are not enforced count what they would have refused.

A revision is history: it repeats the models as they were, and is never edited to follow them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TABLE = "ai_budget_raises"


def upgrade() -> None:
    column = sa.Column("spared", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("ai_budget_windows", column)
    op.create_table(
        TABLE,
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("budget_id", BIG_ID, nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.String(128), nullable=False),
        sa.Column("reason", sa.String(512), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["budget_id"], ["ai_budgets.id"], name=f"fk_{TABLE}_budget_id", ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=f"pk_{TABLE}"),
    )
    op.create_index(f"ix_{TABLE}_budget_id", TABLE, ["budget_id"])


def downgrade() -> None:
    op.drop_table(TABLE)
    op.drop_column("ai_budget_windows", "spared")
