"""Every index serves a query, and is used for it.

Each is listed with the function whose query it is for. That function is run, and the plan of what
it really executed is read, on both engines. PostgreSQL scans small tables whole, so it is told not
to; SQLite plans by rules.
"""

import re
from itertools import permutations

import pytest
from sqlalchemy import UniqueConstraint, event, insert, text

from db import alerts
from db.ledger import close_epoch
from db.ledger_corrections import _read_calls
from db.ledger_leases import open_tickets
from db.ledger_objects import forget_objects
from db.ledger_open import settle_open
from db.ledger_rollups import fold_day
from db.ledger_tags import fold_tags
from db.models import AlertDelivery, Base, Budget, Epoch, Lease, ProviderObject, Window
from db.raises import spans
from db.refusals import refusal_sums
from db.report_filters import Filters
from db.report_sums import sums
from db.repricing_read import Selection, page_query
from tests.factories import (
    NOW_MS,
    a_row,
    a_stored_key,
    a_uuid7,
    insert_rows,
    roll_up,
    stored,
)
from tests.factories_models import a_stored_row

DAY_MS = 86_400_000


def run(function, *arguments):
    """A function that wants a synchronous connection."""
    return lambda connection: connection.run_sync(lambda sync: function(sync, *arguments))


def report(by, where):
    """Sums of a day from whole hours or, where they have not the dimension, from cost rows."""
    times = Filters(NOW_MS - DAY_MS, NOW_MS, where)
    return lambda connection: sums(connection, by, times)


SERVES = {
    "ix_ai_budget_raises_budget_id": run(lambda c: spans(c, [1])),
    "ix_ai_budget_leases_epoch_id": run(lambda c: close_epoch(c, 1, unfinished_too=True)),
    "ix_ai_budget_leases_ticket": run(lambda c: open_tickets(c, 1)),
    "ix_ai_journal_offsets_epoch_id": run(lambda c: close_epoch(c, 1, unfinished_too=False)),
    "ix_ai_usage_costs_at": run(lambda c: c.execute(page_query(Selection(0, NOW_MS), None)).all()),
    "ix_ai_usage_costs_key_at": report(["route"], {"key": "prod"}),
    "ix_ai_usage_costs_adjusts": run(lambda c: _read_calls(c, [a_uuid7()])),
    "ix_ai_provider_objects_noted_at_ms": run(lambda c: forget_objects(c, NOW_MS - DAY_MS)),
    "ix_ai_provider_objects_batch_id": run(lambda c: forget_objects(c, NOW_MS)),
    "ix_ai_provider_objects_ready": run(
        lambda c: settle_open(c, None, lambda version: None, NOW_MS, "host")  # type: ignore[arg-type]
    ),
    "ix_ai_cost_analytics_hour": report(["hour"], {}),
    "ix_ai_refusals_hour": lambda connection: refusal_sums(
        connection, ["code"], NOW_MS - DAY_MS, NOW_MS, {}
    ),
    "ix_ai_cost_days_day": report(["team"], {}),
    "ix_ai_tag_hours_tag_hour": report(["tag:env", "hour"], {}),
    "ix_ai_tag_days_tag_day": report(["tag:env"], {}),
    "ix_ai_budget_alerts_raised_at_ms": run(lambda c: alerts.forget(c, NOW_MS - DAY_MS)),
    "ix_ai_budget_alert_deliveries_state_next_at_ms": run(
        lambda c: alerts.due(c, ["channel"], NOW_MS, 10)
    ),
}

DECLARED = {index.name: index for table in Base.metadata.tables.values() for index in table.indexes}


def test_every_index_is_listed_with_its_query():
    assert SERVES.keys() == DECLARED.keys()


def columns_of(table):
    """Of every index of a table, those of its keys included."""
    keys = [table.primary_key, *(c for c in table.constraints if isinstance(c, UniqueConstraint))]
    return [tuple(column.name for column in each.columns) for each in (*keys, *table.indexes)]


@pytest.mark.parametrize("table", Base.metadata.sorted_tables, ids=str)
def test_no_index_begins_another(table):
    for shorter, longer in permutations(columns_of(table), 2):
        assert longer[: len(shorter)] != shorter, f"{shorter} is the begin of {longer}"


ROWS = 300


def fill(connection):
    """Some calls, two hosts' leases, one of them with a ticket, objects, and alerts."""
    key = a_stored_key(connection, "prod")
    tags = {"env": "ci"}
    rows = [a_row(key, at_ms=NOW_MS - n * DAY_MS, tags=tags) for n in range(10)]
    insert_rows(connection, *rows)
    roll_up(connection, *rows)
    while fold_day(connection, NOW_MS + 2 * DAY_MS) is not None:
        pass
    fold_tags(connection, NOW_MS + 2 * DAY_MS)
    life = {"boot_id": "b", "state": "open", "opened_at_ms": 0, "seen_at_ms": 0}
    epochs = [stored(connection, Epoch, host_id=f"host-{n}", **life) for n in range(2)]
    budget_id = stored(
        connection, Budget, identity="organization/acme", scope_kind="organization", unit="usd",
        limit_value=1, period="day", source="config", created_at_ms=0,
    )  # fmt: skip
    for n in range(ROWS):
        window_id = stored(connection, Window, budget_id=budget_id, starts_at=n)
        values = {"window_id": window_id, "epoch_id": epochs[n % 2], "ticket": int(n == 7)}
        connection.execute(insert(Lease).values(values))
    objects = [
        {"provider": "openai", "account": "", "kind": "file", "object_id": f"file-{n}",
         "noted_at_ms": NOW_MS - 10 * DAY_MS if n < 3 else NOW_MS + n, "ready": n == 7}
        for n in range(ROWS)
    ]  # fmt: skip
    connection.execute(insert(ProviderObject), objects)
    for n in range(ROWS):  # each with its alert
        state = "pending" if n < 3 else "delivered"
        a_stored_row(connection, AlertDelivery, channel="channel", state=state, next_at_ms=n)
    if connection.dialect.name == "postgresql":
        connection.execute(text("ANALYZE"))


@pytest.fixture
async def ledger_in_use(write):
    await write(fill)


@pytest.mark.usefixtures("ledger_in_use")
async def test_queries_use_their_indexes(engine):
    """One database for all of them: what each of them changes is rolled back."""
    unused = []
    for name, execute in SERVES.items():
        async with engine.connect() as connection:
            seen = record_statements(engine, connection)
            await execute(connection)
            plans = [await plan(connection, *each) for each in seen()]
        used = await names_of(engine, name)
        if not any(re.search(rf"\b{each}\b", line) for each in used for line in plans):
            unused.append("\n".join((name, *plans)))
    assert not unused, "\n\n".join(unused)


def record_statements(engine, connection):
    seen = []

    def record(_connection, _cursor, statement, parameters, _context, many):
        if not many and statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE")):
            seen.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", record)

    def end():
        event.remove(engine.sync_engine, "before_cursor_execute", record)
        return seen

    return end


async def plan(connection, statement, parameters):
    explain = "EXPLAIN QUERY PLAN"
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        explain = "EXPLAIN"
    rows = await connection.exec_driver_sql(f"{explain} {statement}", parameters)
    return "\n".join(str(row[-1]) for row in rows)


async def names_of(engine, index):
    """Its own name, and on PostgreSQL those it has in partitions."""
    if engine.dialect.name != "postgresql":
        return [index]
    query = text(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = :index ::regclass"
    )
    async with engine.connect() as connection:
        return [index, *(await connection.execute(query, {"index": index})).scalars()]
