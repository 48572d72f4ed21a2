"""Cost rows can be removed: what stays of them and, on PostgreSQL, partitions by month.

Tickets, and the files of a batch, are found by indexes; one that no query used goes.

On PostgreSQL nothing is copied or scanned under a lock: the table becomes the partition of
everything before the next month. That all its rows are, a constraint says which was validated
beforehand, beside reads and writes (`db.migrations.online`). Down again copies the rows.

A revision is history: it repeats the models as they were, and is never edited to follow them.
"""

import sqlalchemy as sa
from alembic import op

from db.migrations import online

revision = "0004"
down_revision = "0003"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
PARTIAL = (
    ("ai_budget_leases", "ticket", "ticket > 0"),
    ("ai_provider_objects", "batch_id", "batch_id IS NOT NULL"),
)
UNITS = ("usd", "tokens", "requests")
SUMS = (*UNITS, *(f"{kind}_{unit}" for kind in ("flagged", "raised") for unit in UNITS))
OF_REPRICINGS = ("pruned_calls", "pruned_nano")

COSTS = "ai_usage_costs"
BEFORE, OTHERS = f"{COSTS}_before", f"{COSTS}_others"
INDEXES = {
    "ix_ai_usage_costs_adjusts": "(adjusts) WHERE adjusts IS NOT NULL",
    "ix_ai_usage_costs_at": "(at_ms)",
    "ix_ai_usage_costs_key_at": "(key_id, at_ms)",
}
REFERENCES = {
    "key_id": "ai_api_keys (id)",
    "organization_id": "ai_organizations (id)",
    "team_id": "ai_teams (id)",
    "project_id": "ai_projects (id)",
    "user_id": "ai_users (id)",
    "charge_set_id": "ai_charge_sets (id)",
    "price_id": "ai_provider_model_costs (id)",
}
TO_COSTS = (
    (COSTS, "adjusts"),
    ("ai_cost_adjustments", "call_id"),
    ("ai_provider_objects", "call_id"),
    ("ai_provider_objects", "adjustment_id"),
)


def upgrade() -> None:
    for table, column, condition in PARTIAL:
        where = sa.text(condition)
        name = f"ix_{table}_{column}"
        op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)
    op.drop_index("ix_ai_charge_set_windows_window_id", "ai_charge_set_windows")
    for name in OF_REPRICINGS:
        count = sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
        op.add_column("ai_repricings", count)
    _create_retentions()
    if op.get_bind().dialect.name == "postgresql":
        _partition()


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        _unite()
    op.drop_table("ai_retentions")
    op.drop_table("ai_pruned_charges")
    for name in OF_REPRICINGS:
        op.drop_column("ai_repricings", name)
    op.create_index("ix_ai_charge_set_windows_window_id", "ai_charge_set_windows", ["window_id"])
    for table, column, _ in PARTIAL:
        op.drop_index(f"ix_{table}_{column}", table)


def _create_retentions() -> None:
    op.create_table(
        "ai_pruned_charges",
        sa.Column("charge_set_id", BIG_ID, nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        sa.ForeignKeyConstraint(
            ["charge_set_id"],
            ["ai_charge_sets.id"],
            name="fk_ai_pruned_charges_charge_set_id",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("charge_set_id", name="pk_ai_pruned_charges"),
    )
    op.create_table(
        "ai_retentions",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("horizon_ms", sa.BigInteger(), nullable=False),
        sa.Column("begun_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ai_retentions"),
    )


# --- partitions ----------------------------------------------------------------------------


def _partition() -> None:
    bind = op.get_bind()
    bound = online.bound_of_check(bind) or online.add_check(bind)
    _drop_references()
    op.execute(f"ALTER TABLE {COSTS} RENAME TO {BEFORE}")
    for name in (f"pk_{COSTS}", *INDEXES):
        op.execute(f"ALTER INDEX {name} RENAME TO {name}_before")
    op.execute(
        f"CREATE TABLE {COSTS} (LIKE {BEFORE} INCLUDING DEFAULTS) PARTITION BY RANGE (call_id)"
    )
    _add_keys()
    # What the table has already, keys and indexes, becomes a part of what is made here.
    op.execute(
        f"ALTER TABLE {COSTS} ATTACH PARTITION {BEFORE}"
        rf" FOR VALUES FROM (MINVALUE) TO ('\x{bound}')"
    )
    _add_indexes()
    op.execute(f"CREATE TABLE {OTHERS} PARTITION OF {COSTS} DEFAULT")
    for first, following, name in online.months_from(bound):
        op.execute(
            f"CREATE TABLE {COSTS}_{name} PARTITION OF {COSTS}"
            rf" FOR VALUES FROM ('\x{first}') TO ('\x{following}')"
        )
    _add_references()
    op.execute(f"ALTER TABLE {BEFORE} DROP CONSTRAINT {online.CHECK}")


def _unite() -> None:
    whole = f"{COSTS}_whole"
    _drop_references()
    op.execute(f"CREATE TABLE {whole} (LIKE {COSTS} INCLUDING DEFAULTS)")
    op.execute(f"INSERT INTO {whole} SELECT * FROM {COSTS}")  # noqa: S608
    op.execute(f"DROP TABLE {COSTS}")
    op.execute(f"ALTER TABLE {whole} RENAME TO {COSTS}")
    _add_keys()
    _add_indexes()
    _add_references()


def _add_keys() -> None:
    op.execute(f"ALTER TABLE {COSTS} ADD CONSTRAINT pk_{COSTS} PRIMARY KEY (call_id)")
    for column, target in REFERENCES.items():
        _add_reference(COSTS, column, target)


def _add_indexes() -> None:
    for name, columns in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON {COSTS} {columns}")


def _add_references() -> None:
    for table, column in TO_COSTS:
        _add_reference(table, column, f"{COSTS} (call_id)")


def _drop_references() -> None:
    for table, column in TO_COSTS:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT fk_{table}_{column}")


def _add_reference(table: str, column: str, target: str) -> None:
    op.execute(
        f"ALTER TABLE {table} ADD CONSTRAINT fk_{table}_{column}"
        f" FOREIGN KEY ({column}) REFERENCES {target} ON DELETE RESTRICT"
    )
