"""Migrations up and down, and the live schema against the models."""

import asyncio
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, func, inspect, select, text

from db import schema
from db.engine import open_engine
from db.errors import DatabaseUnusable, SchemaMismatch
from db.models import Base, CostAdjustment, CostAnalytics, Epoch, Revision, UsageCost
from db.schema_diff import differences
from db.schema_live import live_tables, partitions
from tests.factories import a_row, a_stored_key, a_stored_price, insert_rows, roll_up


@pytest.fixture
async def empty(empty_url):
    engine = open_engine(empty_url)
    yield engine
    await engine.dispose()


async def execute(engine, *statements):
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def problems_of(engine):
    with pytest.raises(SchemaMismatch) as caught:
        await schema.check(engine)
    return caught.value


# --- migrations ----------------------------------------------------------------------------


async def test_ensure_migrates_an_empty_database_and_is_repeatable(empty):
    assert await schema.current(empty) is None
    await schema.ensure(empty)
    await schema.ensure(empty)
    assert await schema.current(empty) == schema.HEAD


async def test_first_revision_makes_epoch_0_and_the_revision_row(engine):
    async with engine.connect() as connection:
        assert (await connection.execute(select(Epoch.id, Epoch.state))).all() == [(0, "open")]
        assert (await connection.execute(select(Revision.revision))).all() == [(1,)]


async def test_ids_start_behind_epoch_0(engine):
    values = "('h', 'b', 'open', 1, 1)"
    columns = "(host_id, boot_id, state, opened_at_ms, seen_at_ms)"
    await execute(engine, f"INSERT INTO ai_control_epochs {columns} VALUES {values}")
    async with engine.connect() as connection:
        assert (await connection.execute(select(func.max(Epoch.id)))).scalar() == 1


async def test_down_and_up_with_data_leaves_an_empty_schema(engine):
    async with engine.begin() as connection:
        key = await connection.run_sync(a_stored_key)
        original = a_row(key)
        adjustment = a_row(key, adjusts=original["call_id"])
        await connection.run_sync(insert_rows, original, adjustment)
    await schema.downgrade(engine, "base")
    assert await schema.current(engine) is None
    async with engine.connect() as connection:
        left = await connection.run_sync(live_tables)
    assert set(left) == {"alembic_version"}
    await schema.upgrade(engine)
    await schema.check(engine)
    async with engine.connect() as connection:
        assert (await connection.execute(select(func.count(UsageCost.call_id)))).scalar() == 0


async def test_adjustments_of_before_get_their_names_and_rollups_their_sums(engine):
    """Down to the first revision and up again: what adjustments changed is told of each."""
    async with engine.begin() as connection:
        key = await connection.run_sync(a_stored_key)
        old = await connection.run_sync(a_stored_price, "old")
        new = await connection.run_sync(a_stored_price, "new")
        call = a_row(key, price_id=old)
        adjustment = a_row(key, adjusts=call["call_id"], price_id=new, cost_nano=7)
        await connection.run_sync(insert_rows, call, adjustment)
        await connection.run_sync(roll_up, call)
    await schema.downgrade(engine, "0001")
    assert await schema.current(engine) == "0001"
    await schema.upgrade(engine)
    await schema.check(engine)
    async with engine.connect() as connection:
        named = (await connection.execute(select(CostAdjustment.__table__))).one()
        rolled = (await connection.execute(select(CostAnalytics.adjusted_nano))).scalars().all()
    assert named == (adjustment["call_id"], None, old, new)
    assert rolled == [0]


async def test_migrations_arrive_at_the_models(engine):
    def compare(connection):
        on_postgresql = connection.dialect.name == "postgresql"
        parts = partitions(connection) if on_postgresql else set()

        def is_ours(item, name, kind, _reflected, _compare_to):
            """Neither partitions, nor the keys that PostgreSQL makes for each of them."""
            if kind == "foreign_key_constraint":
                return item.elements[0].target_fullname.partition(".")[0] not in parts
            return name not in parts

        options = {"compare_type": True, "include_object": is_ours}
        context = MigrationContext.configure(connection, opts=options)
        return compare_metadata(context, Base.metadata)

    async with engine.connect() as connection:
        assert await connection.run_sync(compare) == []


async def test_migrations_name_constraints_as_the_models_do(engine):
    def names(connection):
        checks = inspect(connection).get_multi_check_constraints()
        return {check["name"] for (_, table), found in checks.items() for check in found}

    wanted = {
        str(constraint.name)
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    async with engine.connect() as connection:
        assert await connection.run_sync(names) == wanted


def test_revisions_are_those_of_the_scripts():
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in reversed(list(scripts))) == schema.REVISIONS


async def test_unknown_revision_is_named(engine):
    with pytest.raises(DatabaseUnusable, match=r"cannot upgrade to nonsense: .*nonsense"):
        await schema.upgrade(engine, "nonsense")


async def test_failed_migration_changes_nothing(empty):
    await execute(empty, "CREATE TABLE ai_revisions (id INTEGER)")  # what it makes last
    with pytest.raises(DatabaseUnusable, match=r"cannot upgrade to head: .*ai_revisions"):
        await schema.upgrade(empty)
    async with empty.connect() as connection:
        assert set(await connection.run_sync(live_tables)) == {"ai_revisions"}


async def test_dangling_reference_undoes_the_migration(empty):
    if empty.dialect.name != "sqlite":
        pytest.skip("PostgreSQL checks references all the time")
    await schema.upgrade(empty)
    await execute(empty, "CREATE TABLE parents (id INTEGER PRIMARY KEY)")
    driver_statements = (
        "PRAGMA foreign_keys=OFF",
        "CREATE TABLE children (parent INTEGER REFERENCES parents (id))",
        "INSERT INTO children VALUES (7)",
    )
    async with empty.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        for statement in driver_statements:
            await driver.execute(statement)
    with pytest.raises(DatabaseUnusable, match="children"):
        await schema.downgrade(empty, "base")
    assert await schema.current(empty) == schema.HEAD


async def test_foreign_keys_are_enforced_after_a_migration(empty):
    await schema.upgrade(empty)
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await execute(
            empty,
            "INSERT INTO ai_teams (organization_id, name, source, created_at_ms)"
            " VALUES (99, 'x', 'config', 1)",
        )


def test_a_normal_start_does_not_import_alembic():
    code = "import sys, db.schema; sys.exit('alembic' in sys.modules)"
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- check ---------------------------------------------------------------------------------


async def test_check_of_an_empty_database_names_the_command(empty):
    mismatch = await problems_of(empty)
    assert mismatch.problems == ["the database has no Tollkeeper tables"]
    assert "tollkeeper db upgrade" in str(mismatch)


async def test_check_of_an_older_revision_names_the_command(engine, monkeypatch):
    newest = schema.HEAD
    monkeypatch.setattr(schema, "HEAD", "9999")
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9999"))
    assert f"at revision {newest}, this version needs 9999" in str(await problems_of(engine))


async def test_newer_revision_is_refused_by_check_upgrade_and_ensure(engine):
    await execute(engine, "UPDATE alembic_version SET version_num = '9999'")
    assert "9999, which this version does not know" in str(await problems_of(engine))
    for refused in (schema.upgrade, schema.ensure):
        with pytest.raises(SchemaMismatch, match="newer Tollkeeper"):
            await refused(engine)


async def test_missing_and_foreign_tables(engine):
    await execute(
        engine,
        "DROP TABLE ai_cost_analytics",
        "CREATE TABLE ai_phantoms (id INTEGER)",
        "CREATE TABLE theirs (id INTEGER)",
    )
    mismatch = await problems_of(engine)
    assert sorted(mismatch.problems) == [
        "table ai_cost_analytics is missing",
        "table ai_phantoms is not Tollkeeper's",
    ]
    assert f"Its revision is {schema.HEAD}" in mismatch.fix


async def test_missing_column_and_index(engine):
    await execute(
        engine,
        "DROP INDEX ix_ai_usage_costs_key_at",
        "ALTER TABLE ai_budget_windows DROP COLUMN extra",
    )
    assert sorted((await problems_of(engine)).problems) == [
        "column ai_budget_windows.extra is missing",
        "index ix_ai_usage_costs_key_at on ai_usage_costs is missing",
    ]


async def test_foreign_column_matters_only_if_rows_need_a_value(engine):
    await execute(
        engine,
        "ALTER TABLE ai_teams ADD COLUMN note VARCHAR(9)",
        "ALTER TABLE ai_teams ADD COLUMN size INTEGER NOT NULL DEFAULT 0",
    )
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


# One table rebuilt by hand: everything about it is wrong, and each thing is said.
WRONG_PROJECTS = """
CREATE TABLE ai_projects (
    id BIGINT, team_id {id}, name VARCHAR(64) NOT NULL, source VARCHAR(16),
    created_at_ms BIGINT NOT NULL, tombstoned_at_ms BIGINT, owner VARCHAR(9) NOT NULL
)
"""


async def test_rebuilt_table_is_described(engine):
    big_id = "BIGINT" if engine.dialect.name == "postgresql" else "INTEGER"
    cascade = " CASCADE" if engine.dialect.name == "postgresql" else ""
    await execute(
        engine,
        f"DROP TABLE ai_projects{cascade}",
        WRONG_PROJECTS.format(id=big_id),
    )
    problems = {
        problem for problem in (await problems_of(engine)).problems if "ai_projects" in problem
    }
    wanted = {
        "column ai_projects.team_id is nullable",
        "column ai_projects.name is VARCHAR(64) instead of VARCHAR(128)",
        "column ai_projects.source is nullable",
        "column ai_projects.owner is not Tollkeeper's, and rows need a value for it",
        "primary key of ai_projects is not (id)",
        "foreign key ai_projects (team_id) -> ai_teams.id ON DELETE RESTRICT is missing",
        "unique constraint on ai_projects (team_id, name) is missing",
    }
    assert wanted <= problems


async def test_message_lists_five_problems_and_counts_the_rest():
    mismatch = SchemaMismatch([f"problem {n}" for n in range(7)], "Fix it")
    assert re.fullmatch(r".*problem 4; and 2 more\. Fix it", str(mismatch))
    assert len(mismatch.problems) == 7


# --- the script of a new SQLite file --------------------------------------------------------


def objects_and_rows(path: Path) -> tuple[dict[str, str], dict[str, list[object]]]:
    """Names and definitions, spaces aside, and what is in the tables."""
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
        objects = {f"{kind} {name}": " ".join((sql or "").split()) for kind, name, sql in found}
        tables = [name for kind, name, _ in found if kind == "table"]
        return objects, {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in tables}


async def test_a_new_file_gets_what_the_migrations_make(tmp_path, migrated_sqlite):
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await schema.ensure(engine)
    await engine.dispose()
    assert objects_and_rows(tmp_path / "ledger.db") == objects_and_rows(migrated_sqlite), (
        "`python -m db.schema_script` writes db/migrations/head.sql again"
    )


async def test_a_new_file_is_made_without_alembic(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "alembic", None)  # importing it fails
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await schema.ensure(engine)
    assert await schema.current(engine) == schema.HEAD
    await engine.dispose()


async def test_a_file_with_other_tables_is_migrated(tmp_path):
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await execute(engine, "CREATE TABLE theirs (id INTEGER)")
    await schema.ensure(engine)
    await engine.dispose()
    assert "table theirs" in objects_and_rows(tmp_path / "ledger.db")[0]


async def test_two_who_make_a_new_file_at_once(tmp_path):
    engines = [open_engine(f"sqlite+aiosqlite:///{tmp_path}/ledger.db") for _ in range(2)]
    await asyncio.gather(*map(schema.ensure, engines))
    for engine in engines:
        assert await schema.current(engine) == schema.HEAD
        await engine.dispose()
