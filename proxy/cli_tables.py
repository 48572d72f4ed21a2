"""What the `prices` commands share: which tables there are, and how one is named."""

from datetime import UTC, date, datetime
from pathlib import Path

import click

from pricing.book import PriceBook
from pricing.table import TABLES_DIR, PriceTable, TableInfo, choose_table, known_tables
from proxy.config import Config


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def checked_day(text: str | None) -> str:
    """An ISO date; today if none is given. Raises BadParameter."""
    if text is None:
        return today()
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is not a date like 2027-01-31") from exc


def tables_dir(config: Config) -> Path:
    """Where new tables go."""
    return Path(config.pricing.tables_dir) if config.pricing.tables_dir else TABLES_DIR


def tables(config: Config) -> list[TableInfo]:
    return known_tables(config.pricing.tables_dir)


def open_table(config: Config, table_id: str = "", day: str = "") -> PriceTable:
    """The table named, or the one in effect on a day (today); of days before there was a table,
    the first one tells by the dates of its prices. Raises TableError."""
    known = tables(config)
    if day:
        day = max(day, min((info.effective_from for info in known), default=day))
    info = choose_table(known, day or today(), table_id)
    return PriceTable.open(info.path, info.sha256)


def open_book(config: Config, table_id: str = "", day: str = "") -> PriceBook:
    """The same with the configuration's overlays."""
    table = open_table(config, table_id or ("" if day else config.pricing.table), day)
    return PriceBook.configured(table, config.pricing)
