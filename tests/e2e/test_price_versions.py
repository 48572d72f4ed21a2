"""Prices that change while calls run, prices of one team, and rows that all name the right one."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select

from db.models import ModelCost, PriceVersion
from proxy.control import control
from tests.e2e.shapes import CHAT
from tests.e2e.stage import Stage, eventually
from tests.factories import a_table, an_entry
from tests.replay import Gate

MODELS = ("gpt-4o-mini", "gpt-4o-mini-2024-07-18")  # as the shape asks for it, as it answers
FIRST, SECOND = "2026-11-21-n1", "2026-11-21-n2"  # newer than the shipped ones, of the same day


def a_new_table(stage: Stage, table_id: str, usd: str, effective_from: str = "2026-11-21") -> None:
    """Every token at one price."""
    prices = {"input_cost_per_token": usd, "output_cost_per_token": usd}
    entries = {("openai", name): an_entry(**prices) for name in MODELS}
    a_table(Path(stage.app.config.pricing.tables_dir), entries, table_id, effective_from)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(control, "PRICES_S", 0.02)
    (tmp_path / "tables").mkdir()
    with Stage(tmp_path, pricing={"tables_dir": str(tmp_path / "tables")}) as stage:
        a_new_table(stage, FIRST, "0.000001")
        in_force(stage, FIRST)
        yield stage


def in_force(stage: Stage, wanted: str) -> None:
    """Wait until a version is in force in every worker."""
    here = stage.app.app.control

    def reached() -> bool:
        snapshot = here.snapshot
        assert snapshot is not None
        return snapshot.prices.version == wanted and here.in_force >= snapshot.revision

    eventually(reached)


def priced(row: dict[str, Any], usd: str) -> bool:
    tokens = row["input_tokens"] + row["output_tokens"]
    return Decimal(row["cost_usd"]) == Decimal(usd) * tokens


def test_a_new_table_comes_into_force_while_calls_are_in_flight(stage: Stage) -> None:
    gate = Gate()
    stage.provider.reply(CHAT.reply(before=gate))
    header, row_of_first = stage.tagged()
    with stage.raw_call(CHAT, headers=header) as first:
        stage.provider.wait(lambda provider: len(provider.requests) == 1)
        a_new_table(stage, SECOND, "0.000002")
        in_force(stage, SECOND)
        second = stage.row(stage.paid(CHAT))
        gate.open()
        first.read_until(b"HTTP/1.1 200")
    row = row_of_first()
    assert (row["price_version"], second["price_version"]) == (FIRST, SECOND)
    assert priced(row, "0.000001")
    assert priced(second, "0.000002")
    assert stage.app.findings() == []


def test_a_table_that_is_named_comes_into_force_on_reload(stage: Stage) -> None:
    a_new_table(stage, SECOND, "0.000002")
    in_force(stage, SECOND)
    stage.reload(pricing={"tables_dir": stage.app.config.pricing.tables_dir, "table": FIRST})
    assert priced(stage.row(stage.paid(CHAT)), "0.000001")
    a_new_table(stage, "2026-11-21-n3", "0.000003")
    assert stage.row(stage.paid(CHAT))["price_version"] == FIRST


def test_neither_a_damaged_table_nor_one_of_tomorrow_changes_anything(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    a_new_table(stage, "2999-01-01-later", "1", "2999-01-01")
    broken = Path(stage.app.config.pricing.tables_dir) / "2026-11-21-z.jsonl"
    broken.write_text("{}")
    eventually(lambda: "price tables: " in caplog.text)
    assert stage.row(stage.paid(CHAT))["price_version"] == FIRST
    broken.unlink()
    a_new_table(stage, SECOND, "0.000002")
    in_force(stage, SECOND)
    assert caplog.text.count("price tables: ") == 1  # said once, however often it was looked at


def test_a_team_has_prices_of_its_own(stage: Stage) -> None:
    pricing = {"tables_dir": stage.app.config.pricing.tables_dir}
    overlays = [
        {"team": "acme/search", "discount_percent": "25"},
        {"team": "acme/other", "discount_percent": "99"},
    ]
    stage.reload(pricing=pricing | {"overlays": overlays})
    assert priced(stage.row(stage.paid(CHAT)), "0.00000075")
    stage.reload(pricing=pricing)
    assert priced(stage.row(stage.paid(CHAT)), "0.000001")
    assert stage.app.findings() == []


def test_names_that_clients_invent_make_no_rows(stage: Stage, tmp_path: Path) -> None:
    providers = {"openai": {"base_url": stage.provider.url, "dialect": "openai", "prices": "free"}}
    with stage.configured(providers=providers):
        for number in range(5):
            stage.paid(CHAT, model=f"mine-{number}")
        assert len({row["model"] for row in stage.rows()}) == 5
    engine = create_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    with engine.connect() as connection:
        query = select(ModelCost.model).join(PriceVersion)
        assert connection.execute(query).scalars().all() == ["free/*"]
    engine.dispose()
    assert stage.app.findings() == []
