"""The most a call can cost, known before it runs. Measurements behind the rules: docs, ceilings.

Input: one token per body byte and a margin for what providers add, plus the largest image for
each inline image, at most the context window for each input. Content that is not inline: the
window; server-side tools: several windows. Output: the request's own limit, else the model's
maximum, for each choice. All of it at the dearest rate a reply may be billed at.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from pricing.errors import MissingMaximum, MissingPrice
from pricing.money import ATTO_PER_NANO, nano_ceil_from_atto
from pricing.price import Price
from pricing.units import base_of
from pricing.usage import RequestSize, Usage

Quote = Callable[[str], Price | None]  # the price of another model of the same provider
PROVIDER_ADDS_TOKENS = 2_048
SERVER_TOOL_PASSES = 4


class Ceiling(NamedTuple):
    """An upper bound: what budgets in USD and in tokens hold, and the usage both follow from."""

    nano: int
    tokens: int
    usage: Usage
    tools_nano: int = 0  # of it what `usage.passes` can cost, which no output limit changes


Tool = tuple[str, Usage, Price]  # billed at a model of its own: the most it can use


def ceiling(
    size: RequestSize, price: Price, *, server_tool_passes: int = SERVER_TOOL_PASSES
) -> Ceiling:
    """The most a request can cost. Raises MissingMaximum when no bound exists."""
    if size.simple and not price.by_units:
        return _simple_ceiling(size, price)
    usage = ceiling_usage(size, price, server_tool_passes=server_tool_passes)
    tokens = usage.input_tokens + usage.output_tokens
    return Ceiling(ceiling_cost(usage, price), tokens, usage)


def _simple_ceiling(size: RequestSize, price: Price) -> Ceiling:
    """The same for one reply to one text, as nearly all are, without a loop or a look at units."""
    tokens_in, tokens_out = size.body_bytes + PROVIDER_ADDS_TOKENS, 0
    window = price.max_input_tokens
    if window is not None and tokens_in > window:
        tokens_in = window
    if size.generates and price.generates:
        limit = price.max_output_tokens if size.output_limit is None else size.output_limit
        if limit is None:
            raise MissingMaximum(price.name, "max_output_tokens")
        tokens_out = limit if limit > 0 else 0
    usage = Usage(tokens_in, tokens_out, service_tier=size.service_tier, speed=size.speed)
    dear_in, dear_out = price.dearest(usage)
    atto = tokens_in * dear_in + tokens_out * dear_out + price.request_atto
    return Ceiling(-(-atto // ATTO_PER_NANO), tokens_in + tokens_out, usage)


def with_tools(bound: Ceiling, price: Price, tools: Sequence[Tool]) -> Ceiling:
    """The ceiling of a call, and on top of it what tools can use of models of their own."""
    usage = replace(bound.usage, passes=tuple((model, used) for model, used, _ in tools))
    nano = ceiling_cost(usage, price, {model: each for model, _, each in tools}.get)
    tokens = bound.tokens + sum(used.total_tokens for _, used, _ in tools)
    return Ceiling(nano, tokens, usage, nano - bound.nano)


def ceiling_usage(
    size: RequestSize, price: Price, *, server_tool_passes: int = SERVER_TOOL_PASSES
) -> Usage:
    """The most tokens a request can use, whatever bucket they fall in, and the most of everything
    else, with the service tier and speed it asks for. Raises MissingMaximum."""
    if price.by_units:
        return _units_alone(size, price)
    usage = _input_usage(size, price, server_tool_passes)
    images = _images(size) if size.units else 0
    if images and price.output_image_tokens_max:
        usage.output_tokens = images * price.output_image_tokens_max
    elif size.generates and price.generates:
        limit = size.output_limit
        if limit is None:
            limit = price.max_output_tokens
            if limit is None:
                raise MissingMaximum(price.name, "max_output_tokens")
        usage.output_tokens = max(limit, 0) * max(size.choices, 1)
    return usage


def ceiling_cost(usage: Usage, price: Price, quote: Quote | None = None) -> int:
    """Nano-USD of a ceiling's usage: every token at the dearest rate, rounded up. At least the
    cost of any usage within it, however that falls into buckets, tiers and regions. `quote` finds
    the prices of passes at other models, as in `cost`."""
    atto = _atto(usage, price)
    for model, part in usage.passes:
        atto += _atto(part, (quote(model) if quote and model else None) or price)
    return nano_ceil_from_atto(atto)


def output_limit_for(
    size: RequestSize,
    price: Price,
    nano: int,
    *,
    tokens: int | None = None,
    server_tool_passes: int = SERVER_TOOL_PASSES,
) -> int | None:
    """The largest output limit per choice whose ceiling is at most `nano`, and at most `tokens` in
    total where given; never above the request's own limit or the model's maximum. None when not
    even one token fits, or there is no output to limit. Raises MissingMaximum."""
    if not (size.generates and price.generates) or price.by_units:
        return None
    usage = _input_usage(size, price, server_tool_passes)
    choices = max(size.choices, 1)
    limit = price.max_output_tokens if size.output_limit is None else size.output_limit
    _, dear_out = price.dearest(usage)
    room = nano * ATTO_PER_NANO - _atto(usage, price)
    if room < 0:
        return None
    if dear_out:
        fits = room // (dear_out * choices)
        limit = fits if limit is None else min(limit, fits)
    if tokens is not None:
        fits = (tokens - usage.input_tokens) // choices
        limit = fits if limit is None else min(limit, fits)
    if limit is None:
        raise MissingMaximum(price.name, "max_output_tokens")
    return limit if limit > 0 else None


def _atto(usage: Usage, price: Price) -> int:
    dear_in, dear_out = price.dearest(usage)
    atto = usage.input_tokens * dear_in + usage.output_tokens * dear_out + price.request_atto
    if usage.units:
        for name, count in usage.units.items():
            atto += price.billable(name, count) * price.dearest_unit(name, usage.service_tier)
    return atto


def _input_usage(size: RequestSize, price: Price, server_tool_passes: int) -> Usage:
    window = price.max_input_tokens
    if size.windowed or size.tool_windows:
        if window is None:
            raise MissingMaximum(price.name, "max_input_tokens")
        windows = size.tool_windows if size.tool_windows >= 0 else server_tool_passes
        tokens = window * max(windows, size.inputs, 1)
    else:
        tokens = size.body_bytes + PROVIDER_ADDS_TOKENS
        tokens += size.inline_images * price.image_tokens_max
        if window is not None:
            tokens = min(tokens, window * max(size.inputs, 1))
    usage = Usage(input_tokens=tokens, service_tier=size.service_tier, speed=size.speed)
    if size.units:
        usage.units.update(size.units)
    if size.web_searches:
        usage.units["web_search"] = size.web_searches
    return usage


def _images(size: RequestSize) -> int:
    return sum(count for name, count in size.units.items() if base_of(name) == "images")


def _units_alone(size: RequestSize, price: Price) -> Usage:
    """What bounds a call whose model is not billed by tokens at all."""
    if not any(price.unit_atto(name) for name in size.units):
        raise MissingPrice(price.name, ", ".join(size.units) or "tokens")
    return Usage(service_tier=size.service_tier, speed=size.speed, units=dict(size.units))
