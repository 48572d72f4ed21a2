"""The price versions this control has had in force: for snapshots, and to describe rows by."""

from dataclasses import astuple
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from db.ledger_types import PriceDescription
from pricing.book import Overlay, PriceBook
from pricing.money import atto_from_usd
from pricing.table import PriceTable, TableInfo, choose_table, list_tables
from proxy.config import Pricing
from proxy.wire import OverlayEntry, PricesEntry

TOKENS_PER_MTOK = 10**6


class _Version:
    def __init__(self, info: TableInfo, overlays: list[Overlay], book: PriceBook) -> None:
        self.info = info
        self.overlays = overlays
        self.book = book


class Prices:
    """Tables are opened once. Rows may still come with a version that is no longer in force."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._versions: dict[str, _Version] = {}
        self._tables: dict[str, PriceTable] = {}

    def select(self, pricing: Pricing, now_ms: int) -> PricesEntry:
        """The version a configuration asks for. Raises PricingError."""
        today = datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()
        info = choose_table(list_tables(self._directory), today, pricing.table)
        unpriced = _atto_per_token(pricing)
        overlays = [Overlay.of(overlay) for overlay in pricing.overlays]
        book = PriceBook(self._table(info), overlays, unpriced_atto_per_token=unpriced)
        self._versions[book.version] = _Version(info, overlays, book)
        return PricesEntry(
            version=book.version,
            table_path=info.path,
            table_sha256=info.sha256,
            overlays=tuple(
                OverlayEntry(
                    overlay.provider,
                    overlay.model,
                    overlay.discount_percent,
                    overlay.prices,
                    overlay.max_input_tokens,
                    overlay.max_output_tokens,
                )
                for overlay in overlays
            ),
            unpriced=pricing.unpriced,
            unpriced_atto_per_token=unpriced or 0,
        )

    def describe(self, version: str, key: str) -> PriceDescription | None:
        """What a row's price was. None: a version of before this start that cannot be rebuilt
        from its name."""
        known = self._versions.get(version) or self._plain(version)
        if known is None:
            return None
        provider, _, model = key.partition("/")
        price = known.book.quote(provider, model)
        return PriceDescription(
            table_id=known.info.id,
            sha256=known.info.sha256,
            source=known.info.source,
            effective_from=known.info.effective_from,
            overlays=[list(astuple(overlay)) for overlay in known.overlays],
            entry=dict(price.entry) if price is not None else {},
        )

    def _plain(self, version: str) -> _Version | None:
        """A table without overlays: its id is the version."""
        for info in list_tables(self._directory):
            if info.id == version:
                made = _Version(info, [], PriceBook(self._table(info)))
                self._versions[version] = made
                return made
        return None

    def _table(self, info: TableInfo) -> PriceTable:
        if info.id not in self._tables:
            self._tables[info.id] = PriceTable.open(info.path, info.sha256)
        return self._tables[info.id]


def _atto_per_token(pricing: Pricing) -> int | None:
    if pricing.unpriced != "ceiling":
        return None
    return atto_from_usd(Decimal(pricing.unpriced_usd_per_mtok) / TOKENS_PER_MTOK)
