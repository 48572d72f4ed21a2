"""Test data with defaults, so that a test names only what it is about."""

import itertools

from db.journal_records import Amounts, Hold, Settle
from pricing.money import NANO_PER_USD
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
