"""Price versions: chosen by the configuration, described for rows long after."""

import pytest

from pricing.errors import PricingError
from pricing.table import TABLES_DIR, list_tables
from proxy.config import Overlay, Pricing
from proxy.control.prices import Prices

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
