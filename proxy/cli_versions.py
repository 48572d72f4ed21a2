"""A price version by its name: the configured one, a table's, or one that rows refer to."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import PriceVersion
from db.repricing_prices import Target
from pricing.book import Overlay, PriceBook
from pricing.money import atto_from_usd
from pricing.table import PriceTable, TableInfo, choose_table, list_tables
from proxy.cli import Failure
from proxy.config import Pricing

CONFIGURED = "configured"
TOKENS_PER_MTOK = 10**6


async def find_version(connection: AsyncConnection, name: str, pricing: Pricing) -> Target:
    """Raises Failure for a name nobody knows, and for a version that cannot be made again."""
    configured = configured_version(pricing)
    if name in (CONFIGURED, configured.version):
        return configured
    tables = {info.id: info for info in list_tables()}
    if name in tables:
        return _target(tables[name], (), None)
    query = select(PriceVersion).where(PriceVersion.version == name)
    row: Any = (await connection.execute(query.with_only_columns(PriceVersion.__table__))).first()
    if row is None:
        known = ", ".join([CONFIGURED, *tables])
        raise Failure(f"no price version {name!r}; there are: {known}, and those of rows")
    return _made_again(row, tables, pricing)


def configured_version(pricing: Pricing) -> Target:
    """What new calls are priced with after a restart or SIGHUP. Raises PricingError."""
    info = choose_table(list_tables(), datetime.now(UTC).date().isoformat(), pricing.table)
    return _target(info, tuple(map(Overlay.of, pricing.overlays)), _unpriced(pricing))


def _made_again(row: Any, tables: dict[str, TableInfo], pricing: Pricing) -> Target:
    info = tables.get(row.table_id)
    if info is None or info.sha256 != row.sha256:
        raise Failure(f"price version {row.version}: its table {row.table_id!r} is not here")
    overlays = tuple(Overlay(*values) for values in row.overlays)
    for unpriced in (None, _unpriced(pricing)):  # the rate is part of the name, not stored
        target = _target(info, overlays, unpriced)
        if target.version == row.version:
            return target
    raise Failure(f"price version {row.version}: pricing.unpriced_usd_per_mtok was another one")


def _target(info: TableInfo, overlays: tuple[Overlay, ...], unpriced: int | None) -> Target:
    table = PriceTable.open(info.path, info.sha256)
    book = PriceBook(table, overlays, unpriced_atto_per_token=unpriced)
    return Target(book, info, overlays)


def _unpriced(pricing: Pricing) -> int | None:
    if pricing.unpriced != "ceiling":
        return None
    return atto_from_usd(Decimal(pricing.unpriced_usd_per_mtok) / TOKENS_PER_MTOK)
