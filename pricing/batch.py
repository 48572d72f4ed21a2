"""Batches: many requests at once, billed at the batch tier. What bounds them, and what they used.

A bound needs sums over the requests alone, so requests are read one by one and forgotten, and the
sums hold whatever the price will be. Used counts are summed by the size of the request's input, in
steps no price is finer than, so that each is billed at the rate of its own context size.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from pricing.ceiling import PROVIDER_ADDS_TOKENS, Ceiling, ceiling_cost
from pricing.errors import MissingMaximum, MissingPrice
from pricing.price import Price
from pricing.rates import INPUT, TIERS
from pricing.tiers import BATCH
from pricing.usage import RequestSize, Usage

STEP_TOKENS = 1_000  # context sizes that prices distinguish are multiples of it, or just below
SMALL_TOKENS = 16_000  # no price distinguishes sizes up to this one
MODELS_MAX = 8  # of one batch: what a journal keeps room for

Find = Callable[[str], Price | None]


# --- what bounds a batch -------------------------------------------------------------------


@dataclass(slots=True)
class BatchSize:
    """Sums over the requests of a batch to one model: what `RequestSize` says of each."""

    requests: int = 0
    inline_tokens: int = 0  # of input that is inline: body bytes and what providers add
    images: int = 0
    windows: int = 0  # context windows, of input that is not inline and of bounded tools
    tool_windows: int = 0  # times the passes held for a tool without a bound of its own
    output_limits: int = 0
    choices: int = 0  # replies without a limit of their own
    largest_tokens: int = 0  # of one request, as above
    largest_images: int = 0
    largest_windows: int = 0
    uses_tools: bool = False
    speed: str = ""
    units: dict[str, int] = field(default_factory=dict)

    def add(self, size: RequestSize) -> None:
        self.requests += 1
        if size.tool_windows < 0:
            self.tool_windows += max(size.inputs, 1)
            self.uses_tools = True
        elif size.windowed or size.tool_windows:
            windows = max(size.tool_windows, size.inputs, 1)
            self.windows += windows
            self.largest_windows = max(self.largest_windows, windows)
        else:
            tokens = size.body_bytes + PROVIDER_ADDS_TOKENS
            self.inline_tokens += tokens
            self.images += size.inline_images
            self.largest_tokens = max(self.largest_tokens, tokens)
            self.largest_images = max(self.largest_images, size.inline_images)
        if size.generates:
            choices = max(size.choices, 1)
            if size.output_limit is None:
                self.choices += choices
            else:
                self.output_limits += max(size.output_limit, 0) * choices
        for name, count in size.units.items():
            self.units[name] = self.units.get(name, 0) + count
        if size.web_searches:
            self.units["web_search"] = self.units.get("web_search", 0) + size.web_searches
        self.speed = size.speed or self.speed

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `BatchSize(**it)` is the inverse."""
        return asdict(self)

    def usage(self, price: Price, server_tool_passes: int) -> Usage:
        """The most the requests can use. Raises MissingMaximum, MissingPrice."""
        if price.by_units:
            raise MissingPrice(price.name, "tokens")
        window = price.max_input_tokens
        windows = self.windows + self.tool_windows * server_tool_passes
        if windows and window is None:
            raise MissingMaximum(price.name, "max_input_tokens")
        of_images = price.image_tokens_max
        largest_windows = self.largest_windows
        if self.uses_tools:
            largest_windows = max(largest_windows, server_tool_passes)
        usage = Usage(
            input_tokens=self.inline_tokens + self.images * of_images + windows * (window or 0),
            service_tier=BATCH,
            speed=self.speed,
            largest_input_tokens=max(
                self.largest_tokens + self.largest_images * of_images,
                largest_windows * (window or 0),
                1,
            ),
            units=dict(self.units),
        )
        if price.generates:
            usage.output_tokens = self.output_limits
            if self.choices:
                if price.max_output_tokens is None:
                    raise MissingMaximum(price.name, "max_output_tokens")
                usage.output_tokens += self.choices * price.max_output_tokens
        return usage


Part = tuple[BatchSize, Price]


def batch_ceiling(parts: Sequence[Part], server_tool_passes: int) -> Ceiling:
    """The most a batch can cost: its requests to each model. Raises MissingMaximum,
    MissingPrice."""
    usages = [size.usage(price, server_tool_passes) for size, price in parts]
    tokens = sum(usage.input_tokens + usage.output_tokens for usage in usages)
    prices = {price.model: price for _, price in parts}
    usage = usages[0]
    if len(usages) > 1:
        names = ["", *(price.model for _, price in parts[1:])]
        usage = Usage(service_tier=BATCH, passes=tuple(zip(names, usages, strict=True)))
    return Ceiling(ceiling_cost(usage, parts[0][1], prices.get), tokens, usage)


def is_batch_priced(price: Price) -> bool:
    """Whether a batch can be billed at this price: it has one for batches, or costs nothing, or
    is a declared rate, which is that of everything."""
    return price.unpriced or INPUT + TIERS[BATCH] in price.entry or not any(price.plain[0][1])


# --- what a batch has used -----------------------------------------------------------------

_SUMMED = tuple(
    f.name for f in fields(Usage) if f.default == 0 and f.name != "largest_input_tokens"
)


def size_step(input_tokens: int) -> int:
    """The same number for input sizes that every price bills at one rate."""
    if input_tokens <= SMALL_TOKENS:
        return 0
    whole, rest = divmod(input_tokens, STEP_TOKENS)
    return 3 * whole + (rest > 0) + (rest == STEP_TOKENS - 1)


def add_usage(total: Usage, part: Usage) -> None:
    """Add counts and units. Tiers and the like must be the same."""
    for name in _SUMMED:
        value = getattr(part, name)
        if value:
            setattr(total, name, getattr(total, name) + value)
    for unit, count in part.units.items():
        total.units[unit] = total.units.get(unit, 0) + count
    largest = part.largest_input_tokens or part.input_tokens
    total.largest_input_tokens = max(total.largest_input_tokens, largest)


class BatchSums:
    """Usage of the requests of a batch, by model as the replies name it, terms and size."""

    def __init__(self) -> None:
        self.requests = 0
        self._sums: dict[tuple[str, str, str, int], Usage] = {}

    def add(self, model: str, usage: Usage) -> None:
        """One request's usage; what it has in passes of other models counts for those."""
        self.requests += 1
        self._add(model, replace(usage, passes=()) if usage.passes else usage)
        for other, part in usage.passes:
            self._add(other or model, part)

    def _add(self, model: str, usage: Usage) -> None:
        key = (model, usage.inference_geo, usage.speed, size_step(usage.input_tokens))
        total = self._sums.get(key)
        if total is None:
            total = self._sums[key] = Usage(
                service_tier=BATCH,
                inference_geo=usage.inference_geo,
                speed=usage.speed,
                largest_input_tokens=1,
            )
        add_usage(total, usage)

    def groups(self) -> list[tuple[str, dict[str, object]]]:
        """(model, Usage.as_dict()), JSON-ready."""
        ordered = sorted(self._sums.items())
        return [(key[0], total.as_dict()) for key, total in ordered]


def merged(groups: Sequence[tuple[Price, Usage]]) -> tuple[Price, Usage]:
    """Groups as one usage, in passes where their rates differ: unnamed ones are of the price
    returned, which is that of the first group."""
    first = groups[0][0]
    sums: dict[tuple[Any, ...], tuple[Price, Usage]] = {}
    for price, usage in groups:
        rates = _band(price, usage)
        key = (price.key, rates, usage.service_tier, usage.inference_geo, usage.speed)
        if key in sums:
            add_usage(sums[key][1], usage)
        else:
            sums[key] = (price, replace(usage, units=dict(usage.units)))
    if len(sums) == 1:
        return first, next(iter(sums.values()))[1]
    passes = [("" if price.key == first.key else price.model, u) for price, u in sums.values()]
    return first, Usage(service_tier=BATCH, passes=tuple(passes))


def _band(price: Price, usage: Usage) -> int:
    """Which of a price's context sizes a usage is billed at."""
    size = usage.largest_input_tokens or usage.input_tokens
    return sum(1 for over, _ in price.bands(usage) if size > over)


def in_one_band(price: Price, bound: Usage) -> bool:
    """Whether every request of a batch within this bound is billed at one context size."""
    return _band(price, bound) == _band(price, Usage(input_tokens=0, service_tier=BATCH))
