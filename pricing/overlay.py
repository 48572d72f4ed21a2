"""Negotiated prices: what the configuration lays over a table's entries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any, Protocol, Self

from pricing.errors import OverlayError, PricingError
from pricing.keys import is_price_key, scale_prices
from pricing.rates import decimal_of

EVERY_TEAM = "*"


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
    @property
    def team(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Overlay:
    """Negotiated prices of the models that match two globs, for the teams ("ORG/TEAM") that match
    a third. The discount (negative: a margin) is taken off every price of the entry, then `prices`
    and maxima replace what the entry has."""

    provider: str = "*"
    model: str = "*"
    discount_percent: str = "0"
    prices: dict[str, str] = field(default_factory=dict)
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    team: str = EVERY_TEAM

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
            other.team,
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

    def stored(self) -> list[Any]:
        """JSON-ready, for `from_stored`. A field that came later is left out at its default, so
        that price versions keep their names."""
        fields = list(astuple(self))
        return fields if self.team != EVERY_TEAM else fields[:-1]

    @classmethod
    def from_stored(cls, fields: Sequence[Any]) -> Self:
        """Raises OverlayError."""
        try:
            overlay = cls(*fields)
            overlay.check()
        except (TypeError, AttributeError, ValueError) as error:
            raise OverlayError(f"not an overlay: {fields!r}") from error
        return overlay
