"""What comparisons have found, read back."""

from datetime import date
from decimal import Decimal

from db.reconciliation import Comparison, Tolerance, store
from db.validations import validations
from tests.factories import NOW_MS

DAY = date(2026, 1, 1)


async def test_the_newest_lines_come_first_and_pages_follow(engine):
    found = [Comparison(DAY, f"m{n}", 1, n, 0, exceeds=n == 1) for n in range(3)]
    options = {"source": "csv", "file_sha256": "ab" * 32, "tolerance": Tolerance(Decimal(1), 0)}
    async with engine.begin() as connection:

        async def read(**asked):
            return await connection.run_sync(lambda sync: validations(sync, **asked))

        await connection.run_sync(lambda sync: store(sync, found, now_ms=NOW_MS, **options))
        first = await read(limit=2)
        rest = await read(limit=2, below=first[-1].id)
        assert [line.model for line in (*first, *rest)] == ["m2", "m1", "m0"]
        (line,) = await read(limit=9, exceeding=True)
        assert (line.model, line.ledger_nano, line.threshold_percent) == ("m1", 1, "1")
