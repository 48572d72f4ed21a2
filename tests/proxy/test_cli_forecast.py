import json
import time
from pathlib import Path

import pytest

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


def test_options_are_checked(tollkeeper: Tollkeeper) -> None:
    for options in (["forecast", "--coverage", "2"], ["exhaustion", "--history-days", "0"]):
        assert tollkeeper.run("report", *options).exit_code == 2
