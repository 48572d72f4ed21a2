"""Refused calls, counted by hour.

A revision is history: it repeats the models as they were, and is never edited to follow them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

TABLE = "ai_refusals"
NAMES = {
    "organization": 128,
    "team": 128,
    "key_name": 128,
    "provider": 64,
    "model": 256,
    "code": 64,
    "scope": 512,
}


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("shard", sa.String(64), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.String(length), nullable=False) for name, length in NAMES.items()),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("last_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shard", name=f"pk_{TABLE}"),
    )
    op.create_index(f"ix_{TABLE}_hour", TABLE, ["hour"])


def downgrade() -> None:
    op.drop_table(TABLE)
