"""Budgets that are not enforced count the calls they would have refused.

A revision is history: it repeats the models as they were, and is never edited to follow them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0003"


def upgrade() -> None:
    column = sa.Column("spared", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("ai_budget_windows", column)


def downgrade() -> None:
    op.drop_column("ai_budget_windows", "spared")
