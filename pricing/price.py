"""A price: one entry of a table, compiled for pricing calls and bounding them."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, Self

from pricing.dated import day_of, parse_dated
from pricing.errors import PricingError
from pricing.off_peak import off_peak_entry, parse_off_peak
from pricing.rates import (
    INPUT,
    INPUT_BUCKETS,
    OUTPUT,
    Bands,
    Entry,
    atto_of,
    compile_bands,
    decimal_of,
    rates_for,
)
from pricing.tiers import BATCH_TIERS, normal_tier, reachable_tiers
from pricing.units import (
    MINIMA,
    REQUEST,
    base_of,
    dearest_unit_atto,
    kind_of,
    prices_measures,
    unit_atto,
)
from pricing.usage import Usage

# Entries of these modes generate no output tokens.
_INPUT_ONLY_MODES = frozenset({"embedding", "rerank", "moderation"})

# An image's tokens follow its pixels: the most seen on any model, unless the entry knows better.
IMAGE_TOKENS_MAX = 8_500

# The largest context window anybody sells, where an entry names the usual one only.
LARGE_WINDOW = 1_000_000

# What a call to a model declared free is taken to use at most, each way.
FREE_TOKENS_MAX = 131_072

# Entries of these modes (or of none) bill tokens; anything else in them is another way to say it.
_TOKEN_MODES = frozenset({"chat", "completion", "responses", None})

# Google bills one grounding per prompt, or each query where the entry says so.
_PER_PROMPT = frozenset({"web_search", "google_maps"})

UNITS_KEPT_MAX = 256  # rates of units kept per price: variants come from clients

_ONE = Fraction(1)


def is_priced(entry: Entry) -> bool:
    """Whether an entry prices tokens, or whatever else its model is billed by. A map's 0 for a
    generating model means "unknown" as often as "free", so it does not count; only an overlay can
    say free."""
    return _prices_tokens(entry) or _by_units(entry)


def _prices_tokens(entry: Entry) -> bool:
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


def _by_units(entry: Entry) -> bool:
    mode = entry.get("mode")
    if mode in _TOKEN_MODES and (mode is not None or INPUT in entry or OUTPUT in entry):
        return False
    return prices_measures(entry)


class Price:
    """What one model costs. Immutable; rates are compiled on first use and kept.

    `entry` is the JSON-ready entry it was compiled from: `compile` of it gives an equal price.
    `name` is "provider/model"; `key` is what rows call it: the same, but where several prices go
    by one name, or one price by many.
    """

    __slots__ = (
        "_bands",
        "_citation_atto",
        "_dated",
        "_dated_twins",
        "_dearest",
        "_dearest_units",
        "_factors",
        "_fast",
        "_off_peak",
        "_off_peak_twin",
        "_prices",
        "_units",
        "by_units",
        "entry",
        "generates",
        "image_tokens_max",
        "key",
        "max_input_tokens",
        "max_output_tokens",
        "model",
        "name",
        "output_image_tokens_max",
        "plain",
        "provider",
        "request_atto",
        "search_per_prompt",
        "supports_reasoning",
        "unpriced",
    )

    def __init__(self, provider: str, model: str, entry: Mapping[str, Any], key: str = "") -> None:
        self.provider = provider
        self.model = model
        self.name = f"{provider}/{model}"
        self.key = key or self.name
        self.entry = entry
        self.max_input_tokens = _count(entry, "max_input_tokens")
        # Older entries have only `max_tokens`: the output maximum, or a window that bounds it.
        self.max_output_tokens = _count(entry, "max_output_tokens") or _count(entry, "max_tokens")
        self.supports_reasoning = bool(entry.get("supports_reasoning"))
        self.generates = entry.get("mode") not in _INPUT_ONLY_MODES
        self.image_tokens_max = _count(entry, "max_tokens_per_image") or IMAGE_TOKENS_MAX
        self.output_image_tokens_max = _count(entry, "max_tokens_per_output_image")
        self.by_units = _by_units(entry) and not _prices_tokens(entry)  # tokens have no price
        self.request_atto = atto_of(entry, REQUEST) or 0
        self._citation_atto = unit_atto(provider, entry, "citation_tokens") or 0
        self.search_per_prompt = (
            provider in ("gemini", "vertex_ai")
            and "claude" not in model
            and entry.get("web_search_billing_unit") != "per_query"
        )
        block = entry.get("off_peak_pricing")
        self._off_peak = parse_off_peak(block) if block else None
        self._off_peak_twin: Self | None = None
        self._dated = parse_dated(entry)
        self._dated_twins: dict[str, Self] = {}
        self._units: dict[tuple[str, str], int | None] = {}
        self._dearest_units: dict[tuple[str, str], int] = {}
        self._prices = entry  # what rates are compiled from
        self.unpriced = bool(entry.get("unpriced"))
        self._factors, self._fast = _factors(entry)
        self._bands: dict[tuple[str, str, bool], Bands] = {}
        self._dearest: dict[tuple[tuple[str, ...], bool], tuple[tuple[int, int, int], ...]] = {}
        self.plain = self._compiled("", "", False)
        # Prices for prompts beyond the very window: it is larger for those who ask for that.
        if self.max_input_tokens in (self.plain[-1][0], self.plain[-1][0] + 1):
            self.max_input_tokens = LARGE_WINDOW

    @classmethod
    def compile(cls, provider: str, model: str, entry: Mapping[str, Any], key: str = "") -> Self:
        """Compile an entry. Raises PricingError, naming the model, for a malformed one."""
        try:
            return cls(provider, model, entry, key)
        except (PricingError, LookupError, TypeError, ValueError, OSError) as error:
            raise PricingError(f"{provider}/{model}: {error}") from error

    @classmethod
    def flat(cls, provider: str, model: str, atto_per_token: int) -> Self:
        """One declared rate for every token of a model no table knows. Where its replies carry the
        provider's own figure, that is the cost."""
        usd = format(Decimal(atto_per_token).scaleb(-18), "f")
        return cls(provider, model, {INPUT: usd, OUTPUT: usd, "unpriced": True})

    @classmethod
    def free(cls, provider: str, model: str, key: str = "") -> Self:
        """A model declared free. Its maxima only matter to budgets in tokens."""
        maxima = {"max_input_tokens": FREE_TOKENS_MAX, "max_output_tokens": FREE_TOKENS_MAX}
        return cls(provider, model, {INPUT: "0", OUTPUT: "0", **maxima}, key)

    def at(self, at_s: float) -> Self:
        """This price as it was or is for a call made at a unix time. Bounds are made with the
        price itself, whose rates are the standard ones of the table's own time."""
        price = self._as_of(day_of(at_s)) if self._dated else self
        if price._off_peak is None or not price._off_peak.open_at(at_s):
            return price
        if price._off_peak_twin is None:
            price._off_peak_twin = self._twin(off_peak_entry(price._prices))
        return price._off_peak_twin

    def prices_on(self, at_s: float) -> Mapping[str, Any]:
        """The entry as it is on the day of a unix time, whatever the hour."""
        return self._as_of(day_of(at_s))._prices

    def _as_of(self, day: str) -> Self:
        for part in self._dated:
            if part.start <= day < part.end:
                return self._dated_twin(part.start, part.entry)
        return self

    def _dated_twin(self, start: str, entry: Mapping[str, Any]) -> Self:
        twin = self._dated_twins.get(start)
        if twin is None:
            twin = self._dated_twins[start] = self._twin(entry)
        return twin

    def _twin(self, prices: Mapping[str, Any]) -> Self:
        """The same entry with other prices in force."""
        twin = type(self)(self.provider, self.model, prices, self.key)
        twin.entry = self.entry
        return twin

    def bands(self, usage: Usage) -> Bands:
        """The rates that apply to this usage's service tier, region and speed."""
        tier = normal_tier(usage.service_tier) if usage.service_tier else ""
        geo = self._geo(usage.inference_geo.lower()) if usage.inference_geo else ""
        return self._compiled(tier, geo, usage.speed == "fast")

    def unit_atto(self, name: str, service_tier: str = "") -> int | None:
        """Atto-USD of one of a unit (`units.UNITS`, with variant); None: it has no price here."""
        tier = normal_tier(service_tier) if service_tier else ""
        try:
            return self._units[name, tier]
        except KeyError:
            rate = unit_atto(self.provider, self._prices, name, tier)
        if len(self._units) >= UNITS_KEPT_MAX:
            self._units.clear()
        self._units[name, tier] = rate
        return rate

    def billable(self, name: str, count: int) -> int:
        """How many are billed: each, one per prompt however many there were, or a minimum."""
        if count <= 0:
            return 0
        base = base_of(name)
        if self.search_per_prompt and base in _PER_PROMPT:
            return 1
        return max(count, MINIMA.get((self.provider, base), 0))

    def bills_with_tokens(self, name: str) -> bool:
        """Whether a unit is billed besides the tokens of the same reply."""
        kind = kind_of(name)
        return kind == "tool" or (kind == "media" and not self.generates) or self.by_units

    def dearest_unit(self, name: str, service_tier: str = "") -> int:
        """The dearest atto-USD one of a unit can be billed at, in whatever variant it comes if
        none is named."""
        try:
            return self._dearest_units[name, service_tier]
        except KeyError:
            tiers = reachable_tiers(self.provider, service_tier)
        prices = [self._prices, *(part.entry for part in self._dated if part.upcoming)]
        rate = max(dearest_unit_atto(self.provider, each, name, tiers) for each in prices)
        if len(self._dearest_units) >= UNITS_KEPT_MAX:
            self._dearest_units.clear()
        self._dearest_units[name, service_tier] = rate
        return rate

    def dearest(self, usage: Usage) -> tuple[int, int]:
        """The dearest (input, output) atto-USD per token that any reply to a request of at most
        this many input tokens can be billed at. `usage` carries the tier and speed requested; a
        batch is billed at its own tier only."""
        largest = usage.largest_input_tokens
        tiers = BATCH_TIERS if largest else reachable_tiers(self.provider, usage.service_tier)
        fast = usage.speed == "fast"
        steps = self._dearest.get((tiers, fast))
        if steps is None:
            steps = self._dearest[tiers, fast] = self._dearest_steps(tiers, fast)
        best = steps[0]
        for step in steps:
            if (largest or usage.input_tokens) <= step[0]:
                break
            best = step
        return best[1], best[2]

    def _dearest_steps(
        self, tiers: tuple[str, ...], fast: bool
    ) -> tuple[tuple[int, int, int], ...]:
        coming = (self._dated_twin(p.start, p.entry) for p in self._dated if p.upcoming)
        tables = [bands for each in (self, *coming) for bands in each._reachable(tiers, fast)]
        steps, dear_in, dear_out = [], 0, 0
        for over in sorted({over for bands in tables for over, _ in bands}):
            for bands in tables:
                rates = rates_for(bands, over + 1)
                # A token of input may come with one of a citation.
                dear_in = max(dear_in, max(rates[:INPUT_BUCKETS]) + self._citation_atto)
                dear_out = max(dear_out, *rates[INPUT_BUCKETS:])
            steps.append((over, dear_in, dear_out))
        return tuple(steps)

    def _reachable(self, tiers: tuple[str, ...], fast: bool) -> list[Bands]:
        # Which region serves a call is not the request's choice alone, and a speed asked for may
        # be denied: the largest multiplier counts.
        factors = {"": _ONE} | self._factors
        geo = max(factors, key=factors.__getitem__)
        return [self._compiled(tier, geo, fast and self._fast > 1) for tier in tiers]

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
