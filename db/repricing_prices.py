"""What a call costs at another price version, and what it was priced with."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.journal_records import CHARGED_AT_HOLD
from db.ledger_types import PriceDescription
from db.models import ModelCost, Organization, PriceVersion, Team
from db.repricing_read import StoredCall
from pricing.book import ANY_MODEL, FREE, PriceBook, split_key
from pricing.calculator import Item, ceiling_cost, cost
from pricing.price import Price
from pricing.table import TableInfo
from pricing.usage import Usage

decode_usage = msgspec.json.Decoder(dict[str, object]).decode  # then `Usage`: a fifth of the time


class Target(NamedTuple):
    """The price version to reprice with."""

    book: PriceBook
    info: TableInfo

    @property
    def version(self) -> str:
        return self.book.version

    def described(self, entry: Mapping[str, Any]) -> PriceDescription:
        return PriceDescription(
            table_id=self.info.id,
            sha256=self.info.sha256,
            source=self.info.source,
            effective_from=self.info.effective_from,
            overlays=self.book.stored(),
            entry=dict(entry),
        )


class NewCost(NamedTuple):
    price: Price
    nano: int
    items: list[Item] | None  # None: of a ceiling


class _Stored(NamedTuple):
    version: str
    key: str  # provider/model
    entry: dict[str, Any]


class NewPrices:
    """Finds the price of a call in the target version. What the ledger has stored of that version
    decides before the book does: rows refer to it, and it is what they are verified against."""

    def __init__(
        self,
        target: Target,
        stored: Mapping[int, _Stored],
        provider_prices: Callable[[str], str],
        teams: Mapping[int, tuple[str, str]] | None = None,
    ) -> None:
        self.target = target
        self._teams = teams or {}  # id -> organization and name
        self._provider_prices = provider_prices
        self._stored = stored
        self._of_version = {
            each.key: each.entry
            for each in stored.values()
            if each.version == target.version and each.entry
        }
        self._prices: dict[tuple[int, int | None, str, str], Price | None] = {}
        self._compiled: dict[str, Price] = {}

    @classmethod
    async def load(
        cls,
        connection: AsyncConnection,
        target: Target,
        provider_prices: Callable[[str], str] = lambda provider: provider,
    ) -> "NewPrices":
        """`provider_prices` maps a configured provider to its name in price tables."""
        query = select(ModelCost.id, PriceVersion.version, ModelCost.model, ModelCost.entry).join(
            PriceVersion, ModelCost.price_version_id == PriceVersion.id
        )
        rows = (await connection.execute(query)).all()
        stored = {id_: _Stored(version, key, entry) for id_, version, key, entry in rows}
        names = select(Team.id, Organization.name, Team.name).join(
            Organization, Team.organization_id == Organization.id
        )
        teams = {id_: (org, team) for id_, org, team in await connection.execute(names)}
        return cls(target, stored, provider_prices, teams)

    def describe(self, version: str, key: str) -> PriceDescription | None:
        """For the ledger: what rows of this version are to be described with."""
        price = self._compiled.get(key)
        if version != self.target.version or price is None:
            return None
        return self.target.described(price.entry)

    def cost(self, call: StoredCall) -> NewCost | None:
        """None: nothing is known of its usage, or the version has no price for it."""
        if call.usage is None:
            return None
        team_id = call.team_id if self.target.book.of_teams else 0
        names = (team_id, call.price_id, call.provider, call.model)
        if names not in self._prices:
            self._prices[names] = self._find(self._book(team_id), *names[1:])
        price = self._prices[names]
        if price is None:
            return None
        usage = Usage.from_dict(decode_usage(call.usage))
        provider = price.provider

        def other(model: str) -> Price | None:
            return self._quoted(self._book(team_id), provider, model)

        if call.ending in CHARGED_AT_HOLD:
            return NewCost(price, ceiling_cost(usage, price, other), None)
        computed = cost(usage, price, other, at_s=call.at_ms / 1000)
        return NewCost(price, computed.nano, computed.items)

    def _book(self, team_id: int) -> PriceBook:
        return self.target.book.for_team(*self._teams.get(team_id, ("", "")))

    def _find(
        self, book: PriceBook, price_id: int | None, provider: str, model: str
    ) -> Price | None:
        """By the name requested where that leads to the entry the call was priced with, else by
        that entry: the reply may have named another model than the request."""
        was = self._stored.get(price_id) if price_id is not None else None
        name = self._provider_prices(provider)
        if was is None:
            return self._quoted(book, name, model)
        was_name, _ = split_key(was.key)
        was_provider, _, was_model = was_name.partition("/")
        if was_provider == FREE:
            name = FREE
        if was.version == self.target.version and was.entry:
            return self._compile(was.key, was.entry)
        requested = self._quoted(book, name, model)
        if requested is not None and split_key(requested.key)[0] == was_name:
            return requested
        if was_model.split("+")[0] == ANY_MODEL:  # it was no table's price: nothing tells more
            return requested
        return self._quoted(book, was_provider, was_model) or requested

    def _quoted(self, book: PriceBook, provider: str, model: str) -> Price | None:
        quoted = book.quote(provider, model)
        if quoted is None:
            return None
        entry = self._of_version.get(quoted.key)
        if entry is not None:
            return self._compile(quoted.key, entry)
        self._compiled.setdefault(quoted.key, quoted)
        return self._compiled[quoted.key]

    def _compile(self, key: str, entry: Mapping[str, Any]) -> Price:
        if key not in self._compiled:
            provider, _, model = key.partition("/")
            self._compiled[key] = Price.compile(provider, model, entry)
        return self._compiled[key]
