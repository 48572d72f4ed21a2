"""What is priced outside tokens: tool calls, images, audio, characters, pages, searches.

A key of `Usage.units` is a unit's name, or name and variant, "images@hd/1024x1792": variants are
what the same unit costs different prices for. An entry prices a unit by a key of `UNITS`, a
variant by the same key with the variant behind it, "output_cost_per_image@hd/1024x1792". A
variant without a price of its own has the plain one; a unit whose entry prices variants alone
costs, where the variant is not known, the dearest of them.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pricing.rates import TIERS, Entry, atto_of

# The price of a web search where an overlay sets one, whatever its context size.
SEARCH = "web_search_cost_per_query"
SEARCH_SIZES = "search_context_cost_per_query"
MAPS = "google_maps_grounding_cost_per_query"
REQUEST = "input_cost_per_request"  # a fee on every call, besides its tokens
IMAGE_IN, IMAGE_OUT = "input_cost_per_image", "output_cost_per_image"


class Unit(NamedTuple):
    """One unit and the keys that price it: the first one with a price above zero."""

    keys: tuple[str, ...]
    # "tool": billed on top of tokens. "measure": counts what tokens may count as well, so it is
    # billed only where a reply reports no tokens or the entry does not price them. "media": a
    # measure, which embedding models bill besides the tokens of the text.
    kind: str = "measure"
    per: int = 1  # how many of it the key prices


_SECOND = ("input_cost_per_second", "input_cost_per_audio_per_second", "output_cost_per_second")
_OUTPUT_SECOND = ("output_cost_per_second", "output_cost_per_video_per_second")

UNITS = {
    # calls of tools, on top of tokens
    "web_search": Unit((SEARCH,), kind="tool"),
    "google_maps": Unit((MAPS,), kind="tool"),
    "code_interpreter": Unit(("code_interpreter_cost_per_session",), kind="tool"),
    "file_search": Unit(("file_search_cost_per_call",), kind="tool"),
    "citation_tokens": Unit(("citation_cost_per_token",), kind="tool"),
    # what goes in
    "input_images": Unit((IMAGE_IN,), kind="media"),
    "seconds": Unit(_SECOND, kind="media"),  # of audio
    "milliseconds": Unit(_SECOND, kind="media", per=1_000),
    "video_seconds": Unit(("input_cost_per_video_per_second",), kind="media"),
    "characters": Unit(("input_cost_per_character",)),
    "text_messages": Unit(("input_cost_per_text_message",)),
    "search_units": Unit(("input_cost_per_query",)),  # of reranking
    "pages": Unit(("ocr_cost_per_page",)),
    "annotated_pages": Unit(("annotation_cost_per_page", "ocr_cost_per_page")),
    "credits": Unit(("ocr_cost_per_credit",)),
    # what comes out
    "images": Unit((IMAGE_OUT,)),
    "pixels": Unit(("input_cost_per_pixel", "output_cost_per_pixel")),
    "output_seconds": Unit(_OUTPUT_SECOND),  # of audio or video
    "output_characters": Unit(("output_cost_per_character",)),
}

UNIT_KEYS = frozenset({REQUEST, *(key for unit in UNITS.values() for key in unit.keys)})

# The least that is billed of a unit per call. Groq: ten seconds of audio.
MINIMA = {("groq", "seconds"): 10, ("groq", "milliseconds"): 10_000}


def base_of(name: str) -> str:
    """The unit's name without its variant."""
    return name.partition("@")[0]


def kind_of(name: str) -> str:
    unit = UNITS.get(base_of(name))
    return unit.kind if unit is not None else ""


def unit_atto(provider: str, entry: Entry, name: str, tier: str = "") -> int | None:
    """Atto-USD of one unit; None: the entry does not price it. Raises PricingError."""
    base, _, variant = name.partition("@")
    if base == "web_search":
        return _search_atto(provider, entry, variant)
    found: int | None = None
    for key in _keys(base):
        rate = _tier_rate(entry, f"{key}@{variant}", tier) if variant else None
        if rate is None:
            rate = _tier_rate(entry, key, tier)
        if rate is None:
            rate = max(_variant_rates(entry, key, tier), default=None)
        if rate:
            return _per(rate, UNITS[base].per)
        found = rate if found is None else found
    return found


def dearest_unit_atto(provider: str, entry: Entry, name: str, tiers: tuple[str, ...]) -> int:
    """The most one unit can be billed at: of a bare name, in whatever variant it comes."""
    base, _, variant = name.partition("@")
    names = [name]
    if not variant:
        names += (f"{base}@{other}" for other in _variants(base, entry))
    rates = (unit_atto(provider, entry, each, tier) for each in names for tier in (*tiers, ""))
    return max((rate for rate in rates if rate is not None), default=0)


def prices_measures(entry: Entry) -> bool:
    """Whether an entry has a price above zero of anything that measures a call's work."""
    return any(
        any(_variant_rates(entry, key, "")) or atto_of(entry, key)
        for unit in UNITS.values()
        if unit.kind != "tool"
        for key in unit.keys
    )


def _keys(base: str) -> tuple[str, ...]:
    unit = UNITS.get(base)
    return unit.keys if unit is not None else ()


def _tier_rate(entry: Entry, key: str, tier: str) -> int | None:
    rate = atto_of(entry, key + TIERS[tier]) if tier else None
    return atto_of(entry, key) if rate is None else rate


def _variant_rates(entry: Entry, key: str, tier: str) -> Iterator[int]:
    for each in entry:
        if each.startswith(key + "@"):
            rate = _tier_rate(entry, each, tier)
            if rate is not None:
                yield rate


def _variants(base: str, entry: Entry) -> set[str]:
    if base == "web_search":
        return {"low", "medium", "high"}
    heads = tuple(f"{key}@" for key in _keys(base))
    return {key.partition("@")[2] for key in entry if key.startswith(heads)} if heads else set()


def _search_atto(provider: str, entry: Entry, size: str) -> int | None:
    """By the size of the context a search was asked for; the default one where that is not
    known: low at Perplexity, medium elsewhere."""
    own = atto_of(entry, SEARCH)
    if own is not None:
        return own
    sizes: Mapping[str, Any] = entry.get(SEARCH_SIZES) or {}
    default = "low" if provider == "perplexity" else "medium"
    rate = atto_of(sizes, f"search_context_size_{size or default}")
    return atto_of(sizes, f"search_context_size_{default}") if rate is None else rate


def _per(atto: int, per: int) -> int:
    """Rounded half to even, as prices are."""
    if per == 1:
        return atto
    whole, rest = divmod(atto, per)
    return whole + (rest * 2 > per or (rest * 2 == per and whole & 1))
