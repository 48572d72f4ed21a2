import json
from pathlib import Path

import pytest
from sqlalchemy import select

from db.models import CostValidation
from tests.factories import a_row, insert_rows
from tests.proxy.cli_runner import Tollkeeper
from tests.proxy.ledger_rows import key_ids, writing

EXPORTS = Path(__file__).parents[1] / "pricing/exports"
SEARCHED = [["web_search", 2, 10_000_000 * 10**9]]


@pytest.fixture
def tollkeeper(tmp_path: Path) -> Tollkeeper:
    made = Tollkeeper(tmp_path)
    made.ok("keys", "create", "--name", "dev", "--team", "acme/search")
    with writing(tmp_path) as connection:
        key = key_ids(connection, "dev")
        rows = [
            a_row(key, cost_nano=112_501_250),
            a_row(key, cost_nano=20_000_000, cost_items=SEARCHED),
            a_row(key, cost_nano=7 * 10**9, provider="anthropic", model="claude-sonnet-4-5"),
        ]
        insert_rows(connection, *rows)
    return made


def test_a_ledger_that_agrees(tollkeeper: Tollkeeper) -> None:
    result = tollkeeper.run(
        "reconcile", "openai", str(EXPORTS / "openai_costs.json"), "--format", "json"
    )
    assert result.exit_code == 0, result.output
    model, tool = json.loads(result.stdout)
    assert model == {
        "day": "2026-01-01",
        "model": "gpt-5",
        "calls": 2,
        "ledger_usd": "0.11250125",
        "provider_usd": "0.11250125",
        "drift_usd": "0",
        "drift_percent": "0.00",
        "status": "ok",
    }
    assert (tool["model"], tool["ledger_usd"]) == ("tool:web_search", "0.02")
    assert "0 of 2 lines differ by more than 1 %" in result.stderr
    with writing(tollkeeper.directory) as connection:
        stored = connection.execute(select(CostValidation.__table__)).all()
    assert [(row.source, row.model, row.exceeds) for row in stored] == [
        ("openai", "gpt-5", False),
        ("openai", "tool:web_search", False),
    ]


def test_drift_is_exit_code_1(tollkeeper: Tollkeeper) -> None:
    file = str(EXPORTS / "anthropic_cost_report.json")
    result = tollkeeper.run("reconcile", "anthropic", file)
    assert result.exit_code == 1
    assert "250.00" in result.stdout  # 7 USD here, 2 there
    assert "drift" in result.stdout
    assert tollkeeper.run("reconcile", "anthropic", file, "--threshold", "249").exit_code == 1
    assert tollkeeper.run("reconcile", "anthropic", file, "--threshold", "250").exit_code == 0
    # Nothing was set apart here for the searches that the provider bills.
    lax = ("--threshold", "99", "--minimum-usd", "6")
    assert tollkeeper.run("reconcile", "anthropic", file, *lax).exit_code == 0


def test_calls_of_another_provider(tollkeeper: Tollkeeper) -> None:
    file = str(EXPORTS / "openrouter_activity.csv")
    result = tollkeeper.run("reconcile", "openrouter", file, "--minimum-usd", "1")
    assert result.exit_code == 0
    assert "7" not in result.stdout.split()
    result = tollkeeper.run("reconcile", "openrouter", file, "--provider", "anthropic")
    assert result.exit_code == 1


def test_a_table_of_any_kind(tollkeeper: Tollkeeper, tmp_path: Path) -> None:
    file = tmp_path / "costs.csv"
    file.write_text("when,what,amount\n2026-01-01,theirs,7.1325\n")
    mapping = "day=when,cost_usd=amount"
    found = tollkeeper.ok("reconcile", "csv", str(file), "--mapping", mapping, "--format", "csv")
    assert found.splitlines()[1].startswith("2026-01-01,(all),3,7.13250125,7.1325,")
    mapping += ",model=what"
    result = tollkeeper.run(
        "reconcile", "csv", str(file), "--mapping", mapping, "--alias", "theirs=gpt-5"
    )
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["openai"], "costs.csv: not JSON"),
        (["csv"], "costs.csv: mapping: name the columns"),
        (["csv", "--mapping", "day"], "expected NAME=VALUE"),
        (["csv", "--threshold", "-1"], "expected a number"),
        (["azure"], "azure"),
    ],
)
def test_usage(tollkeeper: Tollkeeper, tmp_path: Path, options: list[str], message: str) -> None:
    file = tmp_path / "costs.csv"
    file.write_text("a,b\n1,2\n")
    result = tollkeeper.run("reconcile", options[0], str(file), *options[1:])
    assert result.exit_code == 2
    assert message in result.stderr
