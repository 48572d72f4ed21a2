"""Where a host processes calls is part of what they cost."""

import pytest

from pricing.ceiling import Ceiling, with_tools
from pricing.usage import RequestSize, Usage
from proxy.outcome import at_the_hold, outcome
from proxy.providers.base import Facts, Reading, Route
from tests.factories import a_price

UPLIFTED = a_price(regional_processing_uplift_multiplier_eu="1.1")
FACTS = Facts(Route("responses", "metered"), "model-1", False, RequestSize(100), {})
HOLD = Ceiling(10**9, 100_000, Usage(50_000, 50_000))


def cost_nano(geo: str, **usage: str) -> int:
    reading = Reading(Usage(1_000, 100, **usage), complete=True)  # type: ignore[arg-type]
    done = outcome(
        ending="complete",
        sent=True,
        status=200,
        facts=FACTS,
        ceiling=HOLD,
        price=UPLIFTED,
        reading=reading,
        find_price=lambda *_: None,
        at_s=0,
        geo=geo,
    )
    assert done.usage is not None
    assert done.usage.inference_geo == (usage.get("inference_geo") or geo)
    return done.cost.nano


@pytest.mark.parametrize(
    ("geo", "usage", "percent"),
    [
        ("", {}, 100),
        ("eu", {}, 110),
        ("us", {}, 100),  # no uplift in the table
        ("eu", {"inference_geo": "global"}, 100),  # what the reply says counts
    ],
)
def test_a_data_residency_host(geo: str, usage: dict[str, str], percent: int) -> None:
    plain = 1_000 * 1_000 + 100 * 10_000
    assert cost_nano(geo, **usage) == plain * percent // 100


def test_tools_are_charged_at_their_own_price_where_metering_failed() -> None:
    tool = a_price(input_cost_per_token="0.000000001", output_cost_per_token="0.000000001")
    hold = with_tools(HOLD, UPLIFTED, [("other", Usage(1_000, 1_000), tool)])
    prices = {"other": tool}
    done = at_the_hold("complete", hold, UPLIFTED, prices.get)
    assert done.cost.nano == 50_000 * 1_000 + 50_000 * 10_000 + 2_000 * 1
