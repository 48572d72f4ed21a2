"""`tollkeeper prices`: the tables, what is in them, and where new ones come from."""

from collections.abc import Iterator
from decimal import Decimal
from fnmatch import fnmatchcase

import click

from pricing.sources.merge import disagreements
from pricing.table import choose_table
from proxy import cli_prices_diff, cli_prices_import
from proxy.cli import Failure, Invocation, pass_invocation, subgroup
from proxy.cli_output import Row, format_option, print_rows
from proxy.cli_tables import checked_day, open_book, open_table, tables, today
from proxy.control.price_rows import SHOWN_PRICES, price_rows


@subgroup(
    "List, show, compare and import price tables; reprice past calls.",
    elsewhere={"reprice": "proxy.cli_reprice"},
)
def command() -> None:
    pass


command.add_command(cli_prices_diff.command)
command.add_command(cli_prices_import.command)


@command.command(name="list")
@format_option
@pass_invocation
def list_(invocation: Invocation, output: str) -> None:
    """The tables there are, and which one is in effect."""
    config = invocation.load()
    known = tables(config)
    chosen = choose_table(known, today(), config.pricing.table)
    rows = [
        {
            "id": info.id,
            "in_effect": info.id == chosen.id,
            "effective_from": info.effective_from,
            "source": info.source,
            "entries": info.entries,
            "sha256": info.sha256,
        }
        for info in known
    ]
    print_rows(rows, list(rows[0]), output)


@command.command()
@click.argument("model")
@click.option("--provider", default="*", help="Glob of the provider's name.")
@click.option("--table", "table_id", default="", help="Id of a table [default: the one in effect].")
@click.option("--at", metavar="DATE", help="As it was, is or will be on a day.")
@click.option("--team", default="", metavar="ORG/TEAM", help="As it is for the calls of a team.")
@format_option
@pass_invocation
def show(
    invocation: Invocation,
    model: str,
    provider: str,
    table_id: str,
    at: str | None,
    team: str,
    output: str,
) -> None:
    """Prices of the models that match MODEL (a glob), in USD per million tokens.

    The configuration's overlays are applied. JSON shows the whole entry.
    """
    day = checked_day(at) if at is not None else ""
    book = open_book(invocation.load(), table_id, day)
    organization, _, name = team.partition("/")
    rows = price_rows(book.for_team(organization, name), provider, model, day)
    columns = ["provider", "model", *SHOWN_PRICES, "max_input_tokens", "max_output_tokens"]
    columns += ["source", "retired"]
    found = next(rows, None)
    if found is None:
        raise Failure(f"no table entry matches {provider}/{model}", 1)
    print_rows(_chain(found, rows), columns, output, title=f"{book.version}: USD per million")


def _chain(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest


@command.command(name="disagreements")
@click.option("--provider", default="*", help="Glob of the provider's name.")
@click.option("--table", "table_id", default="", help="Id of a table [default: the one in effect].")
@format_option
@pass_invocation
def disagreements_(invocation: Invocation, provider: str, table_id: str, output: str) -> None:
    """Where the sources of a table give different prices, and whose is used.

    In USD per unit. Exit code 1 if there are any.
    """
    config = invocation.load()
    table = open_table(config, table_id or config.pricing.table)
    rows = [
        each._asdict() | {"percent": _percent(each.price, each.other_price)}
        for each in disagreements(table.items())
        if fnmatchcase(each.model.partition("/")[0], provider)
    ]
    columns = ["model", "key", "source", "price", "other_source", "other_price", "percent"]
    print_rows(rows, columns, output, empty="the sources agree")
    if rows:
        raise click.exceptions.Exit(1)


def _percent(price: str, other: str) -> str | None:
    """How much more the other source says."""
    if not Decimal(price):
        return None
    return f"{(Decimal(other) / Decimal(price) - 1) * 100:+.1f}"
