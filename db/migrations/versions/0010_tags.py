"""Rollups by tag. They begin empty: control adds up calls in the order of their time.

A revision is history: it repeats the models as they were, and is never edited to follow them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAMES, FOLDS = "ai_tag_names", "ai_tag_folds"
UNITS = {"ai_tag_hours": "hour", "ai_tag_days": "day"}
SUMS = (
    "calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens",
    "reasoning_tokens", "cost_nano", "adjusted_nano", "provider_cost_nano", "drift_nano",
)  # fmt: skip
REFERENCES = {
    "organization_id": "ai_organizations.id",
    "team_id": "ai_teams.id",
    "project_id": "ai_projects.id",
}


def upgrade() -> None:
    for table, unit in UNITS.items():
        op.create_table(
            table,
            sa.Column("shard", sa.String(512), nullable=False),
            sa.Column("tag", sa.String(128), nullable=False),
            sa.Column("value", sa.String(128), nullable=False),
            *(sa.Column(name, BIG_ID, nullable=name == "project_id") for name in REFERENCES),
            *(sa.Column(name, sa.BigInteger(), nullable=False) for name in (*SUMS, unit)),
            *(
                sa.ForeignKeyConstraint(
                    [name], [target], name=f"fk_{table}_{name}", ondelete="RESTRICT"
                )
                for name, target in REFERENCES.items()
            ),
            sa.PrimaryKeyConstraint("shard", name=f"pk_{table}"),
        )
        op.create_index(f"ix_{table}_tag_{unit}", table, ["tag", unit])
    op.create_table(
        NAMES,
        sa.Column("tag", sa.String(128), nullable=False),
        sa.Column("wide", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("tag", name=f"pk_{NAMES}"),
    )
    op.create_table(
        FOLDS,
        sa.Column("id", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{FOLDS}"),
    )


def downgrade() -> None:
    for table in (FOLDS, NAMES, *UNITS):
        op.drop_table(table)
