"""Every table takes a row, refers only to rows that are there, and lets go as it says."""

from collections.abc import Iterator
from functools import partial

import pytest
from sqlalchemy import Column, Connection, Table, delete, func, select
from sqlalchemy.exc import IntegrityError

from db import schema
from db.models import AlertDelivery, Base, ChargeSet, ChargeSetWindow, Window
from db.schema_live import live_tables
from db.statements import table_of
from tests.factories import a_uuid7
from tests.factories_models import MODELS, USUAL, a_stored_row, the_reference

REFERENCES = [
    column
    for table in Base.metadata.sorted_tables
    for column in table.columns
    if column.foreign_keys
]
# A child that means nothing without its parent goes with it. All others keep theirs.
CASCADING = {
    table_of(ChargeSetWindow).c.charge_set_id,
    table_of(AlertDelivery).c.alert_id,
}


def test_every_mapped_class_has_a_table_of_its_own():
    assert MODELS.keys() == Base.metadata.tables.keys()
    assert USUAL.keys() <= set(MODELS.values())


async def test_every_model_has_a_factory(engine, write):
    for model in MODELS.values():
        row = await write(a_stored_row, model)
        table = table_of(model)
        key = [column == row[column.name] for column in table.primary_key]
        async with engine.connect() as connection:
            found = (await connection.execute(select(table).where(*key))).mappings().one()
        assert dict(found) == row


# --- references ----------------------------------------------------------------------------


@pytest.mark.parametrize("column", REFERENCES, ids=str)
def test_every_reference_states_what_deleting_its_parent_does(column):
    wanted = "CASCADE" if column in CASCADING else "RESTRICT"
    assert the_reference(column).ondelete == wanted


async def test_orphans_are_impossible(engine):
    """All references in one database, each in a savepoint of its own."""
    async with engine.connect() as connection:
        assert await connection.run_sync(lambda c: list(_problems(c))) == []


def _problems(connection: Connection) -> Iterator[str]:
    for column in REFERENCES:
        model = MODELS[column.table.name]
        nobody = {bytes: a_uuid7(), str: "nobody", int: 987_654_321}[column.type.python_type]
        orphan = partial(a_stored_row, connection, model, **{column.name: nobody})
        if not _is_refused(connection, orphan):
            yield f"{column} takes what is not there"
        parent_column = the_reference(column).column
        parent = a_stored_row(connection, MODELS[parent_column.table.name])
        value = parent[parent_column.name]
        a_stored_row(connection, model, **{column.name: value})
        statement = delete(parent_column.table).where(parent_column == value)
        refused = _is_refused(connection, partial(connection.execute, statement))
        if column in CASCADING:
            if refused or _count(connection, column, value):
                yield f"{column} stays without its parent"
        elif not refused:
            yield f"{column} loses its parent"


def _is_refused(connection, work) -> bool:
    try:
        with connection.begin_nested():
            work()
    except IntegrityError:
        return True
    return False


def _count(connection: Connection, column: Column, value: object) -> int:
    rows = select(func.count()).select_from(column.table).where(column == value)
    return int(connection.execute(rows).scalar_one())


async def test_a_set_of_windows_takes_its_members_with_it_and_leaves_the_windows(write):
    def check(connection):
        row = a_stored_row(connection, ChargeSetWindow)
        connection.execute(delete(ChargeSet).where(ChargeSet.id == row["charge_set_id"]))
        assert _count(connection, table_of(Window).c.id, row["window_id"]) == 1

    await write(check)


# --- migrations with data ------------------------------------------------------------------


async def _counts(engine) -> dict[str, int]:
    async with engine.connect() as connection:
        tables = Base.metadata.sorted_tables
        return {table.name: await connection.run_sync(_rows, table) for table in tables}


def _rows(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


async def test_migrations_run_down_and_up_again_with_data_in_every_table(engine, write):
    """One revision at a time. Rows of tables that the first revision has are kept all the way."""
    for model in MODELS.values():
        await write(a_stored_row, model)
    before = await _counts(engine)
    assert all(before.values())
    for revision in reversed(schema.REVISIONS[:-1]):
        await schema.downgrade(engine, revision)
        assert await schema.current(engine) == revision
    async with engine.connect() as connection:
        kept = before.keys() & (await connection.run_sync(live_tables)).keys()
    for revision in schema.REVISIONS[1:]:
        await schema.upgrade(engine, revision)
    await schema.check(engine)
    after = await _counts(engine)
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    await schema.downgrade(engine, "base")
    await schema.upgrade(engine)
    await schema.check(engine)
