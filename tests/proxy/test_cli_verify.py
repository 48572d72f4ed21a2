import json
from pathlib import Path

import pytest

from tests.factories import a_row, insert_rows
from tests.proxy.cli_runner import Tollkeeper
from tests.proxy.ledger_rows import key_ids, lease, writing


@pytest.fixture
def tollkeeper(tmp_path: Path) -> Tollkeeper:
    made = Tollkeeper(tmp_path)
    made.ok("keys", "create", "--name", "dev", "--team", "acme/search")
    return made


def test_a_clean_ledger(tollkeeper: Tollkeeper) -> None:
    result = tollkeeper.run("verify")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "every invariant holds\n"
    assert json.loads(tollkeeper.ok("verify", "--format", "json")) == []


def test_findings_are_rows_and_exit_code_1(tollkeeper: Tollkeeper) -> None:
    with writing(tollkeeper.directory) as connection:
        lease(connection, "team/acme/search|usd", granted=60_000_000, spent=1)
        insert_rows(connection, a_row(key_ids(connection, "dev")))
    result = tollkeeper.run("verify", "--format", "json")
    assert result.exit_code == 1
    assert {"I1a", "I3"} <= {finding["invariant"] for finding in json.loads(result.stdout)}


def test_no_ledger(tmp_path: Path) -> None:
    assert Tollkeeper(tmp_path).run("verify").exit_code == 2
