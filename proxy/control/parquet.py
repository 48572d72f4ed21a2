"""Rows as a Parquet file. Amounts are exact decimals; what is nested is JSON text."""

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import IO, Any

from db.errors import ReportError

Row = Mapping[str, Any]

ROWS_PER_GROUP = 10_000
COUNTS = {"calls", "periods", "http_status", "duration_ms", "client_retry"}
FLAGS = {"partial", "stream"}


def write_parquet(rows: Iterable[Row], columns: Sequence[str], file: IO[bytes]) -> None:
    """Raises ReportError where pyarrow is not installed."""
    try:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet as pq  # noqa: PLC0415
    except ImportError as exc:
        raise ReportError("Parquet needs pyarrow: install tollkeeper[parquet]") from exc
    schema = pa.schema([(name, _type(pa, name)) for name in columns])
    with pq.ParquetWriter(file, schema) as writer:
        iterator = iter(rows)
        while some := list(islice(iterator, ROWS_PER_GROUP)):
            arrays = [
                pa.array([_value(kind, row.get(name)) for row in some], kind)
                for name, kind in zip(columns, schema.types, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _type(pa: Any, name: str) -> Any:
    if name.endswith("_usd"):
        return pa.decimal128(38, 9)
    if name.endswith("_percent"):
        return pa.decimal128(38, 1)
    if name in COUNTS or name.endswith("_tokens"):
        return pa.int64()
    return pa.bool_() if name in FLAGS else pa.string()


def _value(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, (Mapping, list)):
        return json.dumps(value, ensure_ascii=False)
    return Decimal(value) if "decimal" in str(kind) else value
