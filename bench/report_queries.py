"""Every query of the dashboard's pages and of reports: how long it takes, and by which index.

    report_queries.py [--rows 1000000] [--days 30] [--engine sqlite|postgresql] [--out FILE]

Makes a ledger (`million.py`), in a temporary directory or, once, in `--directory`; PostgreSQL is
started from installed binaries. Pages are requested from control's own application, in this
process; each statement they execute is timed as the driver sees it, rows fetched, and its plan is
read. A figure is the median of some rounds.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from million import ADMIN_KEY, CLOCK, NOW_MS, config, make
from sqlalchemy import Engine, event

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from db.engine import open_engine, reader
from db.models import CostAnalytics, CostDay, TagDay, TagHour, UsageCost
from proxy.cli_explain import explain_call
from proxy.control.admin import admin_app
from proxy.control.control import Control
from proxy.control.forecasting import Outlook, period_end
from proxy.control.report_focus import focus
from proxy.control.reporting import Question, answer
from tests.databases import Postgres, find_postgres

LARGE = tuple(model.__tablename__ for model in (UsageCost, CostAnalytics, CostDay, TagHour, TagDay))

Ask = Callable[[Any], Awaitable[Any]]
Run = Callable[[], Awaitable[None]]
Statement = tuple[str, Any]


@dataclass
class Asked:
    """What one page or report executed, round by round."""

    statements: list[Statement] = field(default_factory=list)
    ms: list[list[float]] = field(default_factory=list)  # by statement
    whole_ms: list[float] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)
    large: frozenset[str] = frozenset()

    @property
    def slowest(self) -> list[float]:
        return max(self.ms, key=statistics.median, default=[0.0])

    def read_by(self) -> str:
        """The indexes by which large tables were read; SCAN of one that was read whole."""
        found = set()
        for plan in self.plans:
            if any(table in plan for table in LARGE):
                found |= set(re.findall(r"\bix_ai_\w+|pk_ai_usage_costs\w*|sqlite_auto\w+", plan))
                scans = re.findall(r"(?:Seq Scan on|SCAN) (ai_\w+)(?! USING)", plan)
                found |= {f"SCAN {name}" for name in scans if name in self.large}
        return ", ".join(sorted(found))


RECORDING: ContextVar[list[tuple[Statement, float]] | None] = ContextVar("recording", default=None)


@contextmanager
def recorded() -> Iterator[list[tuple[Statement, float]]]:
    seen: list[tuple[Statement, float]] = []
    token = RECORDING.set(seen)
    yield seen
    RECORDING.reset(token)


@event.listens_for(Engine, "before_cursor_execute")
def _begin(_c: Any, _cursor: Any, _sql: str, _parameters: Any, context: Any, _many: bool) -> None:
    if context is not None:
        context.began = time.perf_counter()


@event.listens_for(Engine, "after_cursor_execute")
def _end(_c: Any, _cursor: Any, sql: str, parameters: Any, context: Any, _many: bool) -> None:
    seen = RECORDING.get()
    if seen is not None and sql.startswith(("SELECT", "WITH")):
        seen.append(((sql, parameters), (time.perf_counter() - context.began) * 1000))


# --- what is asked -------------------------------------------------------------------------

PAGES = (
    "", "?period=today", "?period=30d", "?period=30d&by=model", "?period=30d&by=key",
    "?period=30d&by=user", "?period=30d&by=provider", "?period=30d&by=organization",
    "?period=30d&timezone=Europe/Berlin", "?period=30d&by=key&timezone=America/New_York",
    "?period=30d&by=model&timezone=Asia/Tokyo", "?period=90d", "?period=90d&timezone=Asia/Tokyo",
    "?period=30d&timezone=Asia/Kolkata", "?period=30d&by=model&timezone=Asia/Kathmandu",
    "?period=today&timezone=Asia/Kolkata", "?period=30d&by=tag&tag=feature",
    "?period=30d&by=tag&tag=feature&timezone=Europe/Berlin",
    "?period=30d&by=tag&tag=feature&timezone=Asia/Tokyo",
    "?period=30d&by=tag&tag=feature&timezone=Asia/Kolkata",
    "?period=30d&by=tag&tag=feature&team=acme/team-3", "?period=30d&tag:feature=feature-3",
    "?period=month", "?period=30d&team=acme/team-3&by=model", "?period=30d&key=key-7&by=model",
    "/outlook?period=30d", "/outlook?timezone=Asia/Tokyo", "/outlook?team=acme/team-3",
    "/outlook?timezone=Asia/Kolkata", "/budgets", "/budgets/2", "/budgets/2/projection",
    "/budgets/11", "/budgets/11/projection",
    "/calls", "/calls?team=acme/team-3", "/calls?key=key-7", "/calls?user=user-7",
    "/calls?provider=openai", "/calls?model=model-3", f"/calls?before={NOW_MS - 10**9}",
    "/calls/ID", "/refusals", "/keys", "/prices", "/alerts", "/audit",
)  # fmt: skip
REPORTS: dict[str, Ask] = {
    "--by team,model --since 7d": lambda c: answer(c, Question(("team", "model"), "7d"), NOW_MS),
    "--by team, of all time": lambda c: answer(c, Question(("team",)), NOW_MS),
    "--by day,model --since 30d": lambda c: answer(c, Question(("day", "model"), "30d"), NOW_MS),
    "--by team --since 2026-11-01 --timezone Europe/Berlin --compare": lambda c: answer(
        c, Question(("team",), "2026-11-01", timezone="Europe/Berlin", compare=True), NOW_MS
    ),
    "--by total --granularity day --timezone America/New_York --since 30d": lambda c: answer(
        c, Question((), "30d", granularity="day", timezone="America/New_York"), NOW_MS
    ),
    "--by team --granularity week --trend": lambda c: answer(
        c, Question(("team",), granularity="week", trend=True), NOW_MS
    ),
    "--format focus --since 2026-11-01": lambda c: focus(c, Question((), "2026-11-01"), NOW_MS),
    "--by tag:feature --since 30d": lambda c: answer(c, Question(("tag:feature",), "30d"), NOW_MS),
    "--by team --granularity day --timezone Asia/Kolkata --since 30d": lambda c: answer(
        c, Question(("team",), "30d", granularity="day", timezone="Asia/Kolkata"), NOW_MS
    ),
    "forecast --by team": lambda c: period_end(c, Outlook(by=("team",)), NOW_MS),
}
FROM_ROWS: dict[str, Ask] = {
    "--by route --since 30d": lambda c: answer(c, Question(("route",), "30d"), NOW_MS),
    "--by tag:feature,model --since 30d": lambda c: answer(
        c, Question(("tag:feature", "model"), "30d"), NOW_MS
    ),
}


async def newest_call(url: str) -> str:
    async with reading(url) as connection:
        rows = await connection.exec_driver_sql(
            f"SELECT call_id FROM {UsageCost.__tablename__} ORDER BY at_ms DESC LIMIT 1"
        )
        number = bytes(rows.scalar_one()).hex()
    return "-".join((number[:8], number[8:12], number[12:16], number[16:20], number[20:]))


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[Any]:
    engine = open_engine(url, read_only=True)
    async with reader(engine).connect() as connection:
        yield connection
    await engine.dispose()


async def measure(url: str, directory: Path, rounds: int) -> dict[str, dict[str, Asked]]:
    control = Control(config(url, directory), CLOCK)
    await control.start()
    browser = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=admin_app(control, explain_call)), base_url="http://admin"
    )
    await log_in(browser)
    call = await newest_call(url)
    pages: dict[str, Run] = {
        page or "/": partial(get, browser, f"/dashboard{page.replace('ID', call)}")
        for page in PAGES
    }
    reports, from_rows = (
        {name: partial(report, url, ask) for name, ask in some.items()}
        for some in (REPORTS, FROM_ROWS)
    )
    found: dict[str, dict[str, Asked]] = {}
    for kind, runs in (("pages", pages), ("reports", reports), ("from rows", from_rows)):
        show_head(kind)
        found[kind] = {}
        for name, run_once in runs.items():
            found[kind][name] = await asked(url, run_once, rounds)
            show(name, found[kind][name])
    await browser.aclose()
    await control.stop()
    return found


async def log_in(browser: httpx.AsyncClient) -> None:
    html = (await browser.get("/dashboard/login")).text
    match = re.search(r'name="csrf" value="([^"]+)"', html)
    assert match
    data = {"csrf": match[1], "key": ADMIN_KEY}
    assert (await browser.post("/dashboard/login", data=data)).status_code == 303


async def get(browser: httpx.AsyncClient, path: str) -> None:
    response = await browser.get(path)
    if response.status_code != 200:
        raise RuntimeError(f"{path}: {response.status_code} {response.text[:300]}")


async def report(url: str, ask: Ask) -> None:
    async with reading(url) as connection:
        await ask(connection)


async def asked(url: str, run: Run, rounds: int) -> Asked:
    result = Asked()
    await run()
    for _ in range(rounds):
        with recorded() as seen:
            began = time.perf_counter()
            await run()
            result.whole_ms.append((time.perf_counter() - began) * 1000)
        result.statements = [statement for statement, _ in seen]
        result.ms = result.ms or [[] for _ in seen]
        for times, (_, ms) in zip(result.ms, seen, strict=True):
            times.append(ms)
    async with reading(url) as connection:
        result.large = await large_tables(connection)
        for statement in result.statements:
            result.plans.append(await plan(connection, statement))
    return result


async def large_tables(connection: Any) -> frozenset[str]:
    """On PostgreSQL, partitions, too: those without rows are read whole, as small tables are."""
    if connection.dialect.name != "postgresql":
        return frozenset(LARGE)
    rows = await connection.exec_driver_sql(
        "SELECT relname FROM pg_class WHERE relname LIKE 'ai_%' AND reltuples > 10000"
    )
    return frozenset(rows.scalars())


async def plan(connection: Any, statement: Statement) -> str:
    sql, parameters = statement
    explain = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    rows = await connection.exec_driver_sql(f"{explain} {sql}", parameters)
    return "\n".join(str(row[-1]) for row in rows)


# --- the command ---------------------------------------------------------------------------


HEAD = ("queries", "slowest, ms", "most", "together", "whole", "read by")


def show_head(kind: str) -> None:
    print(f"\n| {' | '.join((kind, *HEAD))} |\n|{'---|' * (len(HEAD) + 1)}")


def show(name: str, each: Asked) -> None:
    together = sum(statistics.median(times) for times in each.ms)
    figures = (
        statistics.median(each.slowest), max(each.slowest), together,
        statistics.median(each.whole_ms),
    )  # fmt: skip
    cells = (name, str(len(each.ms)), *(f"{ms:.1f}" for ms in figures), each.read_by())
    print(f"| {' | '.join(cells)} |", flush=True)


def as_json(found: dict[str, dict[str, Asked]]) -> dict[str, Any]:
    return {
        kind: {
            name: {
                "whole_ms": each.whole_ms,
                "queries": [
                    {"sql": sql, "ms": ms, "plan": plan}
                    for (sql, _), ms, plan in zip(each.statements, each.ms, each.plans, strict=True)
                ],
            }
            for name, each in asked_of.items()
        }
        for kind, asked_of in found.items()
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directory", type=Path, help="where ledgers stay, or are already")
    parser.add_argument("--make", action="store_true", help="make the ledgers, and measure nothing")
    parser.add_argument("--out", type=Path, help="write every query, its times and plan as JSON")
    return parser.parse_args()


async def on_sqlite(directory: Path, rows: int, days: int) -> str:
    path = directory / f"ledger-{rows}-{days}.db"
    if not path.exists():
        made = path.with_suffix(".new")
        made.unlink(missing_ok=True)
        await make(f"sqlite+aiosqlite:///{made}", directory / "made", rows, days)
        made.rename(path)
    return f"sqlite+aiosqlite:///{path}"


class Kept(Postgres):
    """A server whose data stay where they are; it waits for its disk as any other."""

    SETTINGS = Postgres.SETTINGS.replace("shared_buffers=16MB", "shared_buffers=128MB")

    def __init__(self, binaries: Path, directory: Path) -> None:
        self._binaries, self._directory = binaries, directory
        self._data = directory / "data"
        directory.mkdir(parents=True, exist_ok=True)
        self._account = self._find_account()
        if not self._data.exists():
            self._run(
                "initdb", "-D", str(self._data), "-U", "tollkeeper", "-A", "trust", "-E", "UTF8",
                "--locale=C", "--no-sync",
            )  # fmt: skip
        self.start()

    async def filled(self, rows: int, days: int, directory: Path) -> str:
        name = f"ledger_{rows}_{days}"
        connection = await self.connect("postgres")
        known = await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name)
        await connection.close()
        if not known:
            making = self.create("making")
            await make(making, directory / "made-pg", rows, days)
            connection = await self.connect("postgres")
            await connection.execute(f"ALTER DATABASE making RENAME TO {name}")
            await connection.close()
        return self.url(name)


async def run(engine: str, directory: Path, wanted: argparse.Namespace) -> dict[str, Any]:
    """Empty where a ledger was to be made only."""
    server = None
    if engine == "postgresql":
        binaries = find_postgres()
        if binaries is None:
            sys.exit("PostgreSQL is not installed")
        server = Kept(binaries, directory / "postgresql")
    try:
        if server is None:
            url = await on_sqlite(directory, wanted.rows, wanted.days)
        else:
            url = await server.filled(wanted.rows, wanted.days, directory)
        if wanted.make:
            return {}
        print(f"\n{engine}, {wanted.rows} rows of {wanted.days} days", flush=True)
        found = await measure(url, directory / f"journal-{engine}", wanted.rounds)
    finally:
        if server is not None:
            server.pause()
    return as_json(found)


async def main() -> None:
    wanted = options()
    figures = {}
    with tempfile.TemporaryDirectory() as temporary:
        for engine in wanted.engine or ("sqlite", "postgresql"):
            figures[engine] = await run(engine, wanted.directory or Path(temporary), wanted)
    if wanted.out is not None:
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        wanted.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
