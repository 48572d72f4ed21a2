import json
from pathlib import Path

import pytest

from pricing.table import PriceTable, list_tables
from tests.proxy.cli_runner import CONFIG, Tollkeeper

MAP = {
    "gpt-x": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 1.5e-06,
        "output_cost_per_token": 2e-06,
        "max_input_tokens": 1000,
        "max_output_tokens": 100,
    }
}


@pytest.fixture
def tollkeeper(tmp_path: Path) -> Tollkeeper:
    return Tollkeeper(tmp_path)


@pytest.fixture
def price_map(tmp_path: Path) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(MAP))
    return path


def test_list_marks_the_table_in_effect(tollkeeper: Tollkeeper) -> None:
    rows = json.loads(tollkeeper.ok("prices", "list", "--format", "json"))
    assert {row["id"] for row in rows} == {info.id for info in list_tables()}
    assert sum(row["in_effect"] for row in rows) == 1


def test_show(tollkeeper: Tollkeeper) -> None:
    command = ("prices", "show", "gpt-5-mini", "--provider", "openai", "--format", "json")
    (row,) = json.loads(tollkeeper.ok(*command))
    assert (row["input_usd"], row["output_usd"]) == ("0.25", "2")
    assert row["entry"]["mode"] == "chat"


def test_show_applies_overlays(tmp_path: Path) -> None:
    overlay = "pricing: {overlays: [{provider: openai, discount_percent: 20}]}\n"
    command = ("prices", "show", "gpt-5-mini", "--provider", "openai", "--format", "json")
    (row,) = json.loads(Tollkeeper(tmp_path, CONFIG + overlay).ok(*command))
    assert (row["input_usd"], row["output_usd"]) == ("0.2", "1.6")


def test_show_nothing(tollkeeper: Tollkeeper) -> None:
    result = tollkeeper.run("prices", "show", "no-such-model")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no table entry matches" in result.stderr


def test_unknown_table(tollkeeper: Tollkeeper) -> None:
    result = tollkeeper.run("prices", "show", "*", "--table", "nope")
    assert result.exit_code == 2
    assert "no such price table" in result.stderr


def test_import_writes_a_table_once(
    tollkeeper: Tollkeeper, price_map: Path, tmp_path: Path
) -> None:
    command = ("prices", "import", str(price_map), "--effective-from", "2030-01-31", "--to")
    table_id = tollkeeper.ok(*command, str(tmp_path / "tables")).strip()
    assert table_id.startswith("2030-01-31")
    path = tmp_path / "tables" / f"{table_id}.jsonl"
    assert list(PriceTable.open(path).keys()) == ["openai/gpt-x"]
    before = path.read_bytes()
    tollkeeper.ok(*command, str(tmp_path / "tables"))
    assert path.read_bytes() == before


def test_import_refuses(tollkeeper: Tollkeeper, price_map: Path, tmp_path: Path) -> None:
    result = tollkeeper.run("prices", "import", str(price_map), "--effective-from", "tomorrow")
    assert result.exit_code == 2
    price_map.write_text("not json")
    result = tollkeeper.run("prices", "import", str(price_map), "--to", str(tmp_path))
    assert result.exit_code == 2
    assert "not JSON" in result.stderr


def test_diff(tollkeeper: Tollkeeper, price_map: Path) -> None:
    newer = price_map.parent / "newer.json"
    changed = {"gpt-x": MAP["gpt-x"] | {"input_cost_per_token": 1e-06}}
    newer.write_text(json.dumps(changed))
    command = ("prices", "diff", str(price_map), str(newer), "--format", "json")
    result = tollkeeper.run(*command)
    assert result.exit_code == 1
    assert json.loads(result.stdout) == [
        {
            "provider": "openai",
            "model": "gpt-x",
            "key": "input_cost_per_token",
            "old": "0.0000015",
            "new": "0.000001",
        }
    ]
    same = tollkeeper.run("prices", "diff", str(newer), str(newer))
    assert (same.exit_code, same.stdout) == (0, "")
