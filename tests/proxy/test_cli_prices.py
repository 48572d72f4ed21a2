import json
import time
from pathlib import Path
from typing import Any

import pytest
import respx

from pricing.table import PriceTable, list_tables
from tests.factories import a_row, insert_rows, roll_up
from tests.proxy.cli_runner import CONFIG, Tollkeeper
from tests.proxy.ledger_rows import key_ids, writing

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


def test_show_a_day_a_version_and_a_team(tmp_path: Path) -> None:
    overlays = "pricing: {overlays: [{team: acme/search, discount_percent: -10}]}\n"
    tollkeeper = Tollkeeper(tmp_path, CONFIG + overlays)

    def shown(*arguments: str) -> dict[str, Any]:
        (row,) = json.loads(tollkeeper.ok("prices", "show", *arguments, "--format", "json"))
        return dict(row)

    # Claude 3 Haiku is retired: only genai-prices has it, by the name of its family.
    haiku = shown("claude-3-haiku-20240307", "--provider", "anthropic")
    assert (haiku["model"], haiku["input_usd"]) == ("claude-3-haiku", "0.25")
    assert haiku["source"] == "genai-prices"
    sonnet = ("claude-sonnet-4-6", "--provider", "anthropic")
    assert shown(*sonnet)["input_usd"] == "3"
    assert shown(*sonnet, "--team", "acme/search")["input_usd"] == "3.3"
    assert shown(*sonnet, "--team", "acme/other")["input_usd"] == "3"
    long = "input_cost_per_token_above_200k_tokens"
    assert long not in shown(*sonnet)["entry"]
    past = shown(*sonnet, "--at", "2026-11-21")
    assert past["input_usd"] == "3"
    # Claude 4.6 Opus: until 13 March 2026 prompts above 200,000 tokens cost twice as much.
    opus = shown("claude-4-6-opus", "--provider", "anthropic", "--at", "2026-03-12")
    assert (opus["input_usd"], opus["entry"][long]) == ("5", "0.00001")
    assert long not in shown("claude-4-6-opus", "--provider", "anthropic")["entry"]
    result = tollkeeper.run("prices", "show", *sonnet, "--at", "then")
    assert (result.exit_code, result.stdout) == (2, "")


def test_show_by_any_name_of_a_provider(tollkeeper: Tollkeeper) -> None:
    def keys(model: str, provider: str) -> list[str]:
        told = tollkeeper.ok("prices", "show", model, "--provider", provider, "--format", "json")
        return [f"{row['provider']}/{row['model']}" for row in json.loads(told)]

    llama = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
    assert keys(llama, "together") == keys(llama, "together*") == [f"together_ai/{llama}"]
    gpt_oss = "openai/gpt-oss-120b"
    assert keys(f"{gpt_oss}:groq", "huggingface") == [f"huggingface_groq/{gpt_oss}"]
    assert len(keys(gpt_oss, "huggingface")) > 2


def test_disagreements(tollkeeper: Tollkeeper) -> None:
    command = ("prices", "disagreements", "--provider", "openai", "--format", "json")
    result = tollkeeper.run(*command)
    assert result.exit_code == 1
    rows = json.loads(result.stdout)
    assert rows
    for row in rows:
        assert row["model"].startswith("openai/")
        assert (row["source"], row["other_source"]) == ("litellm", "genai-prices")
        assert row["price"] != row["other_price"]
        assert row["percent"] is None or row["percent"][0] in "+-"
    result = tollkeeper.run("prices", "disagreements", "--provider", "nobody")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "the sources agree" in result.stderr


def test_import_writes_a_table_once(
    tollkeeper: Tollkeeper, price_map: Path, tmp_path: Path
) -> None:
    command = ("prices", "import", str(price_map), "--effective-from", "2030-01-31")
    command += ("--after", "-", "--to")
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
    result = tollkeeper.run("prices", "import", str(price_map), str(price_map))
    assert (result.exit_code, "more than one source is litellm" in result.stderr) == (2, True)
    result = tollkeeper.run("prices", "import", str(price_map), "--after", "nope")
    assert (result.exit_code, "no table is called 'nope'" in result.stderr) == (2, True)
    price_map.write_text("{not json")
    result = tollkeeper.run("prices", "import", str(price_map), "--to", str(tmp_path))
    assert result.exit_code == 2
    assert "not JSON" in result.stderr


def test_what_is_gone_from_the_source_is_retired(tmp_path: Path, price_map: Path) -> None:
    (tmp_path / "tables").mkdir()
    config = f"pricing: {{tables_dir: {tmp_path / 'tables'}}}\n"
    tollkeeper = Tollkeeper(tmp_path, CONFIG + config)
    command = ("prices", "import", str(price_map))
    first = tollkeeper.ok(*command, "--effective-from", "2026-12-01", "--after", "-").strip()
    price_map.write_text(json.dumps({"gpt-y": MAP["gpt-x"]}))
    second = tollkeeper.ok(*command, "--effective-from", "2027-01-01").strip()
    table = PriceTable.open(tmp_path / "tables" / f"{second}.jsonl")
    assert table.entry("openai", "gpt-x") == (
        PriceTable.open(tmp_path / "tables" / f"{first}.jsonl").entry("openai", "gpt-x")
        | {"retired": "2027-01-01"}
    )
    result = tollkeeper.run("prices", "diff", first, second, "--format", "json")
    changes = [(row["model"], row["change"]) for row in json.loads(result.stdout)]
    assert changes == [("gpt-x", "retired"), ("gpt-y", "added")]
    back = tollkeeper.run("prices", "diff", second, first, "--format", "json")
    assert [row["change"] for row in json.loads(back.stdout)] == ["removed"]


@respx.mock
def test_import_from_a_url(
    tollkeeper: Tollkeeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://prices.test/map.json"
    respx.get(url).respond(302, headers={"location": "https://cdn.test/map.json"})
    route = respx.get("https://cdn.test/map.json").respond(json=MAP)
    command = ("prices", "import", url, "--after", "-", "--to", str(tmp_path / "tables"))
    table_id = tollkeeper.ok(*command).strip()
    assert table_id.endswith("-litellm-unknown")
    route.respond(404)
    result = tollkeeper.run(*command)
    assert (result.exit_code, "404" in result.stderr) == (2, True)
    monkeypatch.setattr("proxy.cli_prices_import.FILE_BYTES_MAX", 9)
    monkeypatch.setattr("pricing.sources.files.FILE_BYTES_MAX", 9)
    route.respond(json=MAP)
    result = tollkeeper.run(*command)
    assert (result.exit_code, "larger than" in result.stderr) == (2, True)


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
            "change": "changed",
            "key": "input_cost_per_token",
            "old": "0.0000015",
            "new": "0.000001",
            "spend_usd": "0",
        }
    ]
    assert "spend is not known" in result.stderr  # there is no ledger yet
    same = tollkeeper.run("prices", "diff", str(newer), str(newer))
    assert (same.exit_code, same.stdout) == (0, "")


def test_diff_tells_what_was_spent_on_what_changes(
    tollkeeper: Tollkeeper, price_map: Path, tmp_path: Path
) -> None:
    newer = tmp_path / "newer.json"
    newer.write_text(json.dumps({"gpt-x": MAP["gpt-x"] | {"input_cost_per_token": 1e-06}}))
    tollkeeper.ok("keys", "create", "--name", "dev", "--team", "acme/search")
    now_ms = time.time_ns() // 10**6
    with writing(tmp_path) as connection:
        ids = key_ids(connection, "dev")
        rows = [
            a_row(ids, at_ms=now_ms - days * 86_400_000, model=model, cost_nano=nano)
            for model, nano, days in (
                ("gpt-x", 7, 1),
                ("gpt-x", 8, 29),
                ("gpt-x", 9, 31),
                ("gpt-other", 10, 1),
            )
        ]
        insert_rows(connection, *rows)
        roll_up(connection, *rows)
    command = ("prices", "diff", str(price_map), str(newer), "--format", "json")
    result = tollkeeper.run(*command)
    (row,) = json.loads(result.stdout)
    assert row["spend_usd"] == "0.000000015"
    assert "1 changed; spend on them since 30d: 0.000000015 USD" in result.stderr
    (row,) = json.loads(tollkeeper.run(*command, "--since", "60d").stdout)
    assert row["spend_usd"] == "0.000000024"
    (row,) = json.loads(tollkeeper.run(*command, "--no-spend").stdout)
    assert row["spend_usd"] == "0"
    assert tollkeeper.run(*command, "--since", "ever").exit_code == 2
