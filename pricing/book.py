"""The prices in force: a table, and the configuration's own prices laid over it."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Protocol, Self

from pricing.money import atto_from_usd
from pricing.names import canonical_provider, plain_model, priced_as, provider_names
from pricing.overlay import EVERY_TEAM, Overlay, OverlayLike
from pricing.price import Price, is_priced
from pricing.rates import INPUT
from pricing.table import PriceTable

__all__ = ["ANY_MODEL", "FREE", "Overlay", "OverlayLike", "PriceBook", "split_key"]

_Make = Callable[[str, str], Price | None]

CACHED_QUOTES_MAX = 4_096  # model names come from clients
BOOKS_OF_TEAMS_MAX = 10_000
FREE = "free"  # the provider whose models, whatever their names, cost nothing
ANY_MODEL = "*"  # in the key of a price that is not a table's: names of models come from clients
_TOKENS_PER_MTOK = 10**6
_OF_TEAM = re.compile(r"(.*)#([\d,]+)", re.DOTALL)


class PricingLike(Protocol):
    """What a configuration says of prices besides the table."""

    @property
    def unpriced(self) -> str: ...
    @property
    def unpriced_usd_per_mtok(self) -> str: ...
    @property
    def overlays(self) -> Sequence[OverlayLike]: ...


class PriceBook:
    """Quotes from one price version. Every overlay that matches applies, in order, so a later one
    has the last word; one with a price of input, or of images, seconds, pages and the like, makes
    an entry for a model the table lacks. Overlays of teams apply in the book `for_team` gives.

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
        self.table = table
        self.overlays = tuple(Overlay.of(overlay) for overlay in overlays)
        self.unpriced_atto_per_token = unpriced_atto_per_token
        self._quotes: dict[tuple[str, str, str], Price | None] = {}
        self.version = _version(table.id, self.stored())
        self.of_teams = any(overlay.team != EVERY_TEAM for overlay in self.overlays)
        self._use(frozenset())

    def _use(self, own: frozenset[int]) -> None:
        """Apply the overlays of every team, and those of a team by their numbers."""
        self._applied = [
            (number, overlay)
            for number, overlay in enumerate(self.overlays)
            if overlay.team == EVERY_TEAM or number in own
        ]
        self._label = f"#{','.join(map(str, sorted(own)))}" if own else ""
        self._teams: dict[str, Self] = {}
        self._books: dict[frozenset[int], Self] = {}

    @classmethod
    def configured(cls, table: PriceTable, pricing: PricingLike) -> Self:
        """Raises OverlayError."""
        rate = None
        if pricing.unpriced == "ceiling":
            rate = atto_from_usd(Decimal(pricing.unpriced_usd_per_mtok) / _TOKENS_PER_MTOK)
        return cls(table, pricing.overlays, unpriced_atto_per_token=rate)

    def stored(self) -> list[Any]:
        """What makes the table this version, JSON-ready, for `from_stored`."""
        parts: list[Any] = [overlay.stored() for overlay in self.overlays]
        if self.unpriced_atto_per_token is not None:
            parts.append({"unpriced_atto_per_token": self.unpriced_atto_per_token})
        return parts

    @classmethod
    def from_stored(cls, table: PriceTable, parts: Sequence[Any]) -> Self:
        """Raises OverlayError."""
        overlays, rate = [], None
        for part in parts:
            if isinstance(part, dict):
                rate = part.get("unpriced_atto_per_token")
            else:
                overlays.append(Overlay.from_stored(part))
        return cls(table, overlays, unpriced_atto_per_token=rate)

    def for_team(self, organization: str, team: str) -> Self:
        """The book for the calls of one team: this one, unless overlays are for that team. Its
        prices have keys of their own, "openai/gpt-5#0,2", after the numbers of those overlays."""
        if not self.of_teams:
            return self
        name = f"{organization}/{team}"
        book = self._teams.get(name)
        if book is None:
            own = frozenset(
                number
                for number, overlay in enumerate(self.overlays)
                if overlay.team != EVERY_TEAM and fnmatchcase(name, overlay.team)
            )
            if len(self._teams) >= BOOKS_OF_TEAMS_MAX:
                self._teams.clear()
            book = self._teams[name] = self._with(own)
        return book

    def _with(self, own: frozenset[int]) -> Self:
        if not own:
            return self
        book = self._books.get(own)
        if book is None:
            book = self._books[own] = type(self)(
                self.table, self.overlays, unpriced_atto_per_token=self.unpriced_atto_per_token
            )
            book.of_teams = False
            book._use(own)
        return book

    def of_key(self, key: str) -> Self:
        """The book a row's price comes from: this one, or that of its team."""
        found = _OF_TEAM.fullmatch(key)
        own = frozenset(int(number) for number in found[2].split(",") if number) if found else ()
        return self._with(frozenset(own)) if max(own, default=-1) < len(self.overlays) else self

    def by_key(self, key: str) -> Price | None:
        """The price a row's key names; None: there is none in this version."""
        found = _OF_TEAM.fullmatch(key)
        if found is not None:
            own = frozenset(int(number) for number in found[2].split(",") if number)
            if own and max(own) < len(self.overlays):
                price = self._with(own).by_key(found[1])
                if price is not None and price.key == key:
                    return price
        provider, _, model = key.partition("/")
        if model.split("+")[0] == ANY_MODEL:
            return self._any(provider, [int(number) for number in model.split("+")[1:]])
        return self.quote(provider, model)

    def _any(self, provider: str, numbers: Sequence[int]) -> Price | None:
        if provider == FREE:
            return self._free(provider, ANY_MODEL)
        known = max(numbers, default=-1) < len(self.overlays)
        return (
            self._flat_with(provider, ANY_MODEL, numbers)
            if known and self.unpriced_atto_per_token is not None
            else None
        )

    def quote(self, provider: str, *models: str) -> Price | None:
        """The price of the first of these names that has one (say, the model the reply reports,
        then the one requested); None when none has. Under `FREE` each is what it was asked as."""
        if provider == FREE and models:
            return self._cached(self._free, provider, models[-1])
        for model in models:
            price = self._cached(self._resolve, provider, model) if model else None
            if price is not None:
                return price
        if self.unpriced_atto_per_token is not None and models:
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
        canonical, asked = priced_as(provider, model)
        found = self.table.find(canonical, asked)
        name, entry = found or (plain_model(asked), {})
        matching = self._matching(canonical, asked, name)
        declared = False
        for number in matching:
            overlay = self.overlays[number]
            entry = overlay.apply(entry)
            declared = declared or INPUT in overlay.prices or is_priced(overlay.prices)
        if not declared and (found is None or not is_priced(found[1])):
            return None
        # What a row names leads to the same overlays: the entry's name, else the one asked for.
        known = next(
            each
            for each in (name, plain_model(asked), asked)
            if self._matching(canonical, each, name) == matching
        )
        return Price.compile(canonical, name, entry, self._key(canonical, known))

    def _matching(self, canonical: str, *models: str) -> list[int]:
        """The numbers of the overlays for a model that goes by these names."""
        providers = provider_names(canonical)
        return [number for number, overlay in self._applied if overlay.matches(providers, models)]

    def _free(self, provider: str, model: str) -> Price:
        return Price.free(provider, model, self._key(provider, ANY_MODEL))

    def _flat(self, provider: str, model: str) -> Price:
        canonical, plain = canonical_provider(provider), plain_model(model)
        matching = self._matching(canonical, model, plain)
        return self._flat_with(canonical, plain, matching)

    def _flat_with(self, provider: str, model: str, numbers: Sequence[int]) -> Price:
        assert self.unpriced_atto_per_token is not None
        entry = dict(Price.flat(provider, model, self.unpriced_atto_per_token).entry)
        for number in numbers:
            entry |= self.overlays[number].apply({})  # maxima; a declared rate has no discount
        name = "+".join([ANY_MODEL, *map(str, numbers)])
        return Price.compile(provider, model, entry, self._key(provider, name))

    def _key(self, provider: str, model: str) -> str:
        return f"{provider}/{model}{self._label}"


def split_key(key: str) -> tuple[str, str]:
    """A price's key without and with only what tells the overlays of teams apart."""
    found = _OF_TEAM.fullmatch(key)
    return (found[1], f"#{found[2]}") if found is not None else (key, "")


def _version(table_id: str, stored: list[Any]) -> str:
    if not stored:
        return table_id
    rate = stored.pop()["unpriced_atto_per_token"] if isinstance(stored[-1], dict) else None
    content = json.dumps([stored, rate], sort_keys=True)
    return f"{table_id}+{hashlib.sha256(content.encode()).hexdigest()[:8]}"
