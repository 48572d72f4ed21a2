"""Price versions: chosen by the configuration, described for rows long after."""

import shutil

import pytest

from pricing.errors import PricingError
from pricing.table import TABLES_DIR, list_tables
from proxy.config import Overlay, Pricing
from proxy.control.prices import Prices
from tests.factories import a_table, an_entry

NOW_MS = 1_900_000_000_000
PLAIN = list_tables(TABLES_DIR)[-1].id


def test_the_plain_table_is_the_version_and_describes_its_entries():
    entry = Prices(TABLES_DIR).select(Pricing(), NOW_MS)
    assert (entry.version, entry.overlays, entry.unpriced_atto_per_token) == (PLAIN, (), 0)
    described = Prices(TABLES_DIR).describe(PLAIN, "openai/gpt-4o")  # a version of an earlier start
    assert described.table_id == PLAIN
    assert described.sha256 == entry.table_sha256
    assert described.entry["input_cost_per_token"]


def test_overlays_make_a_version_of_their_own_that_stays_described():
    prices = Prices(TABLES_DIR)
    pricing = Pricing(overlays=[Overlay(provider="openai", discount_percent="50")])
    version = prices.select(pricing, NOW_MS).version
    prices.select(Pricing(), NOW_MS)
    described = prices.describe(version, "openai/gpt-4o")
    assert version.startswith(f"{PLAIN}+")
    assert described.overlays[0][2] == "50"
    plain = prices.describe(PLAIN, "openai/gpt-4o")
    assert described.entry != plain.entry


def test_a_version_that_cannot_be_rebuilt_is_not_described():
    assert Prices(TABLES_DIR).describe(f"{PLAIN}+12345678", "openai/gpt-4o") is None


def test_a_declared_rate_for_the_rest():
    pricing = Pricing(unpriced="ceiling", unpriced_usd_per_mtok="100")
    entry = Prices(TABLES_DIR).select(pricing, NOW_MS)
    assert entry.unpriced_atto_per_token == 100 * 10**12
    assert entry.unpriced == "ceiling"


@pytest.mark.parametrize(
    "pricing", [Pricing(table="no-such"), Pricing(overlays=[Overlay(discount_percent="all")])]
)
def test_what_cannot_be_selected_says_so(pricing):
    with pytest.raises(PricingError):
        Prices(TABLES_DIR).select(pricing, NOW_MS)


def test_a_version_of_an_earlier_start_is_built_again():
    pricing = Pricing(
        overlays=[Overlay(provider="openai", discount_percent="50", team="acme/*")],
        unpriced="ceiling",
        unpriced_usd_per_mtok="100",
    )
    before = Prices(TABLES_DIR)
    version = before.select(pricing, NOW_MS).version
    stored = before.stored(version)
    assert (stored.version, stored.table_id) == (version, PLAIN)
    after = Prices(TABLES_DIR)
    after.select(Pricing(), NOW_MS)
    assert after.describe(version, "openai/gpt-4o#0") is None
    after.remember([stored])
    for key in ("openai/gpt-4o#0", "openai/gpt-4o", "openai/*", "acme/*"):
        described = after.describe(version, key)
        assert described == before.describe(version, key)
        assert described.entry, key


@pytest.mark.parametrize(
    "changes",
    [{"sha256": "0" * 64}, {"table_id": "gone"}, {"overlays": []}, {"overlays": [["*"] * 9]}],
)
def test_a_version_whose_table_is_not_what_it_was_is_not_described(changes):
    prices = Prices(TABLES_DIR)
    version = prices.select(Pricing(overlays=[Overlay(discount_percent="5")]), NOW_MS).version
    stored = prices.stored(version)._replace(**changes)
    later = Prices(TABLES_DIR)
    later.remember([stored])
    assert later.describe(version, "openai/gpt-4o") is None


def test_files_that_have_not_changed_are_not_read_again(tmp_path, monkeypatch):
    shutil.copy(list_tables(TABLES_DIR)[-1].path, tmp_path)
    prices = Prices(tmp_path)
    first = prices.select(Pricing(), NOW_MS)
    read = []
    monkeypatch.setattr("proxy.control.prices.read_info", read.append)
    assert prices.look(Pricing(), NOW_MS) == first
    assert read == []
    monkeypatch.undo()
    a_table(tmp_path, table_id="2026-11-22-new", effective_from="2026-11-22")
    assert prices.look(Pricing(), NOW_MS).version == "2026-11-22-new"


def test_two_tables_of_one_id_are_refused(tmp_path):
    (tmp_path / "more").mkdir()
    a_table(tmp_path, table_id="2026-11-22-a")
    a_table(tmp_path / "more", {("p", "m"): an_entry()}, table_id="2026-11-22-a")
    pricing = Pricing(tables_dir=str(tmp_path / "more"))
    with pytest.raises(PricingError, match="has this id already"):
        Prices(tmp_path).select(pricing, NOW_MS)
    assert Prices(tmp_path).look(pricing, NOW_MS) is None
    shutil.copy(tmp_path / "2026-11-22-a.jsonl", tmp_path / "more")
    assert Prices(tmp_path).select(pricing, NOW_MS).version == "2026-11-22-a"
