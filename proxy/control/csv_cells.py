"""Rows as CSV that no spreadsheet runs."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# What a spreadsheet would take for a formula; plain negative numbers are none.
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?\Z")


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([csv_cell(row.get(name)) for name in columns] for row in rows)
    return out.getvalue()


def csv_cell(value: object) -> str:
    """Text that no spreadsheet runs as a formula."""
    text = plain(value)
    if _FORMULA.match(text) and not _NUMBER.match(text):
        return f"'{text}"
    return text


def plain(value: object) -> str:
    """A cell's text: lists joined, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(part) for part in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={plain(part)}" for name, part in value.items())
    return str(value)
