"""What a configuration changes is in the audit log."""

from dataclasses import replace

from db.audit import audit_rows
from db.audited_sync import sync_config
from db.catalog_types import DeclaredBudget
from tests.db.test_edits import DECLARED
from tests.factories import NOW_MS


async def test_what_is_declared_changed_and_taken_back_is_logged(engine):
    async with engine.begin() as connection:

        async def declare(declared):
            return await connection.run_sync(sync_config, declared, NOW_MS)

        async def log():
            rows = await connection.run_sync(lambda sync: audit_rows(sync, limit=100))
            return {row.target: row for row in reversed(rows)}

        assert await declare(DECLARED)
        first = await log()
        assert set(first) >= {"organization/acme", "team/acme/search", "key/prod"}
        assert all(row.before is None and row.who == "config" for row in first.values())
        assert "ab" * 32 not in repr(first)
        assert not await declare(DECLARED)
        assert await log() == first
        changed = DeclaredBudget("team/acme/search", "usd", 2 * 10**9, "day")
        assert await declare(replace(DECLARED, budgets=(changed,), keys=()))
        assert (await log())["key/prod"].after is None
        (budget,) = (row for target, row in (await log()).items() if target.startswith("budget/"))
        assert (budget.before["limit_value"], budget.after["limit_value"]) == (10**9, 2 * 10**9)
