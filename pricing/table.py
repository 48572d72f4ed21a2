"""Price tables: immutable, dated files of what every model costs.

JSON lines. The first line is a header; each other one is `["provider","model",{entry}]`, sorted,
with prices as exact decimal text in USD. A published file is never changed: its name is its id,
its header holds the hash of its entries, and rows refer to it. A table is kept as its lines, packed
to a tenth of their size, with an index, and an entry is decoded when asked for.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from pricing.errors import TableError
from pricing.names import priced_as, spellings, unversioned
from pricing.price import Price, is_priced

TABLES_DIR = Path(__file__).parent / "tables"
FORMAT = "tollkeeper-prices/1"
TABLE_BYTES_MAX = 64 * 2**20
PACK_LINES = 32  # packed together: unpacked in some 20 us

_LINE = re.compile(rb'\["([^"\\/]+)","([^"\\]+)",\{.*\}\]')

Entries = Mapping[tuple[str, str], Mapping[str, Any]]


class TableInfo(NamedTuple):
    """What a table's header says, and the hash of the file."""

    id: str
    path: str
    sha256: str
    source: str
    effective_from: str  # ISO date: calls from this day on
    entries: int


class PriceTable:
    """An open table. Raises TableError from every method for an entry that is malformed."""

    def __init__(self, info: TableInfo, packs: list[bytes], index: dict[str, int]) -> None:
        self.info = info
        self.id = info.id
        self.sha256 = info.sha256
        self.source = info.source
        self.effective_from = info.effective_from
        self._packs = packs
        self._index = index  # "provider/model" -> number of its line

    @classmethod
    def open(cls, path: str | Path, sha256: str | None = None) -> Self:
        """Read a table and check it: its hash if given, its header, every line's shape. Raises
        TableError with file, line and reason."""
        data = _read(path)
        info, start = _header(path, data, sha256)
        lines = data[start:].removesuffix(b"\n").split(b"\n") if len(data) > start else []
        index: dict[str, int] = {}
        for number, line in enumerate(lines):
            found = _LINE.fullmatch(line)
            if found is None:
                raise TableError(path, number + 2, 'expected ["provider","model",{...}]')
            key = f"{found[1].decode()}/{found[2].decode()}"
            if key in index:
                raise TableError(path, number + 2, f"{key} is listed twice")
            index[key] = number
        if len(index) != info.entries:
            raise TableError(path, 0, f"{len(index)} entries, but its header says {info.entries}")
        return cls(info, _packed(lines), index)

    def __len__(self) -> int:
        return len(self._index)

    def keys(self) -> Iterator[str]:
        """Every "provider/model", sorted."""
        return iter(self._index)

    def entry(self, provider: str, model: str) -> dict[str, Any] | None:
        """The entry of exactly this provider and model."""
        number = self._index.get(f"{provider}/{model}")
        if number is None:
            return None
        return self._decoded(number, self._unpacked(number // PACK_LINES)[number % PACK_LINES])

    def find(self, provider: str, model: str) -> tuple[str, dict[str, Any]] | None:
        """The first spelling of a model the table knows, and its entry; or a version of a model
        whose entry says that it prices such versions too."""
        names = list(spellings(model))
        for name in names:
            entry = self.entry(provider, name)
            if entry is not None:
                return name, entry
        for name in names:
            base, shape = unversioned(name) or ("", "")
            entry = self.entry(provider, base) if base else None
            if entry is not None and shape in entry.get("versions", ()):
                return base, entry
        return None

    def quote(self, provider: str, model: str) -> Price | None:
        """The price of a model; None when the table does not price its tokens."""
        provider, model = priced_as(provider, model)
        found = self.find(provider, model)
        if found is None or not is_priced(found[1]):
            return None
        return Price.compile(provider, *found)

    def items(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Every (provider, model, entry)."""
        keys = iter(self._index)
        for pack in range(len(self._packs)):
            for number, line in enumerate(self._unpacked(pack), start=pack * PACK_LINES):
                provider, _, model = next(keys).partition("/")
                yield provider, model, self._decoded(number, line)

    def _unpacked(self, pack: int) -> list[bytes]:
        return zlib.decompress(self._packs[pack]).split(b"\n")

    def _decoded(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = json.loads(line)[2]
        except (ValueError, RecursionError) as error:
            raise TableError(self.info.path, number + 2, f"not JSON: {error}") from error
        return entry


def list_tables(directory: str | Path = TABLES_DIR) -> list[TableInfo]:
    """The tables of a directory, oldest first. Raises TableError for a damaged one."""
    infos = [read_info(path) for path in sorted(Path(directory).glob("*.jsonl"))]
    return sorted(infos, key=lambda info: (info.effective_from, info.id))


def read_info(path: str | Path) -> TableInfo:
    """What a table is. Raises TableError for a damaged one."""
    return _header(path, _read(path), None)[0]


def known_tables(directory: str | Path = "") -> list[TableInfo]:
    """The tables that are shipped and those of a directory, oldest first. Raises TableError, also
    where two that differ go by one id."""
    found = {info.id: info for info in list_tables()}
    if directory:
        for info in list_tables(directory):
            if found.setdefault(info.id, info).sha256 != info.sha256:
                raise TableError(info.path, 0, f"{found[info.id].path} has this id already")
    return sorted(found.values(), key=lambda info: (info.effective_from, info.id))


def choose_table(tables: list[TableInfo], today: str, table_id: str = "") -> TableInfo:
    """The table named, or the newest that is effective on a day (ISO date). Raises TableError."""
    if table_id:
        for info in tables:
            if info.id == table_id:
                return info
        known = ", ".join(info.id for info in tables) or "none"
        raise TableError(table_id, 0, f"no such price table (known: {known})")
    effective = [info for info in tables if info.effective_from <= today]
    if not effective:
        raise TableError("pricing tables", 0, f"none is effective on {today}")
    return max(effective, key=lambda info: (info.effective_from, info.id))


def write_table(
    directory: str | Path,
    entries: Entries,
    *,
    table_id: str,
    source: str,
    source_sha256: str,
    effective_from: str,
) -> TableInfo:
    """Write a table and return what it is. Writing the same again changes nothing; raises
    TableError rather than change a table that exists."""
    path = Path(directory) / f"{table_id}.jsonl"
    body = b"".join(
        _dump([provider, model, dict(sorted(entries[provider, model].items()))])
        for provider, model in sorted(entries)
    )
    header = {
        "format": FORMAT,
        "id": table_id,
        "source": source,
        "source_sha256": source_sha256,
        "effective_from": effective_from,
        "entries": len(entries),
        "entries_sha256": hashlib.sha256(body).hexdigest(),
    }
    data = _dump(header) + body
    if path.exists():
        if path.read_bytes() != data:
            raise TableError(path, 0, "exists with other content; published tables never change")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(path)
    return _header(path, data, None)[0]


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _read(path: str | Path) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(TABLE_BYTES_MAX + 1)
    except OSError as error:
        raise TableError(path, 0, error.strerror or str(error)) from error
    if len(data) > TABLE_BYTES_MAX:
        raise TableError(path, 0, f"larger than {TABLE_BYTES_MAX >> 20} MB")
    return data


def _header(path: str | Path, data: bytes, sha256: str | None) -> tuple[TableInfo, int]:
    """Check hash and header; returns where the entries start."""
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise TableError(path, 0, f"sha256 is {digest}, expected {sha256}")
    line, newline, body = data.partition(b"\n")
    try:
        header = json.loads(line)
        if header["format"] != FORMAT:
            raise TableError(path, 1, f"format {header['format']!r}, expected {FORMAT!r}")
        info = TableInfo(
            id=str(header["id"]),
            path=str(path),
            sha256=digest,
            source=str(header["source"]),
            effective_from=str(header["effective_from"]),
            entries=int(header["entries"]),
        )
        expected = header["entries_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TableError(path, 1, f"not a price table header: {error!r}") from error
    if hashlib.sha256(body).hexdigest() != expected:
        raise TableError(path, 0, "entries do not match the hash in the header: edited or cut")
    return info, len(line) + len(newline)


def _packed(lines: list[bytes]) -> list[bytes]:
    return [
        zlib.compress(b"\n".join(lines[first : first + PACK_LINES]), 1)
        for first in range(0, len(lines), PACK_LINES)
    ]
