"""The price table in force: what it says of a model, and what earlier ones said."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import select
from starlette.responses import Response

from db.models import PriceVersion
from pricing.book import PriceBook
from pricing.table import PriceTable, TableInfo, choose_table, known_tables
from proxy.config import Pricing
from proxy.control.dashboard.site import Missing, Visit

ROWS_MAX = 100
TEXT_MAX = 256
_MILLION = Decimal(1_000_000)
SHOWN = {
    "input": "input_cost_per_token",
    "cache read": "cache_read_input_token_cost",
    "cache write": "cache_creation_input_token_cost",
    "output": "output_cost_per_token",
}
MANY = ("token", "character", "pixel")  # what is priced by the million


@dataclass(frozen=True, slots=True)
class Rate:
    key: str
    usd: str
    per: str


class PriceTables:
    """What is on disk, read in threads. A book is kept as long as its version is in force."""

    def __init__(self) -> None:
        self._books: dict[str, PriceBook] = {}

    async def current(self, visit: Visit) -> tuple[list[TableInfo], TableInfo, PriceBook]:
        """All tables, the one in effect, and with the configuration's prices over it."""
        pricing = visit.backend.control.config.pricing
        today = f"{datetime.fromtimestamp(visit.backend.now_ms / 1000, UTC):%Y-%m-%d}"
        return await asyncio.to_thread(self._current, pricing, today)

    def _current(
        self, pricing: Pricing, today: str
    ) -> tuple[list[TableInfo], TableInfo, PriceBook]:
        known = known_tables(pricing.tables_dir)
        chosen = choose_table(known, today, pricing.table)
        book = PriceBook.configured(PriceTable.open(chosen.path, chosen.sha256), pricing)
        book = self._books.get(book.version, book)
        self._books = {book.version: book}
        return known, chosen, book

    async def listed(self, visit: Visit) -> Response:
        known, chosen, book = await self.current(visit)
        book = own_book(visit, book)
        wanted = visit.request.query_params.get("q", "")[:TEXT_MAX].lower()
        rows = await asyncio.to_thread(lambda: list(_found(book, wanted)))
        query = select(PriceVersion.__table__).order_by(PriceVersion.created_at_ms.desc()).limit(50)

        async def ask(connection: Any) -> list[Any]:
            return list(await connection.execute(query))

        return visit.page(
            "prices.html",
            in_force=book.version,
            tables=sorted(known, key=lambda info: info.effective_from, reverse=True),
            chosen=chosen,
            versions=await visit.backend.read(ask),
            wanted=wanted,
            rows=rows[:ROWS_MAX],
            more=len(rows) > ROWS_MAX,
            columns=list(SHOWN),
        )

    async def shown(self, visit: Visit) -> Response:
        query = visit.request.query_params
        provider, model = query.get("provider", ""), query.get("model", "")
        known, chosen, book = await self.current(visit)
        price = own_book(visit, book).quote(provider, model)
        if price is None:
            raise Missing(f"{book.version} has no price for this model.")
        history = await asyncio.to_thread(_history, known, provider, model)
        return visit.page(
            "price.html",
            price=price,
            in_force=book.version,
            chosen=chosen,
            rates=list(_rates(price.entry)),
            history=history,
            columns=list(SHOWN),
        )


def own_book(visit: Visit, book: PriceBook) -> PriceBook:
    """With the prices of a viewer's team."""
    organization, _, team = visit.identity.team.partition("/")
    return book.for_team(organization, team) if team else book


def _found(book: PriceBook, wanted: str) -> Iterator[dict[str, Any]]:
    words = wanted.split()
    found = 0
    for provider, model, _ in book.table.items():
        if all(word in f"{provider}/{model}".lower() for word in words):
            price = book.quote(provider, model)
            if price is not None:
                found += 1
                yield {"provider": provider, "model": model, "figures": figures(price.entry)}
            if found > ROWS_MAX:
                return


def figures(entry: Any) -> list[str]:
    """USD per million tokens, of SHOWN; "" for none."""
    return [_million(entry.get(key)) for key in SHOWN.values()]


def _million(usd: Any) -> str:
    try:
        return format((Decimal(str(usd)) * _MILLION).normalize(), "f") if usd is not None else ""
    except InvalidOperation:
        return ""


def _rates(entry: Any) -> Iterator[Rate]:
    for key, value in sorted(entry.items()):
        if "cost" not in key or not isinstance(value, str | int):
            continue
        many = any(word in key for word in MANY)
        if text := _million(value) if many else str(value):
            yield Rate(key.replace("_", " "), text, "million" if many else "each")


def _history(known: list[TableInfo], provider: str, model: str) -> list[dict[str, Any]]:
    """What each table says, the newest first; those that say the same as the one before are not
    listed."""
    rows: list[dict[str, Any]] = []
    for info in sorted(known, key=lambda info: info.effective_from):
        price = PriceTable.open(info.path, info.sha256).quote(provider, model)
        said = figures(price.entry) if price is not None else None
        if said is not None and (not rows or rows[-1]["figures"] != said):
            rows.append({"table": info, "figures": said})
    return rows[::-1]
