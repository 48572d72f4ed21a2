"""`tollkeeper alerts`: what was told, to whom, and whether the channels work."""

import asyncio
from functools import partial

import click

from db import alerts as db
from db.alerts import RAISED, RecentAlert
from db.engine import reader
from proxy.cli import Failure, Invocation, pass_invocation, subgroup
from proxy.cli_ledger import opened
from proxy.cli_output import Row, format_option, print_rows, timestamp
from proxy.config import Config

COLUMNS = ("raised_at", "ended_at", "kind", "severity", "summary", "deliveries")


@subgroup("List alerts, send one through every channel.")
def command() -> None:
    pass


@command.command(name="list")
@click.option("--kind", "kinds", multiple=True, help="Only of this kind; repeatable.")
@click.option("--limit", type=click.IntRange(1, db.RECENT_MAX), default=50, show_default=True)
@format_option
@pass_invocation
def list_(invocation: Invocation, kinds: tuple[str, ...], limit: int, output: str) -> None:
    """The newest alerts, and how their deliveries went.

    Scheduled reports are listed with `--kind scheduled_report`.
    """
    found = asyncio.run(_recent(invocation.load(), kinds, limit))
    print_rows(map(_row, found), COLUMNS, output, empty="no alerts")


async def _recent(config: Config, kinds: tuple[str, ...], limit: int) -> list[RecentAlert]:
    async with opened(config) as engine, reader(engine).connect() as connection:
        return await connection.run_sync(partial(db.recent, kinds=kinds, limit=limit))


def _row(alert: RecentAlert) -> Row:
    message = alert.message
    return {
        "id": message.id,
        "raised_at": timestamp(message.raised_at_ms),
        "ended_at": timestamp(message.ended_at_ms),
        "kind": message.kind,
        "severity": message.severity,
        "scope": message.scope,
        "summary": message.summary,
        "facts": message.facts,
        "deliveries": {
            f"{each.channel}/{each.event}" if each.event != RAISED else each.channel: _state(each)
            for each in alert.deliveries
        },
    }


def _state(delivery: db.Delivery) -> str:
    if not delivery.error or delivery.state == db.DELIVERED:
        return delivery.state
    return f"{delivery.state} ({delivery.error})"


@command.command()
@click.option("--channel", "names", multiple=True, help="Only through this one; repeatable.")
@format_option
@pass_invocation
def test(invocation: Invocation, names: tuple[str, ...], output: str) -> None:
    """Send one alert through every channel, and say what happened. Exit code 1: one failed."""
    from proxy.control.alerts.routes import channels  # noqa: PLC0415
    from proxy.control.alerts.trying import Tried, try_channels  # noqa: PLC0415

    known = channels(invocation.load().alerts)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Failure(f"no channel is called {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    tried = asyncio.run(try_channels({name: known[name] for name in names or known}))
    print_rows((each._asdict() for each in tried), Tried._fields, output)
    if any(each.status != "ok" for each in tried):
        raise click.exceptions.Exit(1)
