"""Amounts and times in the words of an alert."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal

from pricing.money import NANO_PER_USD, usd_from_nano

THOUSAND = 1_000
_CENT = Decimal("0.01")


def exact(unit: str, value: int) -> str | int:
    """USD as exact text, counts as integers: for programs."""
    return usd_from_nano(value) if unit == "usd" else value


def amount(unit: str, value: int) -> str:
    """For people: cents where there are any."""
    return f"{usd(value)} USD" if unit == "usd" else f"{value:,} {unit}"


def usd(nano: int) -> str:
    cents = (Decimal(nano) / NANO_PER_USD).quantize(_CENT, ROUND_HALF_EVEN)
    return usd_from_nano(nano) if not cents else f"{cents:,}"


def thousandths(value: int) -> str:
    """50500 is 50.5."""
    return f"{value / THOUSAND:g}"


def iso_ms(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
