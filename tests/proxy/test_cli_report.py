import csv
import io
import json

import pytest

from db.reports import CALL_FIELDS
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
