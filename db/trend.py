"""Whether a series rises or falls: a straight line through it by least squares.

Slope and its standard error as in any textbook of statistics (Montgomery, Peck, Vining,
"Introduction to Linear Regression Analysis", 2.2-2.3). Sums are integers; nothing is rounded
before the end.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

POINTS_MIN = 4  # fewer lie on a line too easily
ERRORS_MIN = 2  # a slope within twice its standard error may be chance


class Trend(NamedTuple):
    mean: int  # per period
    slope: int  # change of a period from the one before
    direction: str  # rising | falling | flat; "" for too few periods to tell


def trend(values: Sequence[int]) -> Trend:
    """Of consecutive periods, in their unit. Zeros of none."""
    n = len(values)
    if n == 0:
        return Trend(0, 0, "")
    total = sum(values)
    mean = round(Fraction(total, n))
    if n == 1:
        return Trend(mean, 0, "")
    # Twice the distance of a period from the middle one is an integer.
    spread = sum((2 * i - n + 1) ** 2 for i in range(n))
    product = sum((2 * i - n + 1) * value for i, value in enumerate(values))
    slope = Fraction(2 * product, spread)
    return Trend(mean, round(slope), _direction(values, slope) if n >= POINTS_MIN else "")


def _direction(values: Sequence[int], slope: Fraction) -> str:
    n = len(values)
    spread = Fraction(sum((2 * i - n + 1) ** 2 for i in range(n)), 4)
    variation = n * sum(value**2 for value in values) - sum(values) ** 2
    unexplained = Fraction(variation, n) - slope**2 * spread
    error_squared = unexplained / (n - 2) / spread
    if slope**2 <= ERRORS_MIN**2 * error_squared:
        return "flat"
    return "rising" if slope > 0 else "falling"
