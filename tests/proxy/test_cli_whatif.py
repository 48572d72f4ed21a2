import json
from pathlib import Path

import pytest

from tests.factories import a_row, insert_rows, roll_up
from tests.proxy.cli_runner import Tollkeeper
from tests.proxy.ledger_rows import key_ids, writing


@pytest.fixture
def tollkeeper(tmp_path: Path) -> Tollkeeper:
    made = Tollkeeper(tmp_path)
    made.ok("keys", "create", "--name", "dev", "--team", "acme/support")
    with writing(tmp_path) as connection:
        key = key_ids(connection, "dev")
        usage = {"input_tokens": 1000, "output_tokens": 1000}
        rows = [a_row(key, model="gpt-4o", usage=usage, cost_nano=12_500_000)]
        rows.append(a_row(key, model="gpt-4o", usage=None, cost_nano=0))
        insert_rows(connection, *rows)
        roll_up(connection, *rows)
    return made


def test_what_if(tollkeeper: Tollkeeper) -> None:
    models = ["--model", "openai/gpt-4o", "--model", "openai/gpt-4o-mini"]
    rows = json.loads(tollkeeper.ok("report", "what-if", *models, "--format", "json"))
    assert [row["at_model"] for row in rows] == ["openai/gpt-4o-mini", "openai/gpt-4o"]
    mini, same = rows
    assert (same["what_if_usd"], same["change_usd"], same["change_percent"]) == (
        "0.0125",
        "0",
        "0.0",
    )
    assert mini["what_if_usd"] == "0.00075"  # 0.15 and 0.60 USD per million
    assert mini["change_percent"] == "-94.0"
    assert (mini["calls"], mini["priced"], mini["reasons"]) == (2, 1, ["1 no usage"])
    assert "mini" in tollkeeper.ok("report", "what-if", *models, "--by", "total")


def test_models_that_have_no_price_are_named(tollkeeper: Tollkeeper) -> None:
    result = tollkeeper.run("report", "what-if", "--model", "gpt-4o")
    assert (result.exit_code, "no price for 'gpt-4o'" in result.stderr) == (2, True)
    assert tollkeeper.run("report", "what-if").exit_code == 2
