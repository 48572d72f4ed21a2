from decimal import ROUND_HALF_EVEN, Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.money import (
    ATTO_PER_NANO,
    atto_from_usd,
    nano_ceil_from_atto,
    nano_from_atto,
    nano_from_usd,
    usd_from_atto,
    usd_from_nano,
)

AMOUNTS = st.integers(-(10**30), 10**30)


@given(AMOUNTS)
def test_nano_rounds_half_to_even_like_decimal(atto: int) -> None:
    expected = (Decimal(atto) / ATTO_PER_NANO).to_integral_value(ROUND_HALF_EVEN)
    assert nano_from_atto(atto) == int(expected)


@pytest.mark.parametrize(
    ("atto", "nano"), [(500_000_000, 0), (1_500_000_000, 2), (500_000_001, 1), (-500_000_000, 0)]
)
def test_nano_of_a_half(atto: int, nano: int) -> None:
    assert nano_from_atto(atto) == nano


@given(AMOUNTS)
def test_a_bound_is_rounded_up_by_less_than_one(atto: int) -> None:
    assert 0 <= nano_ceil_from_atto(atto) * ATTO_PER_NANO - atto < ATTO_PER_NANO


@pytest.mark.parametrize(
    ("usd", "atto"),
    [
        ("7.5e-08", 75_000_000_000),
        ("0.00000125", 1_250_000_000_000),
        ("1.5000020000000002e-05", 15_000_020_000_000),  # noise of a float in the map
        ("0", 0),
    ],
)
def test_prices_are_exact(usd: str, atto: int) -> None:
    assert atto_from_usd(Decimal(usd)) == atto


@given(st.integers(-(10**15), 10**15))
def test_usd_text_is_exact_and_plain(nano: int) -> None:
    text = usd_from_nano(nano)
    assert nano_from_usd(Decimal(text)) == nano
    assert "e" not in text
    assert not text.endswith((".", ".0"))


def test_usd_text() -> None:
    assert [usd_from_nano(n) for n in (1500, 0, -2_000_000_000)] == ["0.0000015", "0", "-2"]


@given(AMOUNTS)
def test_usd_text_of_atto_is_exact(atto: int) -> None:
    assert Decimal(usd_from_atto(atto)).scaleb(18, Context(prec=40)) == atto
