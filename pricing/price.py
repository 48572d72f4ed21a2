"""A price: one entry of a table, compiled for pricing calls and bounding them."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, Self

from pricing.errors import PricingError
from pricing.off_peak import off_peak_entry, parse_off_peak
from pricing.rates import (
    INPUT,
    INPUT_BUCKETS,
    OUTPUT,
    TIERS,
    Bands,
    Entry,
    atto_of,
    compile_bands,
    decimal_of,
    rates_for,
)
from pricing.usage import Usage

# Service tiers as providers spell them in requests and replies; anything else is standard.
_TIER_NAMES = {
    "flex": "flex",
    "on_demand_flex": "flex",
    "priority": "priority",
    "on_demand_priority": "priority",
    "fast": "priority",
    "batch": "batch",
    "batches": "batch",
    "balanced": "balanced",
    "ultrafast": "ultrafast",
}
_STANDARD_NAMES = frozenset({"default", "standard", "standard_only", "on_demand", "scale"})

# A request that names no tier, or "auto", is served as the account is set up: here an account can
# be set up for flex or priority processing, elsewhere no tier named is the standard one.
_ACCOUNT_TIERS = ("", "flex", "priority")
_ACCOUNT_TIER_PROVIDERS = frozenset({"openai", "azure", "azure_ai"})

# Entries of these modes generate no output tokens.
_INPUT_ONLY_MODES = frozenset({"embedding", "rerank", "moderation"})

# An image's tokens follow its pixels: the most seen on any model, unless the entry knows better.
IMAGE_TOKENS_MAX = 8_500

# What a call to a model declared free is taken to use at most, each way.
FREE_TOKENS_MAX = 131_072

# The price of a web search where an overlay sets one.
SEARCH = "web_search_cost_per_query"

_ONE = Fraction(1)


def normal_tier(name: str) -> str:
    """The service tier a request or reply names, as in `rates.TIERS`."""
    return _TIER_NAMES.get(name.lower(), "")


@lru_cache(maxsize=256)  # the names come from clients
def reachable_tiers(provider: str, requested: str) -> tuple[str, ...]:
    """Every tier a reply to this request may be billed at. A tier asked for may be denied, then
    the standard one applies; a name nobody knows may mean any of them."""
    name = requested.lower()
    if name == "auto" or (not name and provider in _ACCOUNT_TIER_PROVIDERS):
        return _ACCOUNT_TIERS
    if not name or name in _STANDARD_NAMES:
        return ("",)
    if name in _TIER_NAMES:
        return ("", _TIER_NAMES[name])
    return tuple(TIERS)


def is_priced(entry: Entry) -> bool:
    """Whether an entry prices tokens. A map's 0 for a generating model means "unknown" as often
    as "free", so it does not count; only an overlay can say free."""
    if entry.get("mode") == "moderation":
        return INPUT in entry
    ranges = entry.get("tiered_pricing")
    if ranges and INPUT in ranges[0]:
        return True
    if INPUT not in entry:
        return False
    if entry.get("mode") in _INPUT_ONLY_MODES:
        return bool(decimal_of(entry, INPUT))
    outputs = [key for key in (OUTPUT, "output_cost_per_image_token") if key in entry]
    return bool(outputs) and any(decimal_of(entry, key) for key in (INPUT, *outputs))


class Price:
    """What one model costs. Immutable; rates are compiled on first use and kept.

    `entry` is the JSON-ready entry it was compiled from: `compile` of it gives an equal price.
    """

    __slots__ = (
        "_bands",
        "_dearest",
        "_factors",
        "_fast",
        "_off_peak",
        "_off_peak_twin",
        "_prices",
        "entry",
        "generates",
        "image_tokens_max",
        "key",
        "max_input_tokens",
        "max_output_tokens",
        "model",
        "plain",
        "provider",
        "search_atto",
        "search_per_prompt",
        "supports_reasoning",
        "unpriced",
    )

    def __init__(self, provider: str, model: str, entry: Mapping[str, Any]) -> None:
        self.provider = provider
        self.model = model
        self.key = f"{provider}/{model}"
        self.entry = entry
        self.max_input_tokens = _count(entry, "max_input_tokens")
        # Older entries have only `max_tokens`: the output maximum, or a window that bounds it.
        self.max_output_tokens = _count(entry, "max_output_tokens") or _count(entry, "max_tokens")
        self.supports_reasoning = bool(entry.get("supports_reasoning"))
        self.generates = entry.get("mode") not in _INPUT_ONLY_MODES
        self.image_tokens_max = _count(entry, "max_tokens_per_image") or IMAGE_TOKENS_MAX
        self.search_atto = _search_price(provider, entry)
        self.search_per_prompt = (
            provider in ("gemini", "vertex_ai")
            and "claude" not in model
            and entry.get("web_search_billing_unit") != "per_query"
        )
        block = entry.get("off_peak_pricing")
        self._off_peak = parse_off_peak(block) if block else None
        self._off_peak_twin: Self | None = None
        self._prices = entry  # what rates are compiled from
        self.unpriced = bool(entry.get("unpriced"))
        self._factors, self._fast = _factors(entry)
        self._bands: dict[tuple[str, str, bool], Bands] = {}
        self._dearest: dict[tuple[tuple[str, ...], bool], tuple[tuple[int, int, int], ...]] = {}
        self.plain = self._compiled("", "", False)

    @classmethod
    def compile(cls, provider: str, model: str, entry: Mapping[str, Any]) -> Self:
        """Compile an entry. Raises PricingError, naming the model, for a malformed one."""
        try:
            return cls(provider, model, entry)
        except (PricingError, LookupError, TypeError, ValueError, OSError) as error:
            raise PricingError(f"{provider}/{model}: {error}") from error

    @classmethod
    def flat(cls, provider: str, model: str, atto_per_token: int) -> Self:
        """One declared rate for every token of a model no table knows. Where its replies carry the
        provider's own figure, that is the cost."""
        usd = format(Decimal(atto_per_token).scaleb(-18), "f")
        return cls(provider, model, {INPUT: usd, OUTPUT: usd, "unpriced": True})

    @classmethod
    def free(cls, provider: str, model: str) -> Self:
        """A model declared free. Its maxima only matter to budgets in tokens."""
        maxima = {"max_input_tokens": FREE_TOKENS_MAX, "max_output_tokens": FREE_TOKENS_MAX}
        return cls(provider, model, {INPUT: "0", OUTPUT: "0", **maxima})

    def at(self, at_s: float) -> Self:
        """This price as it is for a call made at a unix time. Bounds are made with the price
        itself, whose rates are the standard ones."""
        if self._off_peak is None or not self._off_peak.open_at(at_s):
            return self
        if self._off_peak_twin is None:
            twin = type(self)(self.provider, self.model, off_peak_entry(self.entry))
            twin.entry = self.entry
            self._off_peak_twin = twin
        return self._off_peak_twin

    def bands(self, usage: Usage) -> Bands:
        """The rates that apply to this usage's service tier, region and speed."""
        tier = normal_tier(usage.service_tier) if usage.service_tier else ""
        geo = self._geo(usage.inference_geo.lower()) if usage.inference_geo else ""
        return self._compiled(tier, geo, usage.speed == "fast")

    def billable_searches(self, usage: Usage) -> int:
        """Web searches billed: each, or one per prompt however many it made."""
        searches = usage.units.get("web_search", 0)
        if self.search_per_prompt:
            searches = min(searches, 1)
        return max(searches, 0)

    def dearest(self, usage: Usage) -> tuple[int, int]:
        """The dearest (input, output) atto-USD per token that any reply to a request of at most
        this many input tokens can be billed at. `usage` carries the tier and speed requested."""
        tiers = reachable_tiers(self.provider, usage.service_tier)
        fast = usage.speed == "fast"
        steps = self._dearest.get((tiers, fast))
        if steps is None:
            steps = self._dearest[tiers, fast] = self._dearest_steps(tiers, fast)
        best = steps[0]
        for step in steps:
            if usage.input_tokens <= step[0]:
                break
            best = step
        return best[1], best[2]

    def _dearest_steps(
        self, tiers: tuple[str, ...], fast: bool
    ) -> tuple[tuple[int, int, int], ...]:
        # Which region serves a call is not the request's choice alone, and a speed asked for may
        # be denied: the largest multiplier counts.
        factors = {"": _ONE} | self._factors
        geo = max(factors, key=factors.__getitem__)
        tables = [self._compiled(tier, geo, fast and self._fast > 1) for tier in tiers]
        steps, dear_in, dear_out = [], 0, 0
        for over in sorted({over for bands in tables for over, _ in bands}):
            for bands in tables:
                rates = rates_for(bands, over + 1)
                dear_in = max(dear_in, *rates[:INPUT_BUCKETS])
                dear_out = max(dear_out, *rates[INPUT_BUCKETS:])
            steps.append((over, dear_in, dear_out))
        return tuple(steps)

    def _geo(self, name: str) -> str:
        if name in self._factors:
            return name
        return "*" if "*" in self._factors and name not in _GLOBAL_GEOS else ""

    def _compiled(self, tier: str, geo: str, fast: bool) -> Bands:
        bands = self._bands.get((tier, geo, fast))
        if bands is None:
            factor = self._factors.get(geo, _ONE) * (self._fast if fast else 1)
            bands = compile_bands(self.provider, self._prices, tier, factor)
            self._bands[tier, geo, fast] = bands
        return bands


_GLOBAL_GEOS = frozenset({"global", "not_available"})


def _count(entry: Entry, key: str) -> int | None:
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise PricingError(f"{key}: {value!r} is not a token count")
    return value or None


def _factors(entry: Entry) -> tuple[dict[str, Fraction], Fraction]:
    """Multipliers of every token price: by region ("us", "eu"; "*" is any other region named), and
    of `speed: fast`."""
    multipliers = dict(entry.get("provider_specific_entry") or {})
    for name, key in _UPLIFTS.items():
        if key in entry:
            multipliers[name] = entry[key]
    factors = {name: Fraction(decimal_of(multipliers, name) or 0) for name in multipliers}
    fast = factors.pop("fast", _ONE)
    return factors, fast


_UPLIFTS = {
    "eu": "regional_processing_uplift_multiplier_eu",
    "us": "regional_processing_uplift_multiplier_us",
    "*": "regional_endpoint_uplift_multiplier",
}


def _search_price(provider: str, entry: Entry) -> int:
    """Atto-USD per web search. Which context size a search used is never reported: the default
    one is taken, low at Perplexity and medium elsewhere."""
    if SEARCH in entry:
        return atto_of(entry, SEARCH) or 0
    sizes = entry.get("search_context_cost_per_query") or {}
    default = "low" if provider == "perplexity" else "medium"
    return atto_of(sizes, f"search_context_size_{default}") or 0
