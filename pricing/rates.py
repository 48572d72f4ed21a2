"""From a price entry to rates: which of its keys price which bucket, and when.

An entry maps price keys to exact decimal text in USD per unit. A token key is a base, an optional
context size and an optional service tier: `input_cost_per_token_above_200k_tokens_priority`.
Formulas: once the whole prompt, cached tokens included, exceeds a context size (N thousand, of
1000), every token of the request is billed at that size's rate; a missing combination falls back
to the size's standard key, then to the smaller size; a missing tier falls back to the standard
tier, a missing cache or modality price to the input (output) price.
"""

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, NamedTuple

from pricing.errors import PricingError
from pricing.money import ATTO_PER_USD, atto_from_usd

Entry = Mapping[str, Any]

INPUT = "input_cost_per_token"
OUTPUT = "output_cost_per_token"
CACHE_READ = "cache_read_input_token_cost"
CACHE_WRITE = "cache_creation_input_token_cost"
CACHE_WRITE_1H = "cache_creation_input_token_cost_above_1hr"
REASONING = "output_cost_per_reasoning_token"
CACHE_READ_OLD = "input_cost_per_token_cache_hit"  # what some entries call CACHE_READ
SIZED = (INPUT, OUTPUT, CACHE_READ, CACHE_WRITE, CACHE_WRITE_1H)

# Key suffix of each service tier; "" is the standard one.
TIERS = {
    "": "",
    "flex": "_flex",
    "priority": "_priority",
    "batch": "_batches",
    "balanced": "_balanced",
    "ultrafast": "_ultrafast",
    "decisions": "_decisions",
}

# xAI bills the larger size once the prompt reaches it; everybody else once it exceeds it.
INCLUSIVE_SIZES = frozenset({"xai"})

_SIZE_KEY = re.compile(
    rf"({'|'.join(sorted(SIZED, key=len, reverse=True))})_above_(\d+)(k?)_tokens"
    rf"({'|'.join(TIERS.values())})"
)
_ONE = Fraction(1)


class Rates(NamedTuple):
    """Atto-USD per token of each bucket, in the order of `buckets.Buckets`."""

    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    input_audio: int
    input_image: int
    input_video: int
    cache_read_audio: int
    cache_read_image: int
    output: int
    reasoning: int
    output_audio: int
    output_image: int


INPUT_BUCKETS = 9  # the first ones are input, the rest output

# Rates by prompt size: each applies to prompts of more than `over` tokens, up to the next one.
Bands = tuple[tuple[int, Rates], ...]


def decimal_of(entry: Entry, key: str) -> Decimal | None:
    """A price of an entry. Raises PricingError when it is no finite number of zero or more."""
    value = entry.get(key)
    if value is None:
        return None
    try:
        number = Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        number = Decimal("NaN")
    if not number.is_finite() or number < 0 or isinstance(value, (bool, float)):
        raise PricingError(f"{key}: {value!r} is not a price (a decimal number in USD, as text)")
    return number


def atto_of(entry: Entry, key: str, factor: Fraction = _ONE) -> int | None:
    """A price in atto-USD times a factor, rounded half to even."""
    usd = decimal_of(entry, key)
    if usd is None:
        return None
    if factor == 1:
        return atto_from_usd(usd)
    return round(Fraction(usd) * ATTO_PER_USD * factor)


def compile_bands(provider: str, entry: Entry, tier: str, factor: Fraction = _ONE) -> Bands:
    """Rates of a service tier for every prompt size. `factor` multiplies each of them.

    Raises PricingError for a price that is no number.
    """
    ranges = entry.get("tiered_pricing")
    if ranges and INPUT in ranges[0]:
        ordered = sorted(ranges, key=lambda part: int(part["range"][0]))
        return tuple(_range_rates(entry, part, factor) for part in ordered)
    suffix = TIERS[tier]
    sizes: dict[int, str] = {}
    for key in entry:
        found = _SIZE_KEY.fullmatch(key)
        if found and found[4] in ("", suffix):
            sizes[int(found[2]) * (1000 if found[3] else 1)] = found[2] + found[3]
    bands = []
    known: dict[str, int | None] = {base: _tier_rate(entry, base, suffix, factor) for base in SIZED}
    if known[CACHE_READ] is None:
        known[CACHE_READ] = _tier_rate(entry, CACHE_READ_OLD, suffix, factor)
    bands.append((-1, _fill(entry, known, suffix, factor)))
    for size in sorted(sizes):
        for base in SIZED:
            rate = _tier_rate(entry, f"{base}_above_{sizes[size]}_tokens", suffix, factor)
            if rate is not None:
                known[base] = rate
        over = size - 1 if provider in INCLUSIVE_SIZES else size
        bands.append((over, _fill(entry, known, suffix, factor)))
    return tuple(bands)


def rates_for(bands: Bands, input_tokens: int) -> Rates:
    """The rates every token of a request with this many input tokens is billed at."""
    rates = bands[0][1]
    if len(bands) == 1:
        return rates
    for over, larger in bands[1:]:
        if input_tokens <= over:
            break
        rates = larger
    return rates


def _tier_rate(entry: Entry, base: str, suffix: str, factor: Fraction) -> int | None:
    rate = atto_of(entry, base + suffix, factor)
    if rate is None and suffix:
        rate = atto_of(entry, base, factor)
    return rate


def _fill(entry: Entry, known: Mapping[str, int | None], suffix: str, factor: Fraction) -> Rates:
    """Complete the rates of one size: modalities, reasoning, and what is missing."""

    def tier_or(base: str, default: int) -> int:
        rate = _tier_rate(entry, base, suffix, factor)
        return default if rate is None else rate

    price = known[INPUT] or 0
    # Models that answer only with images price their output per image token alone.
    output = known[OUTPUT] or tier_or("output_cost_per_image_token", 0)
    read = _first(known[CACHE_READ], price)
    write = _first(known[CACHE_WRITE], price)
    reasoning = atto_of(entry, REASONING + suffix, factor)
    if reasoning is None and not (suffix and OUTPUT + suffix in entry):
        reasoning = atto_of(entry, REASONING, factor)
    return Rates(
        input=price,
        cache_read=read,
        cache_write=write,
        cache_write_1h=_first(known[CACHE_WRITE_1H], write),
        input_audio=tier_or("input_cost_per_audio_token", price),
        input_image=tier_or("input_cost_per_image_token", price),
        input_video=tier_or("input_cost_per_video_token", price),
        cache_read_audio=tier_or("cache_read_input_audio_token_cost", read),
        cache_read_image=tier_or("cache_read_input_image_token_cost", read),
        output=output,
        reasoning=_first(reasoning, output),
        output_audio=tier_or("output_cost_per_audio_token", output),
        output_image=tier_or("output_cost_per_image_token", output),
    )


def _range_rates(entry: Entry, part: Entry, factor: Fraction) -> tuple[int, Rates]:
    """One range of `tiered_pricing`: its own rates, and none of a smaller range's."""
    start = int(part["range"][0])
    flat = (*SIZED, REASONING) if OUTPUT in part else (INPUT, CACHE_READ, CACHE_WRITE)
    own = {key: value for key, value in entry.items() if key not in flat} | dict(part)
    known = {base: atto_of(own, base, factor) for base in SIZED}
    return (start or -1), _fill(own, known, "", factor)


def _first(rate: int | None, default: int) -> int:
    return default if rate is None else rate
