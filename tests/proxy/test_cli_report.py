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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "colour"], "cannot group or filter by 'colour'"),
        (["--by", ","], "name at least one dimension"),
        (["--since", "yesterday"], "since"),
        (["--where", "team"], "expected DIMENSION=VALUE"),
    ],
)
def test_usage(tollkeeper: Tollkeeper, options: list[str], message: str) -> None:
    result = tollkeeper.run("report", *options)
    assert result.exit_code == 2
    assert message in result.stderr
