"""`tollkeeper keys`: API keys beside those the configuration declares."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import click

from db import catalog, edits, schema
from db.catalog_types import CreatedKey, KeyListing
from db.engine import reader
from proxy.cli import Invocation, pass_invocation, subgroup
from proxy.cli_ledger import cli_actor, opened, opened_unchecked
from proxy.cli_output import Row, format_option, print_rows, timestamp
from proxy.config import expires_at_ms
from proxy.control.declared import declared

COLUMNS = (
    "name",
    "hint",
    "organization",
    "team",
    "project",
    "user",
    "models",
    "providers",
    "expires",
    "revoked",
    "source",
    "created",
)


class Moment(click.ParamType[int]):
    name = "DATE"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        try:
            return expires_at_ms(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a date or timestamp, like 2027-01-31", param, ctx)


@subgroup("Make, list, revoke and rotate API keys.")
def command() -> None:
    pass


@command.command()
@click.option("--name", required=True, help="Unique for ever: reports tell keys by name.")
@click.option("--team", default="", help="acme/search, or search where only one is called that.")
@click.option("--project", default="", help="Project of the team, or acme/search/ranking.")
@click.option("--user", default="", help="Whose calls these are.")
@click.option("--expires", type=Moment(), help="Date (to its end, UTC) or timestamp.")
@click.option("--models", multiple=True, help="Glob of the models it may call; repeatable.")
@click.option("--providers", multiple=True, help="Glob of the providers it may call; repeatable.")
@pass_invocation
def create(
    invocation: Invocation,
    name: str,
    team: str,
    project: str,
    user: str,
    expires: int | None,
    models: tuple[str, ...],
    providers: tuple[str, ...],
) -> None:
    """Make a key. It is printed once, alone on stdout, and usable within a second."""
    if not team and not project:
        raise click.UsageError("give --team or --project")

    def make(connection: Any) -> CreatedKey:
        return edits.create_key(
            connection,
            cli_actor(),
            name=name,
            now_ms=_now_ms(),
            team=team,
            project=project,
            user=user,
            expires_at_ms=expires,
            models=_split(models),
            providers=_split(providers),
        )

    made: CreatedKey = asyncio.run(_change(invocation, make))
    click.echo(made.secret)
    until = f", valid until {timestamp(expires)}" if expires else ""
    click.echo(f"key {made.name} made{until}; it is not stored and not shown again", err=True)


def _split(globs: tuple[str, ...]) -> tuple[str, ...]:
    """Repeated or separated by commas."""
    return tuple(part.strip() for glob in globs for part in glob.split(",") if part.strip())


@command.command()
@click.argument("name")
@pass_invocation
def revoke(invocation: Invocation, name: str) -> None:
    """Refuse further calls with key NAME; calls in flight end as usual."""

    def change(connection: Any) -> None:
        edits.revoke_key(connection, cli_actor(), name, _now_ms())

    asyncio.run(_change(invocation, change))
    click.echo(f"key {name} revoked", err=True)


@command.command()
@click.argument("name")
@pass_invocation
def rotate(invocation: Invocation, name: str) -> None:
    """Print a new secret for key NAME; the old one stops, budgets and history stay."""

    def change(connection: Any) -> CreatedKey:
        return edits.rotate_key(connection, cli_actor(), name, _now_ms())

    made: CreatedKey = asyncio.run(_change(invocation, change))
    click.echo(made.secret)
    click.echo(f"key {made.name} rotated; it is not stored and not shown again", err=True)


@command.command(name="list")
@click.option("--revoked", is_flag=True, help="Those that are revoked too.")
@format_option
@pass_invocation
def list_(invocation: Invocation, revoked: bool, output: str) -> None:
    """All keys; never a secret, only its last characters."""
    listings = asyncio.run(_list(invocation, revoked))
    print_rows([_row(key) for key in listings], COLUMNS, output, empty="no keys")


async def _list(invocation: Invocation, revoked: bool) -> list[KeyListing]:
    async with opened(invocation.load()) as engine, reader(engine).connect() as connection:
        return await connection.run_sync(lambda sync: catalog.list_keys(sync, revoked=revoked))


def _row(key: KeyListing) -> Row:
    return key._asdict() | {
        "models": list(key.models),
        "providers": list(key.providers),
        "expires": timestamp(key.expires_at_ms),
        "revoked": timestamp(key.revoked_at_ms),
        "created": timestamp(key.created_at_ms),
    }


async def _change(invocation: Invocation, change: Callable[[Any], Any]) -> Any:
    """Change the catalog. Before the first `serve` it is empty: what is declared goes in first.

    Later it does not: a changed file takes effect when `serve` reloads it, not by a side effect.
    """
    config = invocation.load()
    async with opened_unchecked(config, read_only=False) as engine:
        fresh = await schema.current(engine) is None
        await schema.ensure(engine)
        async with engine.begin() as connection:
            if fresh:
                await connection.run_sync(catalog.sync_config, declared(config), _now_ms())
            return await connection.run_sync(change)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
