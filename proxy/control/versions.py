"""A price version by its name: the configured one, a table's, or one that rows refer to."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.errors import ReportError
from db.models import PriceVersion
from db.repricing_prices import Target
from pricing.book import PriceBook
from pricing.table import PriceTable, TableInfo, choose_table, known_tables
from proxy.config import Pricing

CONFIGURED = "configured"


async def find_version(connection: AsyncConnection, name: str, pricing: Pricing) -> Target:
    """Raises ReportError for a name nobody knows, and for a version that cannot be made again."""
    configured = configured_version(pricing)
    if name in (CONFIGURED, configured.version):
        return configured
    tables = {info.id: info for info in known_tables(pricing.tables_dir)}
    if name in tables:
        return _target(tables[name], ())
    query = select(PriceVersion).where(PriceVersion.version == name)
    row: Any = (await connection.execute(query.with_only_columns(PriceVersion.__table__))).first()
    if row is None:
        known = ", ".join([CONFIGURED, *tables])
        raise ReportError(f"no price version {name!r}; there are: {known}, and those of rows")
    return _made_again(row, tables, pricing)


def configured_version(pricing: Pricing) -> Target:
    """What new calls are priced with. Raises PricingError."""
    today = datetime.now(UTC).date().isoformat()
    info = choose_table(known_tables(pricing.tables_dir), today, pricing.table)
    return Target(PriceBook.configured(PriceTable.open(info.path, info.sha256), pricing), info)


def _made_again(row: Any, tables: dict[str, TableInfo], pricing: Pricing) -> Target:
    info = tables.get(row.table_id)
    if info is None or info.sha256 != row.sha256:
        raise ReportError(f"price version {row.version}: its table {row.table_id!r} is not here")
    # A rate is part of the name; versions of before it was stored may have had the one of now.
    rates = [part for part in configured_version(pricing).book.stored() if isinstance(part, dict)]
    for parts in (row.overlays, [*row.overlays, *rates]):
        target = _target(info, parts)
        if target.version == row.version:
            return target
    raise ReportError(f"price version {row.version}: pricing.unpriced_usd_per_mtok was another one")


def _target(info: TableInfo, parts: Sequence[Any]) -> Target:
    return Target(PriceBook.from_stored(PriceTable.open(info.path, info.sha256), parts), info)
