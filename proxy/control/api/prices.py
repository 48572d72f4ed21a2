"""Price tables: which there are, what is in them, how a model's price came to be, what differs."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from itertools import islice
from typing import Annotated, Any

from msgspec import Meta, Struct

from db.errors import NotKnown
from pricing.book import PriceBook
from pricing.sources.merge import disagreements
from pricing.table import PriceTable, choose_table, known_tables
from proxy.config import Pricing
from proxy.control.api.backend import Backend
from proxy.control.api.failures import ApiError
from proxy.control.api.paging import id_of
from proxy.control.api.table import Caller, Endpoint, Nothing, Page, PageRequest, Request, Text
from proxy.control.identity import Role
from proxy.control.price_rows import differences, price_rows

TableId = Annotated[str, Meta(max_length=96)]
Day = Annotated[str, Meta(max_length=10, pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$")]


class Table(Struct, frozen=True, kw_only=True):
    id: str
    in_effect: bool
    effective_from: str
    source: str
    entries: int
    sha256: str


class ModelPrice(Struct, frozen=True, kw_only=True):
    """In USD per million tokens; `entry` has everything, per unit."""

    provider: str
    model: str
    input_usd: str | None
    cache_read_usd: str | None
    cache_write_usd: str | None
    output_usd: str | None
    max_input_tokens: int | None
    max_output_tokens: int | None
    source: Any
    retired: Any
    entry: dict[str, Any]


class Version(Struct, frozen=True, kw_only=True):
    """A model's prices in one table."""

    table: str
    effective_from: str
    in_effect: bool
    price: ModelPrice


class Difference(Struct, frozen=True, kw_only=True):
    provider: str
    model: str
    change: str  # added | removed | retired | changed
    key: str | None = None
    old: Any = None
    new: Any = None


class Disagreeing(Struct, frozen=True, kw_only=True):
    """In USD per unit: `price` of `source` is used."""

    model: str  # provider/model
    key: str
    source: str
    price: str
    other_source: str
    other_price: str


class ListDisagreements(PageRequest, frozen=True, kw_only=True):
    provider: Annotated[str, Meta(max_length=64, description="A glob.")] = "*"
    table: TableId = ""


class ShowPrices(PageRequest, frozen=True, kw_only=True):
    model: Annotated[str, Meta(max_length=256, description="A glob.")] = "*"
    provider: Annotated[str, Meta(max_length=64, description="A glob.")] = "*"
    table: TableId = ""
    at: Day = ""
    team: Annotated[str, Meta(max_length=512, description="ORG/TEAM")] = ""


class PriceHistory(Request, frozen=True, kw_only=True):
    provider: Annotated[str, Meta(min_length=1, max_length=64)]
    model: Annotated[str, Meta(min_length=1, max_length=256)]


class DiffPrices(PageRequest, frozen=True, kw_only=True):
    old: TableId
    new: TableId
    provider: Text = ""


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


async def list_tables(backend: Backend, _caller: Caller, _asked: Nothing) -> list[Table]:
    return await asyncio.to_thread(_tables, backend.control.config.pricing)


def _tables(pricing: Pricing) -> list[Table]:
    known = known_tables(pricing.tables_dir)
    chosen = choose_table(known, _today(), pricing.table)
    return [
        Table(
            id=info.id,
            in_effect=info.id == chosen.id,
            effective_from=info.effective_from,
            source=info.source,
            entries=info.entries,
            sha256=info.sha256,
        )
        for info in known
    ]


async def show_prices(backend: Backend, caller: Caller, asked: ShowPrices) -> Page[ModelPrice]:
    """What a viewer sees is what the team pays."""
    day = _day(asked.at)
    pricing = backend.control.config.pricing
    team = caller.identity.narrow({"team": asked.team} if asked.team else {}).get("team", "")

    def look() -> list[dict[str, Any]]:
        book = _book(pricing, asked.table, day)
        organization, _, name = team.partition("/")
        rows = price_rows(book.for_team(organization, name), asked.provider, asked.model, day)
        return _slice(rows, asked)

    return _page(await asyncio.to_thread(look), asked, ModelPrice)


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat() if text else ""
    except ValueError as exc:
        message = f"{text!r} is not a date like 2027-01-31"
        raise ApiError(400, "invalid_parameter", message, "at") from exc


def _book(pricing: Pricing, table_id: str, day: str) -> PriceBook:
    known = known_tables(pricing.tables_dir)
    info = choose_table(known, day or _today(), table_id or ("" if day else pricing.table))
    return PriceBook.configured(PriceTable.open(info.path, info.sha256), pricing)


def _slice(rows: Iterator[dict[str, Any]], asked: PageRequest) -> list[dict[str, Any]]:
    start = id_of(asked.cursor)
    return list(islice(rows, start, start + asked.limit + 1))


def _page(rows: list[dict[str, Any]], asked: PageRequest, kind: type[Any]) -> Page[Any]:
    """By number: tables do not change."""
    more = len(rows) > asked.limit
    next_one = str(id_of(asked.cursor) + asked.limit) if more else None
    return Page([kind(**row) for row in rows[: asked.limit]], next_one)


async def price_history(backend: Backend, caller: Caller, asked: PriceHistory) -> list[Version]:
    """In the order of time, where anything changed."""
    found = await asyncio.to_thread(
        _history, backend.control.config.pricing, asked, caller.identity.team
    )
    if not found:
        raise NotKnown(f"no table has prices of {asked.provider}/{asked.model}")
    return found


def _history(pricing: Pricing, asked: PriceHistory, team: str) -> list[Version]:
    found: list[Version] = []
    known = known_tables(pricing.tables_dir)
    chosen = choose_table(known, _today(), pricing.table)
    organization, _, name = team.partition("/")
    for info in known:
        book = PriceBook.configured(PriceTable.open(info.path, info.sha256), pricing)
        price = book.for_team(organization, name).quote(asked.provider, asked.model)
        if price is None or price.unpriced:
            continue
        (row,) = islice(
            price_rows(book.for_team(organization, name), price.provider, price.model, ""), 1
        )
        shown = ModelPrice(**row)
        if not found or found[-1].price != shown or info.id == chosen.id:
            found.append(
                Version(
                    table=info.id,
                    effective_from=info.effective_from,
                    in_effect=info.id == chosen.id,
                    price=shown,
                )
            )
    return found


async def diff_prices(backend: Backend, _caller: Caller, asked: DiffPrices) -> Page[Difference]:
    pricing = backend.control.config.pricing

    def look() -> list[dict[str, Any]]:
        known = known_tables(pricing.tables_dir)
        entries = []
        for table_id in (asked.old, asked.new):
            info = choose_table(known, _today(), table_id)
            table = PriceTable.open(info.path, info.sha256)
            entries.append({(p, model): entry for p, model, entry in table.items()})
        rows = differences(*entries)
        return _slice((row for row in rows if asked.provider in ("", row["provider"])), asked)

    return _page(await asyncio.to_thread(look), asked, Difference)


async def list_disagreements(
    backend: Backend, _caller: Caller, asked: ListDisagreements
) -> Page[Disagreeing]:
    pricing = backend.control.config.pricing

    def look() -> list[dict[str, Any]]:
        info = choose_table(
            known_tables(pricing.tables_dir), _today(), asked.table or pricing.table
        )
        table = PriceTable.open(info.path, info.sha256)
        rows = (each._asdict() for each in disagreements(table.items()))
        return _slice(
            (row for row in rows if fnmatchcase(row["model"].partition("/")[0], asked.provider)),
            asked,
        )

    return _page(await asyncio.to_thread(look), asked, Disagreeing)


ENDPOINTS = (
    Endpoint(
        "GET", "/prices", list_tables, Nothing, list[Table], Role.VIEWER,
        "Price tables, and which one is in effect.",
    ),
    Endpoint(
        "GET", "/prices/models", show_prices, ShowPrices, Page[ModelPrice], Role.VIEWER,
        "Prices of the models that match.",
    ),
    Endpoint(
        "GET", "/prices/history", price_history, PriceHistory, list[Version], Role.VIEWER,
        "A model's prices, table by table.",
    ),
    Endpoint(
        "GET", "/prices/diff", diff_prices, DiffPrices, Page[Difference], Role.VIEWER,
        "What differs between two tables.",
    ),
    Endpoint(
        "GET", "/prices/disagreements", list_disagreements, ListDisagreements, Page[Disagreeing],
        Role.VIEWER, "Where the sources of a table differ, and whose price is used.",
    ),
)  # fmt: skip
