"""Daily rollups. They begin empty: control folds days that are over, one after the other.

A revision is history: it repeats the models as they were, and is never edited to follow them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DAYS, FOLDED = "ai_cost_days", "ai_folded_days"
SUMS = (
    "calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens",
    "reasoning_tokens", "cost_nano", "adjusted_nano", "provider_cost_nano", "drift_nano",
)  # fmt: skip
REFERENCES = {
    "key_id": "ai_api_keys.id",
    "organization_id": "ai_organizations.id",
    "team_id": "ai_teams.id",
    "project_id": "ai_projects.id",
    "user_id": "ai_users.id",
}
OPTIONAL = ("project_id", "user_id")


def upgrade() -> None:
    op.create_table(
        DAYS,
        sa.Column("shard", sa.String(512), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        *(sa.Column(name, BIG_ID, nullable=name in OPTIONAL) for name in REFERENCES),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        *(
            sa.ForeignKeyConstraint([name], [target], name=f"fk_{DAYS}_{name}", ondelete="RESTRICT")
            for name, target in REFERENCES.items()
        ),
        sa.PrimaryKeyConstraint("shard", name=f"pk_{DAYS}"),
    )
    op.create_index(f"ix_{DAYS}_day", DAYS, ["day"])
    op.create_table(
        FOLDED,
        sa.Column("day", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("folded_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", name=f"pk_{FOLDED}"),
    )


def downgrade() -> None:
    op.drop_table(FOLDED)
    op.drop_table(DAYS)
