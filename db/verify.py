"""Checking the ledger against its invariants I1 to I5 (docs: protocol, section 1).

Everything is read in one transaction, so a ledger in use can be verified: nothing that happens
meanwhile is seen.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.engine import ping, reader
from db.models import UsageCost
from db.verify_adjustments import check_adjustments, check_repricings
from db.verify_costs import check_corrections, check_costs
from db.verify_journals import check_journals
from db.verify_money import check_epochs, check_leases, check_references, check_rows, check_windows
from db.verify_objects import check_objects
from db.verify_rollups import check_days, check_rollups
from db.verify_tags import check_tags
from db.verify_types import Finding

__all__ = ["FINDINGS_MAX", "Finding", "verify"]

FINDINGS_MAX = 100  # of one check; the rest is most likely the same mistake

Progress = Callable[[int, int], None]
Check = Callable[[AsyncConnection], AsyncGenerator[Finding, None]]


def _no_progress(_done: int, _total: int) -> None:
    pass


async def verify(
    engine: AsyncEngine, *, journal_dir: Path | None = None, progress: Progress = _no_progress
) -> list[Finding]:
    """Check the whole database, and that what the journals in a directory say arrived in it.

    `progress(rows done, rows in all)` is called now and then. Empty: nothing is wrong. Raises
    DatabaseUnusable.
    """
    await ping(engine)
    async with reader(engine).connect() as connection:
        total = (await connection.execute(select(func.count(UsageCost.call_id)))).scalar_one()
        progress(0, total)
        checks: list[Check] = [
            check_references,
            check_windows,
            check_leases,
            check_epochs,
            check_rows,
            check_rollups,
            check_days,
            check_tags,
            lambda c: check_costs(c, lambda done: progress(done, total)),
            check_corrections,
            check_adjustments,
            check_repricings,
            check_objects,
        ]
        if journal_dir is not None:
            checks.append(lambda c: check_journals(c, journal_dir))
        findings: list[Finding] = []
        for check in checks:
            findings.extend(await _first(check(connection)))
        progress(total, total)
    return findings


async def _first(check: AsyncGenerator[Finding, None]) -> list[Finding]:
    findings: list[Finding] = []
    async with aclosing(check) as found:
        async for finding in found:
            if len(findings) == FINDINGS_MAX:
                findings.append(Finding(finding.invariant, "...", "and more of the same check"))
                break
            findings.append(finding)
    return findings
