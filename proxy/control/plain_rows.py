"""Rows as text, where there is no terminal: CSV that no spreadsheet runs, tables of plain text."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

# What a spreadsheet would take for a formula; plain negative numbers are none.
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?\Z")
_CELL_CHARS_MAX = 60


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


def printable(text: str) -> str:
    """In one line, without what controls a terminal or ends a header."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def csv_text(rows: Sequence[Row], columns: Sequence[str]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([csv_cell(row.get(name)) for name in columns] for row in rows)
    return file.getvalue()


def text_table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Columns under their names; figures to the right."""
    cells = [[name.replace("_", " ") for name in columns]]
    cells += [
        [printable(plain(row.get(name)))[:_CELL_CHARS_MAX] for name in columns] for row in rows
    ]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    right = [bool(rows) and _is_figure(rows[0].get(name), name) for name in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if figure else cell.ljust(width)
            for cell, width, figure in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join(lines) + "\n"


def _is_figure(value: object, name: str) -> bool:
    return isinstance(value, int) or name.endswith(("usd", "tokens"))
