"""One table of several sources, and of the one before it.

For each model the first source in its provider's order that prices it has the word, and its entry
says so (`source`). What the others say is used in two ways. Where they name the same price of
input and output, they mean the same thing, and lend what the entry lacks: prices of cached
prompts, and those of another day. Where they differ, the entry keeps the difference (`disputed`).
A model that no source lists any more keeps its last entry, with the day it was missed (`retired`).
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from pricing.dated import DATED
from pricing.price import is_priced
from pricing.rates import CACHE_READ, CACHE_READ_OLD, CACHE_WRITE, CACHE_WRITE_1H, INPUT, OUTPUT
from pricing.sources.files import GENAI_PRICES, LITELLM, Source

Name = tuple[str, str]  # provider, model
Entry = Mapping[str, Any]
Entries = Mapping[Name, Entry]

# Which source has the word: litellm's map is closest to what providers bill today, except at
# OpenRouter, whose prices genai-prices takes from OpenRouter's own API.
PRECEDENCE = {"openrouter": (GENAI_PRICES.name, LITELLM.name)}
DEFAULT_PRECEDENCE = (LITELLM.name, GENAI_PRICES.name)

COMPARED = (INPUT, OUTPUT, CACHE_READ, CACHE_WRITE, CACHE_WRITE_1H)
_LENT = (CACHE_READ, CACHE_WRITE, CACHE_WRITE_1H)

# What only says where an entry is from: no price changes with it.
PROVENANCE = frozenset({"disputed", "lent", "retired", "source", "versions"})


def merge(sources: Sequence[Source], previous: Entries, day: str) -> dict[Name, dict[str, Any]]:
    """The entries of a table for `day` (ISO date), after `previous`, the entries of the last one.

    An entry of `previous` from a source that is not among these stays as it is.
    """
    by_name = {source.short_name: source.entries for source in sources}
    merged = {}
    for name in sorted({name for entries in by_name.values() for name in entries}):
        order = PRECEDENCE.get(name[0], DEFAULT_PRECEDENCE)
        said = [(each, by_name[each][name]) for each in order if name in by_name.get(each, ())]
        merged[name] = _merged(said)
    for name, entry in previous.items():
        if name not in merged:
            merged[name] = _kept(entry, by_name.keys(), day)
    return merged


def _merged(said: Sequence[tuple[str, Entry]]) -> dict[str, Any]:
    """The entry of one model from what each source says, in order."""
    said = sorted(said, key=lambda pair: not is_priced(pair[1]))
    (source, first), *others = said
    entry = {**first, "source": source}
    if len(said) > 1:
        entry.pop("versions", None)  # the other source lists versions by name
    for other_source, other in others:
        if not is_priced(other):
            continue
        differing = {key: other[key] for key in COMPARED if _differ(key, first, other)}
        if INPUT in differing or OUTPUT in differing:
            entry.setdefault("disputed", {})[other_source] = differing
        elif _same_base(first, other):
            if differing:
                entry.setdefault("disputed", {})[other_source] = differing
            _lend(entry, other_source, other)
    return entry


def _differ(key: str, one: Entry, other: Entry) -> bool:
    return key in one and key in other and Decimal(one[key]) != Decimal(other[key])


def _same_base(one: Entry, other: Entry) -> bool:
    return all((key in one) == (key in other) for key in (INPUT, OUTPUT)) and INPUT in one


def _lend(entry: dict[str, Any], source: str, other: Entry) -> None:
    if "tiered_pricing" in entry or "off_peak_pricing" in entry:
        return  # such an entry states its prices elsewhere
    lent = [key for key in (*_LENT, DATED) if key in other and key not in entry]
    if CACHE_READ_OLD in entry and CACHE_READ in lent:
        lent.remove(CACHE_READ)
    if lent:
        entry |= {key: other[key] for key in lent}
        entry["lent"] = {"by": source, "what": lent}


def _kept(entry: Entry, imported: Any, day: str) -> dict[str, Any]:
    gone = entry.get("source", LITELLM.name) in imported
    return {"source": LITELLM.name, **({"retired": day} if gone else {}), **entry}


class Disagreement(NamedTuple):
    """One price that two sources give differently."""

    model: str  # "provider/model"
    key: str
    source: str  # the one that has the word
    price: str
    other_source: str
    other_price: str


def disagreements(entries: Iterator[tuple[str, str, Entry]]) -> Iterator[Disagreement]:
    """What the entries of a table keep of the differences between its sources."""
    for provider, model, entry in entries:
        for other, prices in (entry.get("disputed") or {}).items():
            for key, price in prices.items():
                yield Disagreement(
                    f"{provider}/{model}", key, str(entry["source"]), str(entry[key]), other, price
                )


def table_id(sources: Sequence[Source], day: str) -> str:
    """The id of the table made of these sources: sorts by date."""
    return "-".join([day, *(source.name.replace(" ", "-") for source in sources)])
