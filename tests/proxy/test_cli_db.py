import json
import time
from pathlib import Path

import pytest

from tests.factories import a_row, insert_rows, roll_up
from tests.proxy.cli_runner import Tollkeeper
from tests.proxy.ledger_rows import key_ids, writing


@pytest.fixture
def tollkeeper(tmp_path: Path) -> Tollkeeper:
    return Tollkeeper(tmp_path)


def test_up_down_and_up_again(tollkeeper: Tollkeeper) -> None:
    head = tollkeeper.ok("db", "upgrade").strip()
    assert tollkeeper.ok("db", "current").strip() == head
    assert tollkeeper.ok("db", "downgrade", "base", "--yes") == "base\n"
    result = tollkeeper.run("db", "current")
    assert (result.exit_code, result.stdout) == (1, "base\n")
    assert tollkeeper.ok("db", "upgrade").strip() == head


def test_downgrade_asks(tollkeeper: Tollkeeper) -> None:
    head = tollkeeper.ok("db", "upgrade").strip()
    assert tollkeeper.run("db", "downgrade", "base", stdin="n\n").exit_code == 1
    assert tollkeeper.ok("db", "current").strip() == head


def test_unknown_revision(tollkeeper: Tollkeeper) -> None:
    result = tollkeeper.run("db", "upgrade", "9999")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_retain_of_an_empty_ledger_removes_nothing(tollkeeper: Tollkeeper) -> None:
    tollkeeper.ok("db", "upgrade")
    assert "no calls before" in tollkeeper.run("db", "retain", "--keep", "400d").output
    assert tollkeeper.ok("db", "retain", "--keep", "90d", "--dry-run", "--format", "json") == "[]\n"


@pytest.mark.parametrize(("keep", "said"), [("30d", "less than 90d"), ("1y", "no number of days")])
def test_retain_says_what_it_cannot_keep(tollkeeper: Tollkeeper, keep: str, said: str) -> None:
    result = tollkeeper.run("db", "retain", "--keep", keep)
    assert result.exit_code == 2
    assert said in result.stderr


def test_retain_removes_old_calls_and_keeps_their_sums(tollkeeper: Tollkeeper) -> None:
    tollkeeper.ok("keys", "create", "--name", "dev", "--team", "acme/support")
    with writing(tollkeeper.directory) as connection:
        key = key_ids(connection, "dev")
        recent_ms = time.time_ns() // 1_000_000
        rows = [a_row(key), a_row(key), a_row(key, at_ms=recent_ms)]
        insert_rows(connection, *rows)
        roll_up(connection, *rows)
    before = tollkeeper.ok("report", "--by", "month")
    result = tollkeeper.run("db", "retain", "--keep", "90d", "--format", "json")
    (month,) = json.loads(result.stdout)
    assert (month["month"], month["calls"], month["cost_usd"]) == ("2026-01", 2, "0.0002")
    assert "2 calls of 0.0002 USD removed" in result.stderr
    assert tollkeeper.ok("report", "--by", "month") == before
    refused = tollkeeper.run("report", "--by", "route")
    assert refused.exit_code == 2
    assert "were removed (`tollkeeper db retain`)" in refused.stderr
