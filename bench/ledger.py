"""What indexes and rollups cost when writing, and bring when reading.

    ledger.py [--rows 1000000] [--url sqlite+aiosqlite:////tmp/ledger.db]

Fills an empty ledger through the drain, as control does, then measures the reports a dashboard
asks for, and the drain of further rows: as Tollkeeper is; with neither composite indexes nor
rollups (reports read rows); with an index on each column. Figures are medians, of warm caches.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, select, text

from db import reports, schema
from db.catalog import sync_config
from db.catalog_types import Declared, DeclaredBudget, DeclaredKey
from db.engine import open_engine, reader
from db.journal_records import Hold, Settle, Window
from db.ledger import Ledger
from db.ledger_types import Batch, LeaseRequest, PriceDescription
from db.models import ApiKey, Budget, Organization, Team, UsageCost
from db.reports import Filters, calls, grouped
from db.transactions import Transactions, open_transactions

TEAMS, KEYS, MODELS, MODELS_OF_KEY, DAYS = 10, 50, 20, 3, 30
BATCH = 300  # what a flush of 100 ms brings at 3,000 calls a second
MORE = 60_000  # rows of a measured drain
REPEATS = 7
COMPOSITE = ("ix_ai_usage_costs_at", "ix_ai_usage_costs_key_at")
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOW_MS = int(time.time() * 1000) // HOUR_MS * HOUR_MS  # whole hours: what dashboards show
TABLE = UsageCost.__tablename__


class Records:
    """Holds and settlements of made-up calls, in the order of time."""

    def __init__(self, keys: list[tuple[int, int, int]], window: Window) -> None:
        self._keys, self._window = keys, window
        self._random = random.Random(1)

    def call(self, at_ms: int) -> tuple[Hold, Settle]:
        key_id, organization_id, team_id = self._random.choice(self._keys)
        number = self._random.getrandbits(74)
        call_id = ((at_ms << 80) | (7 << 76) | number).to_bytes(16, "big")
        model = f"model-{(key_id + self._random.randrange(MODELS_OF_KEY)) % MODELS}"
        held = [(self._window, 5_000_000)]
        usage = {"input_tokens": 400 + number % 97, "output_tokens": 20 + number % 31}
        cost = usage["input_tokens"] * 150 + usage["output_tokens"] * 600
        hold = Hold(
            call_id, at_ms, held, key_id, organization_id, team_id, 0, "", "openai", model,
            "chat.completions", False, "bench", 5_000_000, usage,
        )  # fmt: skip
        settle = Settle(
            call_id, held, [(self._window, cost)], "complete", 200, usage, "reported", "bench",
            cost, [("input", usage["input_tokens"], 150 * 10**9)], f"openai/{model}",
            f"chatcmpl-{number:x}", 900, 300,
        )  # fmt: skip
        return hold, settle


class Bench:
    """A ledger with one budget and its journal, and the drain."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.transactions: Transactions = open_transactions(url)
        price = PriceDescription("table", "0" * 64, "bench", "2026-01-01", [], {})
        self.ledger = Ledger(
            self.transactions,
            host_id="bench",
            describe_price=lambda version, model: price,
            dead_letter=lambda hold, settle, why: self._refused(why),
            now_ms=lambda: NOW_MS,
        )
        self.journal_id, self.offset = uuid.uuid4().bytes, 0

    @staticmethod
    def _refused(why: str) -> None:
        raise RuntimeError(f"a row was not taken: {why}")

    async def open(self) -> None:
        await self.transactions.run(self._declare)
        self.epoch_id = await self.ledger.register_epoch("boot")
        await self.ledger.register_journal(self.journal_id, self.epoch_id)
        await self.ledger.lease(self.epoch_id, [LeaseRequest(self.window, 10**17, 0)])

    def _declare(self, connection: Connection) -> None:
        teams = tuple(("acme", f"team-{n}") for n in range(TEAMS))
        keys = tuple(
            DeclaredKey(f"key-{n}", f"{n:064x}", "acme", f"team-{n % TEAMS}") for n in range(KEYS)
        )
        budget = DeclaredBudget("organization/acme", "usd", 10**18, "total")
        declared = Declared(("acme",), teams, keys=keys, budgets=(budget,))
        sync_config(connection, declared, NOW_MS)
        organization_id = connection.execute(select(Organization.id)).scalar_one()
        found = connection.execute(select(ApiKey.id, Team.id).join(Team, ApiKey.team_id == Team.id))
        self.window = (connection.execute(select(Budget.id)).scalar_one(), 0)
        owners = [(key_id, organization_id, team_id) for key_id, team_id in found]
        self.records = Records(owners, self.window)

    async def drain(self, rows: int, since_ms: int, until_ms: int) -> float:
        """Write rows spread over a time; CPU and database seconds it took, building apart."""
        spent = 0.0
        for first in range(0, rows, BATCH):
            settled = [
                self.records.call(since_ms + (until_ms - since_ms) * n // rows)
                for n in range(first, min(first + BATCH, rows))
            ]
            start, self.offset = self.offset, self.offset + len(settled)
            batch = Batch(self.journal_id, self.epoch_id, (0, start), (0, self.offset), settled)
            began = time.perf_counter()
            (drained,) = await self.ledger.drain([batch])
            spent += time.perf_counter() - began
            if drained.rows != len(settled):
                raise RuntimeError(f"{drained.rows} rows of {len(settled)} were written: {drained}")
        return spent

    async def execute(self, *statements: str) -> None:
        def work(connection: Connection) -> None:
            for statement in statements:
                connection.execute(text(statement))

        await self.transactions.run(work)

    async def columns(self) -> list[str]:
        """The columns of cost rows that have no index that begins with them."""
        found: list[str] = await self.transactions.run(
            lambda c: [column["name"] for column in inspect(c).get_columns(TABLE)]
        )
        return [name for name in found if name not in ("call_id", "adjusts")]


# --- what a dashboard asks -----------------------------------------------------------------

Question = Callable[[Any], Awaitable[Any]]


def since(days: int, **where: str) -> Filters:
    return Filters(NOW_MS - days * DAY_MS, None, where)


async def _newest(connection: Any) -> None:
    filters = Filters(NOW_MS - HOUR_MS, None, {"key": "key-7"})
    _ = [call async for call in calls(connection, filters)]


QUESTIONS: dict[str, Question] = {
    "teams, 30 days": lambda c: grouped(c, ["team"], since(30)),
    "models, 30 days": lambda c: grouped(c, ["provider", "model"], since(30)),
    "days, 30 days": lambda c: grouped(c, ["day"], since(30)),
    "one team by day and model": lambda c: grouped(
        c, ["day", "model"], since(30, team="acme/team-3")
    ),
    "keys, 7 days": lambda c: grouped(c, ["key"], since(7)),
    "teams, this day": lambda c: grouped(c, ["team"], since(1)),
    "one key's calls of an hour": _newest,
}


async def ask(url: str) -> dict[str, float]:
    """Milliseconds of each question, the median of a few."""
    engine = open_engine(url, read_only=True)
    taken = {}
    async with reader(engine).connect() as connection:
        for name, question in QUESTIONS.items():
            await question(connection)
            times = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                await question(connection)
                times.append((time.perf_counter() - began) * 1000)
            taken[name] = statistics.median(times)
    await engine.dispose()
    return taken


async def measure(url: str, rows: int) -> None:
    engine = open_engine(url)
    await schema.ensure(engine)
    await engine.dispose()
    bench = Bench(url)
    await bench.open()
    seconds = await bench.drain(rows, NOW_MS - DAYS * DAY_MS, NOW_MS)
    print(f"{rows} rows written, {rows / seconds:,.0f} a second\n", flush=True)
    await bench.execute("ANALYZE")
    later = NOW_MS - HOUR_MS
    with_all = await ask(url)
    written = {"as it is": await bench.drain(MORE, later, NOW_MS)}
    await bench.execute(*(f"DROP INDEX {name}" for name in COMPOSITE))
    in_rollups, reports.IN_ROLLUPS = reports.IN_ROLLUPS, frozenset()
    without = await ask(url)
    reports.IN_ROLLUPS = in_rollups
    names = await bench.columns()
    await bench.execute(*(f"CREATE INDEX bench_{name} ON {TABLE} ({name})" for name in names))
    written["an index on each column"] = await bench.drain(MORE, later, NOW_MS)
    await bench.ledger.close()
    show(with_all, without, written)


def show(with_all: dict[str, float], without: dict[str, float], written: dict[str, float]) -> None:
    print("| report | ms | without indexes and rollups, ms | faster by |\n|---|---|---|---|")
    for name, ms in with_all.items():
        print(f"| {name} | {ms:.1f} | {without[name]:.1f} | {1 - ms / without[name]:.1%} |")
    print("\n| rows written with | rows a second |\n|---|---|")
    for name, seconds in written.items():
        print(f"| {name} | {MORE / seconds:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--url", help="an empty database; default: SQLite in a temporary directory")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        url = asked.url or f"sqlite+aiosqlite:///{Path(directory) / 'ledger.db'}"
        asyncio.run(measure(url, asked.rows))


if __name__ == "__main__":
    main()
