"""`tollkeeper db`: migrations."""

import asyncio

import click

from db import schema
from db.errors import SchemaMismatch
from proxy.cli import Failure, Invocation, pass_invocation, subgroup
from proxy.cli_ledger import opened_unchecked


@subgroup("Migrate the database.")
def command() -> None:
    pass


@command.command()
@click.argument("revision", default="head")
@pass_invocation
def upgrade(invocation: Invocation, revision: str) -> None:
    """Migrate up to REVISION [head]. `serve` does this by itself."""
    asyncio.run(_migrate(invocation, revision, up=True))


@command.command()
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask: what the revision lacks is dropped.")
@pass_invocation
def downgrade(invocation: Invocation, revision: str, yes: bool) -> None:
    """Migrate down to REVISION; `base` drops every table."""
    if not yes:
        click.confirm(f"Drop what revision {revision} does not have?", abort=True, err=True)
    asyncio.run(_migrate(invocation, revision, up=False))


@command.command()
@pass_invocation
def current(invocation: Invocation) -> None:
    """Print the database's revision; exit code 1 unless it is the one this version needs."""
    asyncio.run(_current(invocation))


async def _migrate(invocation: Invocation, revision: str, *, up: bool) -> None:
    async with opened_unchecked(invocation.load(), read_only=False) as engine:
        await (schema.upgrade if up else schema.downgrade)(engine, revision)
        click.echo(await schema.current(engine) or "base")


async def _current(invocation: Invocation) -> None:
    async with opened_unchecked(invocation.load(), read_only=True) as engine:
        click.echo(await schema.current(engine) or "base")
        try:
            await schema.check(engine)
        except SchemaMismatch as exc:
            raise Failure(str(exc), 1) from exc
