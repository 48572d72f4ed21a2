"""Test data with defaults, so that a test names only what it is about."""

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select

from db import ledger_rollups
from db.journal_records import Amounts, Hold, Settle
from db.ledger_rows import COLUMNS
from db.models import (
    ApiKey,
    Base,
    CostAdjustment,
    Lease,
    ModelCost,
    Organization,
    PriceVersion,
    Team,
    UsageCost,
)
from pricing.ceiling import Ceiling
from pricing.money import NANO_PER_USD
from pricing.price import Price
from pricing.table import PriceTable, write_table
from pricing.usage import Usage
from proxy.holds import Bounds
from proxy.wire import BudgetEntry, KeyEntry

_numbers = itertools.count(1)


def a_call_id() -> bytes:
    return next(_numbers).to_bytes(16, "big")


def a_hold(call_id: bytes | None = None, amounts: Amounts | None = None, **fields: object) -> Hold:
    values: dict[str, object] = {
        "at_ms": 1_700_000_000_000,
        "key_id": 7,
        "organization_id": 1,
        "team_id": 2,
        "project_id": 0,
        "user": "",
        "provider": "openai",
        "model": "gpt-5",
        "route": "chat.completions",
        "stream": False,
        "price_version": "litellm-2026-06-01",
        "ceiling_nano": 5_000_000,
        "ceiling_usage": {"input_tokens": 2100, "output_tokens": 4096},
    }
    amounts = [((1, 1_699_999_200), 5_000_000)] if amounts is None else amounts
    return Hold(call_id=call_id or a_call_id(), amounts=amounts, **(values | fields))


def a_settle(hold: Hold, charge: int = 1000, **fields: object) -> Settle:
    values: dict[str, object] = {
        "charges": [(window, charge) for window, _ in hold.amounts],
        "ending": "complete",
        "http_status": 200,
        "usage": {"input_tokens": 12, "output_tokens": 34},
        "usage_source": "reported",
        "price_version": hold.price_version,
        "cost_nano": charge,
        "cost_items": [("input", 12, 12 * 10**9), ("output", 34, 34 * 10**9)],
        "model": f"{hold.provider}/{hold.model}",
        "response_id": "chatcmpl-1",
        "duration_ms": 900,
        "first_byte_ms": 300,
    }
    return Settle(call_id=hold.call_id, held=hold.amounts, **(values | fields))


# --- rows of the database --------------------------------------------------------------------

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


class TeamIds(NamedTuple):
    organization_id: int
    team_id: int


class KeyIds(NamedTuple):
    key_id: int
    organization_id: int
    team_id: int


def a_uuid7(at_ms: int = NOW_MS) -> bytes:
    """A UUIDv7; later ones are larger."""
    number = next(_numbers)
    tail = (7 << 76) | (number >> 62 & 0xFFF) << 64 | (2 << 62) | (number & (2**62 - 1))
    return ((at_ms & (2**48 - 1)) << 80 | tail).to_bytes(16, "big")


def stored(connection: Connection, model: type[Base], /, **values: Any) -> int:
    """Insert a row; returns its id."""
    table: Any = model.__table__
    return int(
        connection.execute(insert(table).values(**values).returning(table.c.id)).scalar_one()
    )


def a_stored_team(
    connection: Connection, organization: str = "acme", team: str = "search"
) -> TeamIds:
    common = {"source": "config", "created_at_ms": NOW_MS}
    found = connection.execute(select(Organization.id).where(Organization.name == organization))
    organization_id = found.scalar() or stored(
        connection, Organization, name=organization, **common
    )
    team_id = stored(connection, Team, organization_id=organization_id, name=team, **common)
    return TeamIds(organization_id, team_id)


def a_stored_key(
    connection: Connection, name: str = "", team: TeamIds | None = None, **values: Any
) -> KeyIds:
    name = name or f"key-{next(_numbers)}"
    team = team or a_stored_team(connection, team=f"team-{next(_numbers)}")
    defaults = {
        "sha256": os.urandom(32).hex(),
        "source": "config",
        "created_at_ms": NOW_MS,
    }
    key_id = stored(connection, ApiKey, name=name, team_id=team.team_id, **(defaults | values))
    return KeyIds(key_id, *team)


def a_row(key: KeyIds, **values: Any) -> dict[str, Any]:
    """A complete cost row: a finished chat call of 100 + 50 tokens for 0.0001 USD."""
    at_ms = values.get("at_ms", NOW_MS)
    defaults = {
        "call_id": a_uuid7(at_ms),
        "at_ms": at_ms,
        **key._asdict(),
        "project_id": None,
        "user_id": None,
        "charge_set_id": None,
        "adjusts": None,
        "provider": "openai",
        "model": "gpt-5",
        "route": "chat.completions",
        "stream": False,
        "http_status": 200,
        "ending": "complete",
        "usage_source": "reported",
        "input_tokens": 100,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "output_tokens": 50,
        "reasoning_tokens": 0,
        "usage": {"input_tokens": 100, "output_tokens": 50},
        "price_id": None,
        "cost_nano": 100_000,
        "cost_items": [["input", 100, 250 * 10**9], ["output", 50, 1500 * 10**9]],
        "hold_nano": 1_000_000,
        "charged_tokens": 150,
        "charged_requests": 1,
        "duration_ms": 800,
        "first_byte_ms": 300,
        "client_retry": 0,
        "flags": 0,
        "error": "",
        "response_id": "",
        "tags": None,
        "provider_cost_nano": None,
        "drift_nano": None,
    }
    return defaults | values


def insert_rows(connection: Connection, *rows: dict[str, Any]) -> None:
    connection.execute(insert(UsageCost), list(rows))


def an_adjustment(connection: Connection, row: dict[str, Any], **values: Any) -> None:
    """What names the prices of a row that is an adjustment."""
    named = {"call_id": row["call_id"], "repricing_id": None, "to_price_id": row["price_id"]}
    table: Any = CostAdjustment.__table__
    connection.execute(insert(table).values(named | values))


def a_price(provider: str = "openai", model: str = "model-1", **entry: object) -> Price:
    """1 and 10 USD per million tokens, a window of 100,000 and an output of 8,000 tokens."""
    return Price.compile(provider, model, an_entry(**entry))


def an_entry(**entry: object) -> dict[str, object]:
    values: dict[str, object] = {
        "input_cost_per_token": "0.000001",
        "output_cost_per_token": "0.00001",
        "max_input_tokens": 100_000,
        "max_output_tokens": 8_000,
        "mode": "chat",
    }
    return values | entry


def a_table(
    directory: Path,
    entries: Mapping[tuple[str, str], Mapping[str, object]] | None = None,
    table_id: str = "2026-11-21-test",
    effective_from: str = "2026-11-21",
) -> PriceTable:
    if entries is None:
        entries = {("openai", "model-1"): an_entry()}
    info = write_table(
        directory,
        entries,
        table_id=table_id,
        source="test",
        source_sha256="0" * 64,
        effective_from=effective_from,
    )
    return PriceTable.open(info.path)


def a_key(**fields: object) -> KeyEntry:
    values: dict[str, object] = {
        "id": 7,
        "sha256": "ab" * 32,
        "name": "search-prod",
        "organization_id": 1,
        "organization": "acme",
        "team_id": 2,
        "team": "search",
    }
    return KeyEntry(**(values | fields))


def a_budget(**fields: object) -> BudgetEntry:
    values: dict[str, object] = {
        "id": next(_numbers),
        "scope": "team/acme/search",
        "unit": "usd",
        "limit": 20 * NANO_PER_USD,
        "period": "day",
    }
    return BudgetEntry(**(values | fields))


def roll_up(connection: Connection, *rows: dict[str, Any]) -> None:
    """Rows in the rollups, as the ledger of one more host puts them there."""
    rows = tuple(
        row | {"tags": json.dumps(row["tags"]) if row["tags"] is not None else None} for row in rows
    )
    calls = [tuple(row[name] for name in COLUMNS) for row in rows if row["adjusts"] is None]
    corrections = [tuple(row[name] for name in COLUMNS) for row in rows if row["adjusts"]]
    for group, count in ((calls, 1), (corrections, 0)):
        if group:
            ledger_rollups.roll_up(connection, group, f"host-{next(_numbers)}", count)


def a_stored_price(
    connection: Connection, version: str = "2026-01-01", model: str = "openai/gpt-5"
) -> int:
    """A stored price entry: 0.25 USD per million tokens in, 1.50 out. Returns its id."""
    version_id = connection.execute(
        select(PriceVersion.id).where(PriceVersion.version == version)
    ).scalar() or stored(
        connection, PriceVersion,
        version=version, table_id=version, sha256="0" * 64, source="test",
        effective_from="2026-01-01", overlays=[], created_at_ms=NOW_MS,
    )  # fmt: skip
    entry = {"input_cost_per_token": "0.00000025", "output_cost_per_token": "0.0000015"}
    return stored(connection, ModelCost, price_version_id=version_id, model=model, entry=entry)


def a_lease(
    connection: Connection, window_id: int, epoch_id: int, granted: int, spent: int = 0
) -> None:
    values = {"window_id": window_id, "epoch_id": epoch_id, "granted": granted, "spent": spent}
    connection.execute(insert(Lease).values(**values))


def a_bound(nano: int, tokens: int = 1, learned: tuple[int, int] | None = None) -> Bounds:
    """What a call may need; `learned`: in USD and in tokens of soft budgets."""
    soft = Ceiling(*learned, Usage()) if learned is not None else None
    return Bounds(Ceiling(nano, tokens, Usage()), soft)
