from pathlib import Path

import pytest

from tests.proxy.cli_runner import Tollkeeper


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
