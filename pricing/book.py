"""The prices in force: a table, and the configuration's own prices laid over it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any, Protocol, Self

from pricing.errors import OverlayError, PricingError
from pricing.keys import is_price_key, scale_prices
from pricing.names import canonical_provider, plain_model
from pricing.price import Price, is_priced
from pricing.rates import INPUT, decimal_of
from pricing.table import PriceTable

_Make = Callable[[str, str], Price | None]

CACHED_QUOTES_MAX = 4_096  # model names come from clients
FREE = "free"  # the provider whose models, whatever their names, cost nothing


class OverlayLike(Protocol):
    """The fields of an overlay, wherever it was declared."""

    @property
    def provider(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def discount_percent(self) -> str: ...
    @property
    def prices(self) -> Mapping[str, str]: ...
    @property
    def max_input_tokens(self) -> int | None: ...
    @property
    def max_output_tokens(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Overlay:
    """Negotiated prices of the models that match two globs. The discount (negative: a margin) is
    taken off every price of the entry, then `prices` and maxima replace what the entry has."""

    provider: str = "*"
    model: str = "*"
    discount_percent: str = "0"
    prices: dict[str, str] = field(default_factory=dict)
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None

    @classmethod
    def of(cls, other: OverlayLike) -> Self:
        """Copy and check. Raises OverlayError."""
        overlay = cls(
            other.provider,
            other.model,
            other.discount_percent,
            dict(sorted(other.prices.items())),
            other.max_input_tokens,
            other.max_output_tokens,
        )
        overlay.check()
        return overlay

    def check(self) -> None:
        """Raise OverlayError for what would otherwise misprice silently."""
        where = f"overlay {self.provider}/{self.model}"
        try:
            discount = Decimal(self.discount_percent)
        except InvalidOperation:
            discount = Decimal("NaN")
        if not discount.is_finite() or discount > 100:
            raise OverlayError(
                f"{where}: discount_percent {self.discount_percent!r} is no percentage"
            )
        for key in self.prices:
            if not is_price_key(key):
                raise OverlayError(f"{where}: unknown price {key!r}")
            try:
                decimal_of(self.prices, key)
            except PricingError as error:
                raise OverlayError(f"{where}: {error}") from error
        for maximum in (self.max_input_tokens, self.max_output_tokens):
            if maximum is not None and maximum < 1:
                raise OverlayError(f"{where}: a maximum of {maximum} tokens")

    def matches(self, providers: Iterable[str], models: Iterable[str]) -> bool:
        """Whether it applies to a model that goes by any of these names."""
        return any(fnmatchcase(name, self.provider) for name in providers) and any(
            fnmatchcase(name, self.model) for name in models
        )

    def apply(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The entry with this overlay laid over it."""
        discount = Decimal(self.discount_percent)
        result = scale_prices(entry, (100 - discount) / 100) if discount else dict(entry)
        result.update(self.prices)
        if self.max_input_tokens is not None:
            result["max_input_tokens"] = self.max_input_tokens
        if self.max_output_tokens is not None:
            result["max_output_tokens"] = self.max_output_tokens
        return result


class PriceBook:
    """Quotes from one price version. Every overlay that matches applies, in order, so a later one
    has the last word; one with a price of input, or of images, seconds, pages and the like, makes
    an entry for a model the table lacks.

    `unpriced_atto_per_token`: a declared rate for every other model (`unpriced: ceiling`); such a
    price says `unpriced`.
    """

    def __init__(
        self,
        table: PriceTable,
        overlays: Iterable[OverlayLike] = (),
        *,
        unpriced_atto_per_token: int | None = None,
    ) -> None:
        self._table = table
        self._overlays = tuple(Overlay.of(overlay) for overlay in overlays)
        self._unpriced = unpriced_atto_per_token
        self._quotes: dict[tuple[str, str, str], Price | None] = {}
        self.version = _version(table.id, self._overlays, unpriced_atto_per_token)

    def quote(self, provider: str, *models: str) -> Price | None:
        """The price of the first of these names that has one (say, the model the reply reports,
        then the one requested); None when none has. Under `FREE` each is what it was asked as."""
        if provider == FREE and models:
            return self._cached(Price.free, provider, models[-1])
        for model in models:
            price = self._cached(self._resolve, provider, model) if model else None
            if price is not None:
                return price
        if self._unpriced is not None and models:
            return self._cached(self._flat, provider, models[-1])
        return None

    def _cached(self, make: _Make, provider: str, model: str) -> Price | None:
        key = (make.__name__, provider, model)
        try:
            return self._quotes[key]
        except KeyError:
            price = make(provider, model)
        if len(self._quotes) >= CACHED_QUOTES_MAX:
            self._quotes.clear()
        self._quotes[key] = price
        return price

    def _resolve(self, provider: str, model: str) -> Price | None:
        canonical = canonical_provider(provider)
        found = self._table.find(canonical, model)
        name, entry = found or (plain_model(model), {})
        declared = False
        for overlay in self._overlays:
            if overlay.matches((provider, canonical), (model, name)):
                entry = overlay.apply(entry)
                declared = declared or INPUT in overlay.prices or is_priced(overlay.prices)
        if not declared and (found is None or not is_priced(found[1])):
            return None
        return Price.compile(canonical, name, entry)

    def _flat(self, provider: str, model: str) -> Price:
        assert self._unpriced is not None
        price = Price.flat(canonical_provider(provider), plain_model(model), self._unpriced)
        entry = dict(price.entry)
        for overlay in self._overlays:
            if overlay.matches((provider, price.provider), (model, price.model)):
                entry |= overlay.apply({})  # its maxima; a discount is not on a declared rate
        return Price.compile(price.provider, price.model, entry)


def _version(table_id: str, overlays: tuple[Overlay, ...], unpriced: int | None) -> str:
    if not overlays and unpriced is None:
        return table_id
    content = json.dumps([[astuple(overlay) for overlay in overlays], unpriced], sort_keys=True)
    return f"{table_id}+{hashlib.sha256(content.encode()).hexdigest()[:8]}"
