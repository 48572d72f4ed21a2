import csv
import io
import json
import sys
from decimal import Decimal

import pytest

from db.reports import CALL_FIELDS
from proxy.cli_output import csv_cell
from tests.factories import a_row, insert_rows, roll_up
from tests.proxy.cli_runner import Tollkeeper
from tests.proxy.ledger_rows import key_ids, writing

CALLS = 2_500  # more than two batches


@pytest.fixture(scope="module")
def tollkeeper(tmp_path_factory: pytest.TempPathFactory) -> Tollkeeper:
    made = Tollkeeper(tmp_path_factory.mktemp("report"))
    made.ok("keys", "create", "--name", "dev", "--team", "acme/support")
    with writing(made.directory) as connection:
        search = key_ids(connection, "search-prod")
        rows = [a_row(search, cost_nano=number) for number in range(CALLS)]
        rows.append(a_row(key_ids(connection, "dev"), model="=cmd()", cost_nano=7_000_000_000))
        insert_rows(connection, *rows)
        roll_up(connection, *rows)
    return made


def test_by_call_as_json(tollkeeper: Tollkeeper) -> None:
    rows = json.loads(tollkeeper.ok("report", "--by", "call", "--format", "json"))
    assert len(rows) == CALLS + 1
    assert tuple(rows[0]) == CALL_FIELDS
    assert rows[-1]["cost_usd"] == "7"


def test_by_call_as_csv_and_ndjson(tollkeeper: Tollkeeper) -> None:
    text = tollkeeper.ok("report", "--by", "call", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == CALLS + 1
    assert rows[-1]["model"] == "'=cmd()"
    text = tollkeeper.ok("report", "--by", "call", "--format", "ndjson")
    assert len([json.loads(line) for line in text.splitlines()]) == CALLS + 1


def test_grouped(tollkeeper: Tollkeeper) -> None:
    rows = json.loads(tollkeeper.ok("report", "--by", "team,model", "--format", "json"))
    assert [(row["team"], row["model"], row["calls"], row["cost_usd"]) for row in rows] == [
        ("support", "=cmd()", 1, "7"),
        ("search", "gpt-5", CALLS, "0.00312375"),
    ]


def test_filters(tollkeeper: Tollkeeper) -> None:
    rows = tollkeeper.ok("report", "--by", "call", "--where", "key=dev", "--format", "ndjson")
    assert rows.count("\n") == 1
    result = tollkeeper.run("report", "--since", "2001-01-01", "--until", "2001-01-02")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no calls\n")


def test_table(tollkeeper: Tollkeeper) -> None:
    assert "0.00312375" in tollkeeper.ok("report")


def test_periods_comparison_and_trend(tollkeeper: Tollkeeper) -> None:
    zone = ["--granularity", "day", "--timezone", "Asia/Kolkata", "--format", "json"]
    rows = json.loads(tollkeeper.ok("report", "--by", "total", *zone))
    assert [(row["period"], row["cost_usd"]) for row in rows] == [("2026-01-01", "7.00312375")]
    table = tollkeeper.run("report", "--since", "2026-01-01", "--until", "2026-01-01", "--compare")
    assert "compared with 2025-12-31T00:00:00Z to 2026-01-01T00:00:00Z" in table.stderr
    assert "previous" in table.stdout
    options = ["--since", "2026-01-01", "--until", "2026-01-05", "--granularity", "day", "--trend"]
    text = tollkeeper.ok("report", "--by", "model", *options, "--format", "csv")
    trends = {row["model"]: row for row in csv.DictReader(io.StringIO(text))}
    assert trends["'=cmd()"]["mean_usd"] == "1.4"
    assert "direction" in tollkeeper.ok("report", *options)
    assert "partial" not in tollkeeper.ok("report", *options[:-1])


def test_focus_has_every_mandatory_column(tollkeeper: Tollkeeper) -> None:
    """Those of FOCUS 1.2, and costs that add up to the ledger's."""
    text = tollkeeper.ok("report", "--format", "focus")
    first, second = csv.DictReader(io.StringIO(text))
    mandatory = (
        "BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodEnd "
        "BillingPeriodStart ChargeCategory ChargeClass ChargeDescription ChargePeriodEnd "
        "ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName ListCost "
        "PricingQuantity PricingUnit ProviderName PublisherName ServiceCategory ServiceName"
    )
    assert set(mandatory.split()) <= set(first)
    total = Decimal(first["BilledCost"]) + Decimal(second["BilledCost"])
    assert total == Decimal("7.00312375")
    assert first["SubAccountName"] == "search"
    assert (first["ConsumedQuantity"], first["ConsumedUnit"]) == (str(150 * CALLS), "Tokens")
    assert (first["ChargePeriodStart"], first["BillingPeriodEnd"]) == (
        "2026-01-01T00:00:00Z",
        "2026-02-01T00:00:00Z",
    )
    assert json.loads(first["Tags"]) == {"key": "search-prod"}
    assert second["ChargeDescription"] == "'=cmd() at openai"


def test_focus_with_tags_and_what_it_has_not(tollkeeper: Tollkeeper) -> None:
    text = tollkeeper.ok("report", "--format", "focus", "--by", "tag:env", "--granularity", "month")
    assert len(list(csv.DictReader(io.StringIO(text)))) == 2
    for options in (["--by", "team"], ["--by", "call"], ["--granularity", "week"]):
        result = tollkeeper.run("report", "--format", "focus", *options)
        assert (result.exit_code, "FOCUS has" in result.stderr) == (2, True)
    result = tollkeeper.run("report", "--format", "focus", "--granularity", "day", "--trend")
    assert "neither comparisons nor trends" in result.stderr


def test_parquet(tollkeeper: Tollkeeper) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    result = tollkeeper.run("report", "--by", "call", "--format", "parquet")
    assert result.exit_code == 0, result.stderr
    table = parquet.read_table(io.BytesIO(result.stdout_bytes))
    assert table.column_names == list(CALL_FIELDS)
    costs = table.column("cost_usd").to_pylist()
    assert sum(costs) == Decimal("7.00312375")
    assert json.loads(table.column("cost_items")[0].as_py())[0]["item"] == "input"
    options = ["--by", "total", "--granularity", "day", "--compare", "--format", "parquet"]
    result = tollkeeper.run("report", *options)
    row = parquet.read_table(io.BytesIO(result.stdout_bytes)).to_pylist()[0]
    assert (row["calls"], row["partial"], row["change_percent"]) == (CALLS + 1, False, None)


def test_parquet_says_what_it_needs(
    tollkeeper: Tollkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = tollkeeper.run("report", "--format", "parquet")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "install tollkeeper[parquet]" in result.stderr


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_cells_that_a_spreadsheet_would_run_are_defused(start: str) -> None:
    assert csv_cell(f"{start}cmd") == f"'{start}cmd"
    assert csv_cell("-1.5") == "-1.5"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "colour"], "cannot group or filter by 'colour'"),
        (["--by", ","], "name at least one dimension"),
        (["--since", "yesterday"], "since"),
        (["--by", "call", "--trend"], "calls have no periods"),
        (["--timezone", "Mars/Olympus"], "no such time zone"),
        (["--where", "team"], "expected DIMENSION=VALUE"),
    ],
)
def test_usage(tollkeeper: Tollkeeper, options: list[str], message: str) -> None:
    result = tollkeeper.run("report", *options)
    assert result.exit_code == 2
    assert message in result.stderr
