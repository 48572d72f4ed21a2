"""How rows are printed: a table for people; JSON, NDJSON and CSV for programs."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any

import click

from proxy.control.csv_cells import csv_cell, plain

__all__ = [
    "FORMATS", "Row", "console", "csv_cell", "format_option", "plain", "print_rows", "timestamp",
    "with_progress",
]  # fmt: skip

FORMATS = ("table", "json", "ndjson", "csv")
Row = Mapping[str, Any]

_STYLES = {"ok": "green", "passes": "green", "note": "yellow", "waits": "yellow"} | dict.fromkeys(
    ("fail", "refused", "lost", "drift"), "bold red"
)
_PIPE_COLUMNS = 200
_TABLE_ROWS_MAX = 10_000

format_option = click.option(
    "--format",
    "output",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How rows are printed.",
)


def print_rows(
    rows: Iterable[Row], columns: Sequence[str], output: str, *, title: str = "", empty: str = ""
) -> None:
    """Print rows to stdout. Tables and CSV show `columns`; JSON and NDJSON whole rows.

    JSON, NDJSON and CSV are written row by row, however many there are.
    """
    if output == "json":
        _print_json(rows)
    elif output == "ndjson":
        for row in rows:
            sys.stdout.write(json.dumps(row, default=str, ensure_ascii=False) + "\n")
    elif output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([csv_cell(row.get(name)) for name in columns] for row in rows)
    else:
        _print_table(rows, columns, title, empty)


def _print_json(rows: Iterable[Row]) -> None:
    separator = "[\n"
    for row in rows:
        sys.stdout.write(separator + json.dumps(row, default=str, ensure_ascii=False))
        separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")


def _print_table(rows: Iterable[Row], columns: Sequence[str], title: str, empty: str) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    iterator = iter(rows)
    first = next(iterator, None)
    if first is None:
        click.echo(empty or "nothing to show", err=True)
        return
    table = Table(title=title or None, title_justify="left", header_style="bold", box=_box())
    for name in columns:
        numeric = isinstance(first.get(name), int) or name.endswith(("usd", "tokens"))
        table.add_column(
            name.replace("_", " "),
            justify="right" if numeric else "left",
            no_wrap=numeric or name in ("name", "at"),
            overflow="fold",
        )
    for row in chain([first], islice(iterator, _TABLE_ROWS_MAX - 1)):
        cells = ((name, plain(row.get(name))) for name in columns)
        table.add_row(*(Text(cell, _style(name, cell)) for name, cell in cells))
    console().print(table)
    if next(iterator, None) is not None:
        shown = f"only the first {_TABLE_ROWS_MAX} rows are shown; --format csv has them all"
        click.echo(shown, err=True)


def _style(column: str, cell: str) -> str:
    return _STYLES.get(cell.partition(",")[0], "") if column in ("status", "verdict") else ""


def _box() -> Any:
    from rich import box  # noqa: PLC0415

    return box.SIMPLE_HEAD


def console(*, stderr: bool = False) -> Any:
    """A rich console; as wide as it takes where nobody sees where a line would break."""
    from rich.console import Console  # noqa: PLC0415

    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made.width = _PIPE_COLUMNS
    return made


def timestamp(unix_ms: int | None) -> str:
    """ISO 8601 in UTC, to the second; "" for none."""
    if unix_ms is None:
        return ""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def with_progress(label: str, work: Callable[[Callable[[int, int], None]], Any]) -> Any:
    """Run `work(report)`; `report(done, total)` moves a bar on a terminal's stderr."""
    from rich.progress import Progress  # noqa: PLC0415

    bar_console = console(stderr=True)
    if not bar_console.is_terminal:
        return work(lambda done, total: None)
    with Progress(console=bar_console, transient=True) as progress:
        task = progress.add_task(label, total=None)
        return work(lambda done, total: progress.update(task, completed=done, total=total))
