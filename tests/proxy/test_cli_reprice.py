import json
from pathlib import Path

import pytest
from sqlalchemy import func, select

from db.models import CostAdjustment, ModelCost, PriceVersion, UsageCost
from pricing.book import Overlay, PriceBook
from pricing.calculator import cost
from pricing.table import PriceTable, list_tables
from pricing.usage import Usage
from tests.factories import NOW_MS, a_row, insert_rows, roll_up, stored
from tests.proxy.cli_runner import CONFIG, Tollkeeper
from tests.proxy.ledger_rows import key_ids, writing

HALF = 'pricing: {overlays: [{provider: openai, discount_percent: "50"}]}\n'
TABLE = list_tables()[-1]
SINCE = ("--since", "2026-01-01")
CALLS = 3


@pytest.fixture
def tollkeeper(tmp_path: Path) -> Tollkeeper:
    """Three calls to gpt-4o at the plain table's price, and a configuration that pays half."""
    made = Tollkeeper(tmp_path, CONFIG + HALF)
    made.ok("keys", "create", "--name", "dev", "--team", "acme/support")
    book = PriceBook(PriceTable.open(TABLE.path))
    price = book.quote("openai", "gpt-4o")
    assert price is not None
    computed = cost(Usage(1000, 1000), price)
    with writing(tmp_path) as connection:
        version_id = stored(
            connection, PriceVersion,
            version=book.version, table_id=TABLE.id, sha256=TABLE.sha256, source="test",
            effective_from=TABLE.effective_from, overlays=[], created_at_ms=NOW_MS,
        )  # fmt: skip
        price_id = stored(
            connection, ModelCost,
            price_version_id=version_id, model=price.key, entry=dict(price.entry),
        )  # fmt: skip
        rows = [
            a_row(
                key_ids(connection, "dev"), model="gpt-4o", price_id=price_id,
                cost_nano=computed.nano, cost_items=[list(item) for item in computed.items],
                usage=Usage(1000, 1000).as_dict(), hold_nano=10**9,
            )
            for _ in range(CALLS)
        ]  # fmt: skip
        insert_rows(connection, *rows)
        roll_up(connection, *rows)
    return made


def adjustments(tollkeeper: Tollkeeper) -> tuple[int, int]:
    with writing(tollkeeper.directory) as connection:
        count = connection.execute(select(func.count(CostAdjustment.call_id))).scalar_one()
        total = connection.execute(select(func.sum(UsageCost.cost_nano))).scalar_one()
    return count, total


def test_a_dry_run_shows_the_difference_and_changes_nothing(tollkeeper: Tollkeeper) -> None:
    before = adjustments(tollkeeper)
    found = tollkeeper.ok(
        "prices", "reprice", *SINCE, "--version", "configured", "--dry-run", "--format", "json"
    )
    assert json.loads(found) == [
        {
            "team": "acme/support", "model": "gpt-4o", "calls": CALLS, "changed": CALLS,
            "unpriced": 0, "estimated": 0, "not_priced": 0, "as_reported": 0,
            "before_usd": "0.0375", "after_usd": "0.01875", "difference_usd": "-0.01875",
        }
    ]  # fmt: skip
    assert adjustments(tollkeeper) == before


def test_reports_show_original_adjustment_and_net(tollkeeper: Tollkeeper) -> None:
    result = tollkeeper.run(
        "prices", "reprice", *SINCE, "--version", "configured", "--restate-budgets"
    )
    assert result.exit_code == 0, result.output
    assert "3 calls adjusted by -0.01875 USD, budgets restated" in result.stderr
    (sums,) = json.loads(tollkeeper.ok("report", "--by", "team", "--format", "json"))
    assert (sums["original_usd"], sums["adjustment_usd"], sums["cost_usd"]) == (
        "0.0375", "-0.01875", "0.01875",
    )  # fmt: skip
    assert "original usd" in tollkeeper.ok("report", "--by", "team")
    rows = json.loads(tollkeeper.ok("report", "--by", "call", "--format", "json"))
    (previous,) = {row["previous_price_version"] for row in rows if "adjusts" in row}
    assert previous == TABLE.id
    assert json.loads(tollkeeper.ok("verify", "--format", "json")) == []
    again = tollkeeper.run("prices", "reprice", *SINCE, "--version", "configured")
    assert "0 calls adjusted by 0 USD, budgets left as they were" in again.stderr


def test_versions_by_every_name(tollkeeper: Tollkeeper) -> None:
    overlay = Overlay(provider="openai", discount_percent="50")
    half = PriceBook(PriceTable.open(TABLE.path), [overlay]).version
    dry = ("prices", "reprice", *SINCE, "--dry-run", "--format", "json", "--version")
    assert json.loads(tollkeeper.ok(*dry, half))[0]["changed"] == CALLS
    assert json.loads(tollkeeper.ok(*dry, TABLE.id))[0]["changed"] == 0
    tollkeeper.ok("prices", "reprice", *SINCE, "--version", half)
    plain = Tollkeeper(tollkeeper.directory, CONFIG)  # no longer configured, but rows have it
    assert json.loads(plain.ok(*dry, half))[0]["changed"] == 0
    assert json.loads(plain.ok(*dry, "configured"))[0]["changed"] == CALLS


def test_only_some_calls(tollkeeper: Tollkeeper) -> None:
    dry = ("prices", "reprice", "--version", "configured", "--dry-run", "--format", "json")
    assert json.loads(tollkeeper.ok(*dry, *SINCE, "--team", "acme/support"))
    assert json.loads(tollkeeper.ok(*dry, *SINCE, "--model", "gpt-5*")) == []
    assert json.loads(tollkeeper.ok(*dry, *SINCE, "--until", "2026-01-01"))
    assert json.loads(tollkeeper.ok(*dry, "--since", "2026-01-02")) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*SINCE, "--version", "2001"], "no price version '2001'"),
        ([*SINCE], "--version"),
        (["--version", "configured"], "--since"),
        ([*SINCE, "--version", "configured", "--team", "acme/none"], "no such team"),
        (["--since", "soon", "--version", "configured"], "is no date"),
    ],
)
def test_usage(tollkeeper: Tollkeeper, options: list[str], message: str) -> None:
    result = tollkeeper.run("prices", "reprice", *options)
    assert result.exit_code == 2
    assert message in result.stderr
