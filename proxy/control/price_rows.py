"""Prices as rows: of models, and what differs between two tables."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from pricing.book import PriceBook
from pricing.names import priced_as, provider_names
from pricing.price import Price
from pricing.sources.merge import PROVENANCE, Entries

SHOWN_PRICES = {
    "input_usd": "input_cost_per_token",
    "cache_read_usd": "cache_read_input_token_cost",
    "cache_write_usd": "cache_creation_input_token_cost",
    "output_usd": "output_cost_per_token",
}
_MILLION = Decimal(1_000_000)

Row = dict[str, Any]


def price_rows(book: PriceBook, provider: str, model: str, day: str) -> Iterator[Row]:
    """Provider and model go by any name that leads to them: a version of a model by its own."""
    provider, model = priced_as(provider, model)
    seen = set()
    for entry_provider, entry_model, _ in book.table.items():
        if any(fnmatchcase(name, provider) for name in provider_names(entry_provider)):
            name = entry_model if fnmatchcase(entry_model, model) else model
            price = book.quote(entry_provider, name)
            if price is not None and price.key not in seen:
                seen.add(price.key)
                yield _row(price, day)


def _row(price: Price, day: str) -> Row:
    """The time of day does not matter: shown are the standard prices of the day."""
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=UTC) if day else None
    prices = price.prices_on(noon.timestamp()) if noon else price.entry
    return {
        "provider": price.provider,
        "model": price.model,
        **{name: _per_million(prices.get(key)) for name, key in SHOWN_PRICES.items()},
        "max_input_tokens": price.max_input_tokens,
        "max_output_tokens": price.max_output_tokens,
        "source": price.entry.get("source"),
        "retired": price.entry.get("retired"),
        "entry": dict(prices),
    }


def _per_million(usd: str | None) -> str | None:
    return None if usd is None else format((Decimal(usd) * _MILLION).normalize(), "f")


def differences(before: Entries, after: Entries) -> Iterator[Row]:
    """By provider and model: added, removed, retired, or changed, key by key."""
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        row: Row = {"provider": name[0], "model": name[1]}
        if was is None or now is None:
            yield row | {"change": "added" if was is None else "removed"}
            continue
        if now.get("retired") and not was.get("retired"):
            yield row | {"change": "retired"}
        for key in sorted((was.keys() | now.keys()) - PROVENANCE):
            if was.get(key) != now.get(key):
                values = {"key": key, "old": was.get(key), "new": now.get(key)}
                yield row | {"change": "changed"} | values
