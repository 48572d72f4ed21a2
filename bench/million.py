"""A ledger of many calls for reports to read, the same whenever it is made, in a minute or two.

Rows and their hourly rollups are copied in, as the drain would have left them; days that are over
are folded by the function that control calls.
"""

import json
import random
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from db.engine import open_engine
from db.ledger_rollups import fold_day
from db.ledger_rows import COLUMNS, ROLLUP_COLUMNS, Row, rollups
from db.ledger_tags import fold_tags
from db.models import (
    Alert,
    ApiKey,
    CostAnalytics,
    ModelCost,
    PriceVersion,
    Team,
    UsageCost,
    User,
)
from proxy.config import Admin, Budget, Config, Database, Journal, Key, Organization, Provider
from proxy.config import Team as TeamConfig
from proxy.control.clock import Clock
from proxy.control.control import Control

TEAMS, KEYS, MODELS, MODELS_OF_KEY, TAGS, ALERTS = 10, 50, 20, 3, 20, 2_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOW_MS = 1_795_360_980_000  # 2026-11-22T15:23:00Z
ADMIN_KEY = "bench-admin-key-0123456789"
CLOCK = Clock(now_ms=lambda: NOW_MS, monotonic=lambda: 0.0)  # so that control does nothing else
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo")
USAGE = '{"input_tokens":%d,"output_tokens":%d}'
ITEMS = '[["input",%d,150000000000],["output",%d,600000000000]]'


def config(url: str, directory: Path) -> Config:
    teams = {
        f"team-{n}": TeamConfig(
            keys=[Key(f"key-{k}", key=f"{k:064x}") for k in range(n, KEYS, TEAMS)]
        )
        for n in range(TEAMS)
    }
    budgets = [
        Budget(f"team/acme/{name}", period="day", limit_usd="500", timezone=ZONES[n % len(ZONES)])
        for n, name in enumerate(teams)
    ]
    return Config(
        admin=Admin(key=ADMIN_KEY),
        database=Database(url),
        journal=Journal(dir=str(directory)),
        providers={"openai": Provider(base_url="http://127.0.0.1:9", dialect="openai")},
        organizations={"acme": Organization(teams=teams)},
        budgets=[*budgets, Budget("organization/acme", limit_usd="90000")],
    )


async def make(url: str, directory: Path, rows: int, days: int) -> None:
    """In an empty database."""
    control = Control(config(url, directory), CLOCK)
    await control.start()
    assert control.parts is not None
    transactions = control.parts.transactions
    owners, prices = await transactions.run(_parents)
    copy = _copy_to_sqlite if transactions.dialect == "sqlite" else _copy_to_postgresql
    for hours in _lots(_rows(owners, prices, rows, days)):
        await copy(url, UsageCost.__tablename__, COLUMNS, hours)
        await copy(url, CostAnalytics.__tablename__, ROLLUP_COLUMNS, rollups(hours, "bench"))
    await transactions.run(_alerts)
    while await transactions.run(lambda connection: fold_day(connection, NOW_MS)) is not None:
        pass
    while await transactions.run(lambda connection: fold_tags(connection, NOW_MS)):
        pass
    await control.stop()
    engine = open_engine(url)
    async with engine.connect() as connection:
        await connection.exec_driver_sql("COMMIT")
        analyze = "VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "PRAGMA optimize"
        await connection.exec_driver_sql(analyze)
    await engine.dispose()


def _parents(connection: Connection) -> tuple[list[Row], dict[str, int]]:
    """(key, organization, team, project, user) of each key; the price of each model."""
    found = connection.execute(
        select(ApiKey.id, Team.organization_id, Team.id)
        .join(Team, ApiKey.team_id == Team.id)
        .order_by(ApiKey.id)
    ).all()
    users = [{"organization_id": found[0][1], "name": f"user-{n}"} for n in range(KEYS)]
    common = {"source": "api", "created_at_ms": 0}
    connection.execute(insert(User), [user | common for user in users])
    user_ids = connection.execute(select(User.id).order_by(User.id)).scalars().all()
    version = {
        "version": "bench", "table_id": "bench", "sha256": "0" * 64, "source": "bench",
        "effective_from": "2026-01-01", "overlays": [], "created_at_ms": 0,
    }  # fmt: skip
    query = insert(PriceVersion).returning(PriceVersion.id)
    version_id = connection.execute(query, version).scalar_one()
    models = [
        {"price_version_id": version_id, "model": f"openai/model-{n}", "entry": {}}
        for n in range(MODELS)
    ]
    connection.execute(insert(ModelCost), models)
    prices = connection.execute(select(ModelCost.model, ModelCost.id)).all()
    owners = [(*row, None, user) for row, user in zip(found, user_ids, strict=True)]
    return owners, {model.removeprefix("openai/"): id_ for model, id_ in prices}


def _rows(owners: Sequence[Row], prices: dict[str, int], rows: int, days: int) -> Iterator[Row]:
    chance = random.Random(1)
    for n in range(rows):
        at_ms = NOW_MS - days * DAY_MS + days * DAY_MS * n // rows
        number = chance.getrandbits(74)
        owner = owners[number % KEYS]
        model = f"model-{(owner[0] + number // KEYS % MODELS_OF_KEY) % MODELS}"
        tokens_in, tokens_out = 400 + number % 97, 20 + number % 31
        cost = tokens_in * 150 + tokens_out * 600
        values: dict[str, Any] = {
            "call_id": (at_ms << 80 | 7 << 76 | number).to_bytes(16, "big"), "at_ms": at_ms,
            "key_id": owner[0], "organization_id": owner[1], "team_id": owner[2],
            "project_id": None, "user_id": owner[4], "charge_set_id": None, "adjusts": None,
            "provider": "openai", "model": model, "route": "chat.completions",
            "stream": number % 2 == 0, "http_status": 200,
            "ending": "complete" if number % 50 else "client_gone", "usage_source": "reported",
            "input_tokens": tokens_in, "cache_read_tokens": 0, "cache_write_tokens": 0,
            "output_tokens": tokens_out, "reasoning_tokens": 0,
            "usage": USAGE % (tokens_in, tokens_out), "price_id": prices[model],
            "cost_nano": cost, "cost_items": ITEMS % (tokens_in, tokens_out),
            "hold_nano": 5_000_000, "charged_tokens": tokens_in + tokens_out,
            "charged_requests": 1, "duration_ms": 900, "first_byte_ms": 300, "client_retry": 0,
            "flags": 0, "error": "", "response_id": f"chatcmpl-{number:x}",
            "tags": f'{{"feature":"feature-{number % TAGS}"}}', "provider_cost_nano": None,
            "drift_nano": None,
        }  # fmt: skip
        yield tuple([values[name] for name in COLUMNS])


def _lots(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Whole days, so that no hour is in two of them."""
    lot: list[Row] = []
    for row in rows:
        if lot and lot[-1][1] // DAY_MS != row[1] // DAY_MS:
            yield lot
            lot = []
        lot.append(row)
    yield lot


async def _copy_to_sqlite(
    url: str, table: str, columns: Sequence[str], rows: Sequence[Row]
) -> None:
    connection = sqlite3.connect(url.partition(":///")[2], isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN IMMEDIATE")
    marks = ",".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {table} ({','.join(columns)}) VALUES ({marks})", rows)
    connection.execute("COMMIT")
    connection.close()


async def _copy_to_postgresql(
    url: str, table: str, columns: Sequence[str], rows: Sequence[Row]
) -> None:
    engine = open_engine(url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("SELECT 1")  # which begins the transaction
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.copy_records_to_table(table, records=rows, columns=columns)
    await engine.dispose()


def _alerts(connection: Connection) -> None:
    rows = [
        {
            "id": str(uuid.UUID(int=n)), "identity": f"bench:{n}", "kind": "spend_anomaly",
            "severity": "warning", "scope": f"team/acme/team-{n % TEAMS}",
            "summary": f"alert {n}", "facts": json.loads('{"spent": "1.5"}'), "host_id": "bench",
            "raised_at_ms": NOW_MS - n * HOUR_MS // 4,
        }
        for n in range(ALERTS)
    ]  # fmt: skip
    connection.execute(insert(Alert), rows)
