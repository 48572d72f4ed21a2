"""Sums over time as stacked columns: plain geometry, drawn by a template as SVG.

Money is an integer until it becomes a place on the screen.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pricing.money import NANO_PER_USD

SERIES_MAX = 7  # what people can tell apart; the rest is one more, "others"
OTHERS = "others"
HEIGHT = 100.0  # of the plot; its width is one per period
GAP = 0.18
TICKS = 4


class Bar(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    series: int
    title: str  # what a pointer, or a screen reader, is told


class Legend(NamedTuple):
    series: int
    name: str
    nano: int


class Chart(NamedTuple):
    width: int
    bars: Sequence[Bar]
    ticks: Sequence[int]  # nano-USD at even distances, the highest first
    labels: Sequence[str]  # of the first, the middle and the last period
    legend: Sequence[Legend]
    rows: Sequence[tuple[str, Sequence[int]]]  # the same as figures, in the order of the legend


def stacked(
    periods: Sequence[str], groups: Mapping[str, Sequence[int]], usd: Callable[[int], str]
) -> Chart:
    """`groups`: name -> nano-USD of each period. `usd` makes an amount text."""
    ranked = sorted(groups.items(), key=lambda item: (-sum(item[1]), item[0]))
    shown = [(name, list(values)) for name, values in ranked[:SERIES_MAX]]
    if rest := [values for _, values in ranked[SERIES_MAX:]]:
        shown.append((OTHERS, [sum(column) for column in zip(*rest, strict=True)]))
    top = ceiling(max((_height(shown, n) for n in range(len(periods))), default=0))
    bars = []
    for n, period in enumerate(periods):
        base = 0
        for series, (name, values) in enumerate(shown):
            value = max(values[n], 0)
            if value:
                y = HEIGHT - HEIGHT * (base + value) / top
                title = f"{period}, {name}: {usd(values[n])}"
                bars.append(Bar(n + GAP / 2, y, 1 - GAP, HEIGHT * value / top, series, title))
            base += value
    return Chart(
        width=max(len(periods), 1),
        bars=bars,
        ticks=[top * n // TICKS for n in range(TICKS, -1, -1)],
        labels=_ends(periods),
        legend=[Legend(n, name, sum(values)) for n, (name, values) in enumerate(shown)],
        rows=[(period, [v[n] for _, v in shown]) for n, period in enumerate(periods)],
    )


def _height(shown: Sequence[tuple[str, Sequence[int]]], n: int) -> int:
    """Adjustments can be below zero: they are in the figures, and not drawn."""
    return sum(max(values[n], 0) for _, values in shown)


def ceiling(value: int) -> int:
    """The next round amount: 1, 2, 4 or 5 times a power of ten; of nothing, a dollar."""
    if value <= 0:
        return NANO_PER_USD
    power: int = 10 ** (len(str(value)) - 1)
    factor: int = next(n for n in (1, 2, 4, 5, 10) if n * power >= value)
    return factor * power


def _ends(periods: Sequence[str]) -> list[str]:
    if len(periods) < 3:
        return list(periods)
    return [periods[0], periods[len(periods) // 2], periods[-1]]
