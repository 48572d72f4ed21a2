"""`tollkeeper prices`: the tables, what is in them, and where new ones come from."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from pricing.book import Overlay, PriceBook
from pricing.sources import litellm
from pricing.table import TABLES_DIR, PriceTable, choose_table, list_tables, write_table
from proxy.cli import Failure, Invocation, pass_invocation, subgroup
from proxy.cli_output import Row, format_option, print_rows
from proxy.config import Config

Entries = Mapping[tuple[str, str], Mapping[str, Any]]

_SHOWN_PRICES = {
    "input_usd": "input_cost_per_token",
    "cache_read_usd": "cache_read_input_token_cost",
    "cache_write_usd": "cache_creation_input_token_cost",
    "output_usd": "output_cost_per_token",
}
_MILLION = Decimal(1_000_000)


@subgroup(
    "List, show, compare and import price tables; reprice past calls.",
    elsewhere={"reprice": "proxy.cli_reprice"},
)
def command() -> None:
    pass


@command.command(name="list")
@format_option
@pass_invocation
def list_(invocation: Invocation, output: str) -> None:
    """The tables there are, and which one is in effect."""
    tables = list_tables()
    chosen = choose_table(tables, _today(), invocation.load().pricing.table)
    rows = [
        {
            "id": info.id,
            "in_effect": info.id == chosen.id,
            "effective_from": info.effective_from,
            "source": info.source,
            "entries": info.entries,
            "sha256": info.sha256,
        }
        for info in tables
    ]
    print_rows(rows, list(rows[0]), output)


@command.command()
@click.argument("model")
@click.option("--provider", default="*", help="Glob of the provider's name.")
@click.option("--table", "table_id", default="", help="Id of a table [default: the one in effect].")
@format_option
@pass_invocation
def show(invocation: Invocation, model: str, provider: str, table_id: str, output: str) -> None:
    """Prices of the models that match MODEL (a glob), in USD per million tokens.

    The configuration's overlays are applied. JSON shows the whole entry.
    """
    rows = _prices(invocation.load(), table_id, provider, model)
    columns = ["provider", "model", *_SHOWN_PRICES, "max_input_tokens", "max_output_tokens"]
    found = next(rows, None)
    if found is None:
        raise Failure(f"no table entry matches {provider}/{model}", 1)
    print_rows(_chain(found, rows), columns, output, title="USD per million tokens")


def _chain(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest


def _prices(config: Config, table_id: str, provider: str, model: str) -> Iterator[Row]:
    table = _open(table_id or config.pricing.table)
    book = PriceBook(table, [Overlay.of(overlay) for overlay in config.pricing.overlays])
    for entry_provider, entry_model, _ in table.items():
        if not (fnmatchcase(entry_provider, provider) and fnmatchcase(entry_model, model)):
            continue
        price = book.quote(entry_provider, entry_model)
        if price is None:
            continue
        yield {
            "provider": entry_provider,
            "model": entry_model,
            **{name: _per_million(price.entry.get(key)) for name, key in _SHOWN_PRICES.items()},
            "max_input_tokens": price.max_input_tokens,
            "max_output_tokens": price.max_output_tokens,
            "entry": dict(price.entry),
        }


def _per_million(usd: str | None) -> str | None:
    return None if usd is None else format((Decimal(usd) * _MILLION).normalize(), "f")


@command.command()
@click.argument("old", required=False, default="")
@click.argument("new", required=False, default="")
@format_option
@pass_invocation
def diff(invocation: Invocation, old: str, new: str, output: str) -> None:
    """What changes from table OLD to NEW; exit code 1 if anything does.

    Each is the id of a table, or the path of a litellm price map. OLD defaults to the table in
    effect, NEW to the price map of the installed litellm.
    """
    before = _entries(old or _open(invocation.load().pricing.table).id)
    after = _entries(new) if new else litellm.load().entries
    rows = list(_differences(before, after))
    columns = ["provider", "model", "key", "old", "new"]
    print_rows(rows, columns, output, empty="no difference")
    if rows:
        raise click.exceptions.Exit(1)


def _differences(before: Entries, after: Entries) -> Iterator[Row]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, {}), after.get(name, {})
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                values = {"key": key, "old": old.get(key), "new": new.get(key)}
                yield {"provider": name[0], "model": name[1], **values}


def _entries(name: str) -> Entries:
    """The entries of a table named by id, or of a price map named by path."""
    if name in {info.id for info in list_tables()} or not Path(name).exists():
        return {(provider, model): entry for provider, model, entry in _open(name).items()}
    return litellm.load(name).entries


def _open(table_id: str) -> PriceTable:
    info = choose_table(list_tables(), _today(), table_id)
    return PriceTable.open(info.path, info.sha256)


@command.command(name="import")
@click.argument("source", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--effective-from",
    metavar="DATE",
    help="First day it applies to, if no table is configured [default: today].",
)
@click.option(
    "--to",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=TABLES_DIR,
    help="Directory to write the table to [default: the one tables are read from].",
)
def import_(source: Path | None, effective_from: str | None, directory: Path) -> None:
    """Make a table from a litellm price map and print its id.

    SOURCE is the map, or a directory it lies in [default: the installed litellm]. Nothing of
    litellm is executed. Published tables are never changed.
    """
    day = effective_from or _today()
    try:
        date.fromisoformat(day)
    except ValueError as exc:
        raise click.BadParameter(f"{day!r} is not a date like 2027-01-31") from exc
    found = litellm.load(source)
    info = write_table(
        directory,
        found.entries,
        table_id=litellm.table_id(found, day),
        source=found.name,
        source_sha256=found.sha256,
        effective_from=day,
    )
    click.echo(info.id)
    click.echo(f"{info.entries} entries, sha256 {info.sha256}, {info.path}", err=True)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
