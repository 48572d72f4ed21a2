"""Rows as tables of plain text, where there is no terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.control.csv_cells import plain

Row = Mapping[str, Any]

_CELL_CHARS_MAX = 60


def printable(text: str) -> str:
    """In one line, without what controls a terminal or ends a header."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


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
