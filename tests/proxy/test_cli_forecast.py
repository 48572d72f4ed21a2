import json
import time
from pathlib import Path

import pytest

from db.refusals import HOUR_MS, Counted, Group, add_refusals
from tests.factories import a_row, insert_rows, roll_up
from tests.proxy.cli_runner import Tollkeeper
from tests.proxy.ledger_rows import key_ids, writing

DAY_MS = 86_400_000


@pytest.fixture
def tollkeeper(tmp_path: Path) -> Tollkeeper:
    """A cent a day for three weeks, by the machine's own clock."""
    made = Tollkeeper(tmp_path)
    made.ok("keys", "create", "--name", "dev", "--team", "acme/search")
    now_ms = time.time_ns() // 1_000_000
    with writing(tmp_path) as connection:
        key = key_ids(connection, "dev")
        rows = [a_row(key, at_ms=now_ms - n * DAY_MS, cost_nano=10**7) for n in range(22)]
        insert_rows(connection, *rows)
        roll_up(connection, *rows)
    return made


def test_forecast(tollkeeper: Tollkeeper) -> None:
    options = ["--period", "year", "--by", "team", "--format", "json"]
    (row,) = json.loads(tollkeeper.ok("report", "forecast", *options))
    assert row["team"] == "search"
    assert float(row["spent_usd"]) <= float(row["low_usd"]) <= float(row["expected_usd"])
    assert "expected" in tollkeeper.ok("report", "forecast")


def test_exhaustion(tollkeeper: Tollkeeper) -> None:
    rows = json.loads(tollkeeper.ok("report", "exhaustion", "--format", "json"))
    by_scope = {(row["scope"], row["period"]): row for row in rows}
    assert by_scope["team/acme/search", "total"]["exhausted_at"].endswith("Z")
    assert by_scope["key/search-prod", "request"]["exhausted_at"] == ""


def test_refusals(tollkeeper: Tollkeeper, tmp_path: Path) -> None:
    assert tollkeeper.ok("report", "refusals", "--format", "json").strip() == "[]"
    at_ms = time.time_ns() // 10**6
    names = ("acme", "search", "dev", "openai", "gpt-5", "budget_exceeded", "team/acme/search")
    with writing(tmp_path) as connection:
        group = Group(at_ms // HOUR_MS, *names)
        add_refusals(connection, "host", {group: Counted(3, at_ms)})
    options = ["--by", "code,scope", "--where", "team=acme/search", "--format", "json"]
    (row,) = json.loads(tollkeeper.ok("report", "refusals", *options))
    assert (row["code"], row["scope"], row["calls"]) == (*names[-2:], 3)
    wrong = tollkeeper.run("report", "refusals", "--by", "user")
    assert (wrong.exit_code, "counted by hour, organization" in wrong.output) == (2, True)


def test_options_are_checked(tollkeeper: Tollkeeper) -> None:
    for options in (["forecast", "--coverage", "2"], ["exhaustion", "--history-days", "0"]):
        assert tollkeeper.run("report", *options).exit_code == 2
