"""Money as integers. Rows and counters are nano-USD (1e-9 USD); prices are atto-USD (1e-18 USD).

A cost is the exact sum of `count * price` in atto-USD, rounded once, half to even, to nano-USD.
"""

from decimal import ROUND_HALF_EVEN, Decimal

NANO_PER_USD = 10**9
ATTO_PER_USD = 10**18
ATTO_PER_NANO = 10**9


def nano_from_atto(atto: int) -> int:
    """Round atto-USD to nano-USD, half to even."""
    nano, rest = divmod(atto, ATTO_PER_NANO)
    twice = rest * 2
    if twice > ATTO_PER_NANO or (twice == ATTO_PER_NANO and nano & 1):
        nano += 1
    return nano


def nano_ceil_from_atto(atto: int) -> int:
    """Round atto-USD up to nano-USD, for bounds."""
    return -(-atto // ATTO_PER_NANO)


def atto_from_usd(usd: Decimal) -> int:
    """Price in USD per unit to atto-USD; noise beyond 1e-18 is rounded half to even."""
    return int((usd * ATTO_PER_USD).to_integral_value(ROUND_HALF_EVEN))


def nano_from_usd(usd: Decimal) -> int:
    """An amount in USD (a limit, a budget) to nano-USD, half to even."""
    return int((usd * NANO_PER_USD).to_integral_value(ROUND_HALF_EVEN))


def usd_from_nano(nano: int) -> str:
    """Exact decimal string of nano-USD, no exponent, no trailing zeros: 1500 -> "0.0000015"."""
    if 0 < nano < NANO_PER_USD:  # nearly every call
        return f"0.{nano:09d}".rstrip("0")
    if nano < 0:
        return "-" + usd_from_nano(-nano)
    whole, rest = divmod(nano, NANO_PER_USD)
    return f"{whole}.{rest:09d}".rstrip("0") if rest else str(whole)


def usd_from_atto(atto: int) -> str:
    """The same of atto-USD, for the items a cost is the sum of before it is rounded."""
    sign = "-" if atto < 0 else ""
    whole, rest = divmod(abs(atto), ATTO_PER_USD)
    return f"{sign}{whole}.{rest:018d}".rstrip("0").rstrip(".")
