"""Test data with defaults, so that a test names only what it is about."""

import itertools
from collections.abc import Mapping
from pathlib import Path

from db.journal_records import Amounts, Hold, Settle
from pricing.price import Price
from pricing.table import PriceTable, write_table

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
