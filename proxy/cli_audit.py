"""`tollkeeper audit`: who changed what."""

import asyncio
import time

import click

from db.audit import AuditRow, audit_rows
from db.engine import reader
from db.report_filters import parse_time_range
from proxy.cli import Invocation, pass_invocation
from proxy.cli_ledger import opened
from proxy.cli_output import Row, format_option, print_rows, timestamp
from proxy.config import Config

COLUMNS = ("at", "who", "origin", "action", "target", "changed")


@click.command()
@click.option("--since", help="Date, timestamp, or a span back from now such as 7d.")
@click.option("--until", help="Date (to its end), timestamp or span.")
@click.option("--who", default="", help="admin, cli:USER or config.")
@click.option("--target", default="", help="What was changed, like key/search-prod.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@format_option
@pass_invocation
def command(
    invocation: Invocation,
    since: str | None,
    until: str | None,
    who: str,
    target: str,
    limit: int,
    output: str,
) -> None:
    """Every change of keys, budgets and the hierarchy, the newest first.

    JSON has what it was before and after, whole.
    """
    since_ms, until_ms = parse_time_range(since, until, time.time_ns() // 1_000_000)
    options = {"since_ms": since_ms, "until_ms": until_ms, "who": who, "target": target}
    rows = asyncio.run(_read(invocation.load(), {"limit": limit, **options}))
    print_rows(map(_row, rows), COLUMNS, output, empty="no changes")


async def _read(config: Config, options: Row) -> list[AuditRow]:
    async with opened(config) as engine, reader(engine).connect() as connection:
        return await connection.run_sync(lambda sync: audit_rows(sync, **options))


def _row(entry: AuditRow) -> Row:
    before, after = entry.before or {}, entry.after or {}
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    changed = {name: after.get(name) for name in names} if entry.before and entry.after else {}
    return {
        "at": timestamp(entry.at_ms),
        "who": entry.who,
        "origin": entry.origin,
        "action": entry.action,
        "target": entry.target,
        "changed": changed,
        "before": entry.before,
        "after": entry.after,
    }
