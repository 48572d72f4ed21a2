"""What a call costs: exact, itemised, a pure function of usage and price."""

from typing import NamedTuple

from pricing.buckets import NAMES, split
from pricing.ceiling import (
    Ceiling,
    Quote,
    ceiling,
    ceiling_cost,
    ceiling_usage,
    output_limit_for,
)
from pricing.money import ATTO_PER_NANO, nano_from_atto
from pricing.price import Price
from pricing.rates import Rates, rates_for
from pricing.usage import Usage

__all__ = [
    "Ceiling",
    "Cost",
    "Quote",
    "ceiling",
    "ceiling_cost",
    "ceiling_usage",
    "cost",
    "output_limit_for",
    "reported_cost",
]

Item = tuple[str, int, int]
PROVIDER_FIGURE = "provider_figure"  # the one item of a cost that is not ours


class Cost(NamedTuple):
    """A cost in nano-USD and the items it is the sum of, rounded once, half to even.

    An item is (name, count, atto-USD per unit); names are those of `buckets.Buckets`, of
    `usage.units`, "request" for a fee per call, and `name@model` for a pass at another model.
    """

    nano: int
    items: list[Item]


def cost(
    usage: Usage, price: Price, quote: Quote | None = None, *, at_s: float | None = None
) -> Cost:
    """Price usage. `quote` finds the prices of passes billed at other models; a pass whose model
    is unknown is priced like the call itself. `at_s` is when the call was made, in unix seconds:
    some prices are lower at certain hours; without it they are the standard ones."""
    if price.unpriced and usage.provider_cost_nano:
        figure = usage.provider_cost_nano
        return Cost(figure, [(PROVIDER_FIGURE, figure, ATTO_PER_NANO)])
    items: list[Item] = []
    if at_s is not None:
        price = price.at(at_s)
    atto = _add(usage, price, "", items)
    if price.request_atto:
        items.append(("request", 1, price.request_atto))
        atto += price.request_atto
    for model, part in usage.passes:
        other = (quote(model) if quote and model else None) or price
        other = other if at_s is None else other.at(at_s)
        atto += _add(part, other, f"@{model}" if model else "", items)
    return Cost(nano_from_atto(atto), items)


def reported_cost(figure_nano: int, priced: Cost, most_nano: int) -> Cost:
    """The provider's own figure as the cost of a call that may cost `most_nano`: at most that, or
    what our price says where that is more. Budgets then cannot pass their limits because of what
    a reply claims."""
    nano = min(figure_nano, max(most_nano, priced.nano))
    return Cost(nano, [(PROVIDER_FIGURE, nano, ATTO_PER_NANO)])


def _add(usage: Usage, price: Price, label: str, items: list[Item]) -> int:
    """Append the items of one pass; context sizes are tested on this pass's prompt alone, of the
    sums of a batch on the largest one."""
    if usage.service_tier or usage.inference_geo or usage.speed:
        bands = price.bands(usage)
    else:
        bands = price.plain
    rates = rates_for(bands, usage.largest_input_tokens or usage.input_tokens)
    atto = 0
    for name, count, rate in _usual_parts(usage, rates) or zip(
        NAMES, split(usage), rates, strict=True
    ):
        if count:
            items.append((name + label, count, rate))
            atto += count * rate
    if usage.units:
        atto += _add_units(usage, price, label, items)
    return atto


def _usual_parts(usage: Usage, rates: Rates) -> tuple[Item, ...] | None:
    """`split` and rates of a usage of text that writes no cache, as nearly all are; else None."""
    whole, read = usage.input_tokens, usage.cache_read_tokens
    out, reasoning = usage.output_tokens, usage.reasoning_tokens
    if (
        usage.cache_write_tokens
        or usage.input_audio_tokens
        or usage.input_image_tokens
        or usage.input_video_tokens
        or usage.cache_read_audio_tokens
        or usage.cache_read_image_tokens
        or usage.output_audio_tokens
        or usage.output_image_tokens
        or not (0 <= read <= whole and 0 <= reasoning <= out)
    ):
        return None
    return (
        ("input", whole - read, rates[0]),
        ("cache_read", read, rates[1]),
        ("output", out - reasoning, rates[9]),
        ("reasoning", reasoning, rates[10]),
    )


def _add_units(usage: Usage, price: Price, label: str, items: list[Item]) -> int:
    counted = bool(usage.input_tokens or usage.output_tokens)
    atto = 0
    for name, reported in usage.units.items():
        rate = price.unit_atto(name, usage.service_tier)
        count = price.billable(name, reported)
        if rate and count and not (counted and not price.bills_with_tokens(name)):
            items.append((name + label, count, rate))
            atto += count * rate
    return atto
