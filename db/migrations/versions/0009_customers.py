"""Budgets of end customers, made from templates.

A revision is history: it repeats the models as they were, and is never edited to follow them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TABLE = "ai_customer_budgets"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("budget_id", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("template_id", BIG_ID, nullable=False),
        sa.Column("customer", sa.String(128), nullable=False),
        *(
            sa.ForeignKeyConstraint(
                [name], ["ai_budgets.id"], name=f"fk_{TABLE}_{name}", ondelete="RESTRICT"
            )
            for name in ("budget_id", "template_id")
        ),
        sa.PrimaryKeyConstraint("budget_id", name=f"pk_{TABLE}"),
        sa.UniqueConstraint("template_id", "customer", name=f"uq_{TABLE}_template_id_customer"),
    )


def downgrade() -> None:
    op.drop_table(TABLE)
