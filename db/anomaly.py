"""Whether an hour's spend is out of line with the same hour of earlier weeks.

The score is a modified z-score: the excess over the median, in units of 1.4826 times the median
absolute deviation, which for normal values is one standard deviation (Iglewicz, Hoaglin, "How to
Detect and Handle Outliers", 1993; they call 3.5 and more an outlier). Neither median nor deviation
is moved by a few weeks that were out of line themselves. The unit is at least a part of what such
an hour spends if it spends at all, because a handful of weeks that happen to agree, or that were
mostly idle, say little of how much they vary. Pure.
"""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

NORMAL = 1.4826  # standard deviations per median absolute deviation
WEEKS_MIN = 4  # with fewer, nothing is said
RELATIVE_UNIT_MIN = 0.4  # of the median of weeks that spent
THRESHOLD = 5.0  # units: three times the median at least; docs/alerts.md has the rates


class Anomaly(NamedTuple):
    spent: int
    usual: int  # the median
    score: float  # how many units above it


def find_anomaly(
    earlier: Sequence[int], spent: int, *, minimum: int, threshold: float = THRESHOLD
) -> Anomaly | None:
    """`earlier`: what the same hour of as many weeks has spent. An excess below `minimum`, in the
    unit of the values, is none, however unusual."""
    if len(earlier) < WEEKS_MIN:
        return None
    usual = median(earlier)
    excess = spent - usual
    if excess < max(minimum, 1):
        return None
    deviation = NORMAL * median(abs(value - usual) for value in earlier)
    busy = median([value for value in earlier if value > 0] or [0])
    unit = max(deviation, RELATIVE_UNIT_MIN * busy, minimum / threshold, 1.0)
    score = excess / unit
    return Anomaly(spent, round(usual), round(score, 1)) if score >= threshold else None
