"""`tollkeeper prices import`: a table from the price data of other projects."""

from collections.abc import Sequence
from pathlib import Path

import click

from pricing.errors import SourceError
from pricing.sources.files import FILE_BYTES_MAX, KINDS, Found, Source, from_bytes, from_path
from pricing.sources.load import load, load_installed
from pricing.sources.merge import Entries, merge, table_id
from pricing.table import PriceTable, list_tables, write_table
from proxy.cli import Invocation, pass_invocation
from proxy.cli_tables import checked_day, tables, tables_dir

FETCH_TIMEOUT_S = 30


@click.command(name="import")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option(
    "--effective-from",
    metavar="DATE",
    help="First day it applies to, if no table is configured [default: today].",
)
@click.option(
    "--to",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory to write the table to [default: pricing.tables_dir, else the shipped ones'].",
)
@click.option(
    "--after",
    metavar="TABLE",
    help="Table whose models are kept if no source lists them any more; - for none "
    "[default: the newest].",
)
@pass_invocation
def command(
    invocation: Invocation,
    sources: tuple[str, ...],
    effective_from: str | None,
    directory: Path | None,
    after: str | None,
) -> None:
    """Make a table from price data and print its id.

    SOURCE is litellm's price map, the data of genai-prices, a wheel of either, a directory with
    one of these, or a URL of one [default: what is installed of the two]. Nothing of it is
    executed. Published tables are never changed, and the new one comes into force by itself.
    """
    day = checked_day(effective_from)
    config = invocation.load()
    read = read_sources(sources, day)
    directory = directory or tables_dir(config)
    known = [*tables(config), *list_tables(directory)] if after != "-" else []
    before = [info for info in known if after in (None, info.id)]
    if after not in (None, "-") and not before:
        raise click.BadParameter(f"no table is called {after!r}")
    newest = max(before, key=lambda info: (info.effective_from, info.id), default=None)
    previous: Entries = {}
    if newest is not None:
        previous = {(p, m): entry for p, m, entry in PriceTable.open(newest.path).items()}
    info = write_table(
        directory,
        merge(read, previous, day),
        table_id=table_id(read, day),
        source=", ".join(source.name for source in read),
        source_sha256=",".join(source.sha256 for source in read),
        effective_from=day,
    )
    click.echo(info.id)
    click.echo(f"{info.entries} entries, sha256 {info.sha256}, {info.path}", err=True)


def read_sources(names: Sequence[str], day: str) -> list[Source]:
    """Raises SourceError."""
    if not names:
        return load_installed(day)
    read = [load(fetch(name) if _is_url(name) else from_path(name), day) for name in names]
    kinds = [source.short_name for source in read]
    if len(set(kinds)) < len(kinds):
        raise SourceError(f"more than one source is {max(kinds, key=kinds.count)}")
    order = [kind.name for kind in KINDS]
    return sorted(read, key=lambda source: order.index(source.short_name))


def _is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def fetch(url: str) -> Found:
    """Raises SourceError."""
    import httpx  # noqa: PLC0415 - only to fetch

    data = bytearray()
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=FETCH_TIMEOUT_S) as reply:
            reply.raise_for_status()
            for chunk in reply.iter_bytes():
                data += chunk
                if len(data) > FILE_BYTES_MAX:
                    break
    except httpx.HTTPError as error:
        raise SourceError(f"{url}: {error}") from error
    return from_bytes(bytes(data), url)
