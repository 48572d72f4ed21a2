"""`tollkeeper alerts`: what was told, to whom, and whether the channels work."""

import asyncio
import time
import uuid
from functools import partial
from typing import Any

import click

from db import alerts as db
from db.alerts import RAISED, Message, RecentAlert
from db.engine import reader
from proxy.cli import Failure, Invocation, pass_invocation, subgroup
from proxy.cli_ledger import opened
from proxy.cli_output import Row, format_option, print_rows, timestamp
from proxy.config import AlertChannel, Config

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

    known = channels(invocation.load().alerts)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Failure(f"no channel is called {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    rows = asyncio.run(_test({name: known[name] for name in names or known}))
    print_rows(rows, ("channel", "kind", "status", "seconds"), output)
    if any(row["status"] != "ok" for row in rows):
        raise click.exceptions.Exit(1)


async def _test(channels: dict[str, AlertChannel]) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(_try(*item) for item in channels.items())))


async def _try(name: str, channel: AlertChannel) -> dict[str, Any]:
    from proxy.control.alerts.channels import Undelivered, deliver  # noqa: PLC0415
    from proxy.control.alerts.messages import Content  # noqa: PLC0415

    now_ms = time.time_ns() // 1_000_000
    summary = "this is a test of `tollkeeper alerts test`: nothing is wrong"
    message = Message(
        str(uuid.uuid4()), "test", RAISED, "info", "", summary, {"channel": name}, now_ms, None
    )
    began = time.monotonic()
    try:
        await deliver(channel, Content(message), time.time)
        status = "ok"
    except Undelivered as exc:
        status = f"fail, {exc}"
    seconds = f"{time.monotonic() - began:.2f}"
    return {"channel": name, "kind": channel.kind, "status": status, "seconds": seconds}
