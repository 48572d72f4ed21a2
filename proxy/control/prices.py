"""The price versions this host has had in force: for snapshots, and to describe rows by."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from db.ledger_types import PriceDescription
from db.price_versions import StoredVersion
from pricing.book import PriceBook
from pricing.errors import PricingError, TableError
from pricing.table import PriceTable, TableInfo, choose_table, read_info
from proxy.config import Pricing
from proxy.wire import OverlayEntry, PricesEntry

log = logging.getLogger(__name__)

_Signature = tuple[int, int, int]  # of a file: inode, modification time in ns, size


class _Version:
    def __init__(self, info: TableInfo, book: PriceBook) -> None:
        self.info = info
        self.book = book


class Prices:
    """Tables are opened once. Rows may still come with a version that is no longer in force, also
    with one of an earlier start: `remember` tells of those."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._versions: dict[str, _Version] = {}
        self._stored: dict[str, StoredVersion] = {}
        self._tables: dict[str, PriceTable] = {}
        self._infos: dict[Path, tuple[_Signature, TableInfo | TableError]] = {}
        self._problem = ""  # as last logged

    def select(self, pricing: Pricing, now_ms: int) -> PricesEntry:
        """The version a configuration asks for, of the tables there are now. Raises
        PricingError."""
        today = datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()
        info = choose_table(self._known(self._paths(pricing.tables_dir)), today, pricing.table)
        book = PriceBook.configured(self._table(info), pricing)
        self._versions.setdefault(book.version, _Version(info, book))
        rate = book.unpriced_atto_per_token
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
                    overlay.team,
                )
                for overlay in book.overlays
            ),
            unpriced=pricing.unpriced,
            unpriced_atto_per_token=rate or 0,
        )

    def look(self, pricing: Pricing, now_ms: int) -> PricesEntry | None:
        """The same while running: a table may have been added, or its day have come. None: one is
        damaged, which is logged once; what is in force stays."""
        try:
            selected = self.select(pricing, now_ms)
        except (PricingError, OSError) as exc:
            if str(exc) != self._problem:
                log.error("price tables: %s", exc)
            self._problem = str(exc)
            return None
        self._problem = ""
        return selected

    def stored(self, version: str) -> StoredVersion:
        """What to keep of a version that was selected."""
        known = self._versions[version]
        info = known.info
        return StoredVersion(
            version, info.id, info.sha256, info.source, info.effective_from, known.book.stored()
        )

    def remember(self, versions: Iterable[StoredVersion]) -> None:
        """Versions of earlier starts."""
        self._stored.update((each.version, each) for each in versions)

    def describe(self, version: str, key: str) -> PriceDescription | None:
        """What a row's price was. None: its table is not here any more, or not as it was."""
        known = self._versions.get(version) or self._rebuilt(version)
        if known is None:
            return None
        price = known.book.by_key(key)
        return PriceDescription(
            table_id=known.info.id,
            sha256=known.info.sha256,
            source=known.info.source,
            effective_from=known.info.effective_from,
            overlays=known.book.stored(),
            entry=dict(price.entry) if price is not None else {},
        )

    def book(self, version: str) -> PriceBook | None:
        """The prices of a version. None: its table is not here any more, or not as it was."""
        known = self._versions.get(version) or self._rebuilt(version)
        return None if known is None else known.book

    def _rebuilt(self, version: str) -> _Version | None:
        """A version of an earlier start; a table without overlays is one by its id alone."""
        stored = self._stored.get(version)
        table_id = stored.table_id if stored is not None else version
        seen = {path for path in self._infos if path.exists()}
        tables = self._known(seen | self._paths())
        info = next((each for each in tables if each.id == table_id), None)
        if info is None or (stored is not None and stored.sha256 not in ("", info.sha256)):
            return None
        try:
            book = PriceBook.from_stored(self._table(info), stored.overlays if stored else ())
        except PricingError:
            return None
        if book.version != version:
            return None
        made = self._versions[version] = _Version(info, book)
        return made

    def _paths(self, more: str = "") -> set[Path]:
        """The tables that are shipped, and those of the configured directory."""
        directories = [self._directory, *([Path(more)] if more else [])]
        return {path for each in directories for path in each.glob("*.jsonl")}

    def _known(self, paths: Iterable[Path]) -> list[TableInfo]:
        """Oldest first. Files that have not changed are not read again. Raises TableError for a
        damaged one."""
        infos: dict[str, TableInfo] = {}
        for path in sorted(paths):
            info = self._info(path)
            if infos.setdefault(info.id, info).sha256 != info.sha256:
                raise TableError(path, 0, f"{infos[info.id].path} has this id already")
        return sorted(infos.values(), key=lambda info: (info.effective_from, info.id))

    def _info(self, path: Path) -> TableInfo:
        status = path.stat()
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._infos.get(path)
        if known is None or known[0] != signature:
            try:
                found: TableInfo | TableError = read_info(path)
            except TableError as error:
                found = error
            known = self._infos[path] = (signature, found)
        if isinstance(known[1], TableError):
            raise known[1]
        return known[1]

    def _table(self, info: TableInfo) -> PriceTable:
        if info.sha256 not in self._tables:
            self._tables[info.sha256] = PriceTable.open(info.path, info.sha256)
        return self._tables[info.sha256]
