"""`tollkeeper verify`: the invariants of the ledger, on the whole database."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import click

from db.verify import Finding, verify
from proxy.cli import Invocation, pass_invocation
from proxy.cli_ledger import opened
from proxy.cli_output import format_option, print_rows, with_progress
from proxy.config import Config


@click.command()
@format_option
@pass_invocation
def command(invocation: Invocation, output: str) -> None:
    """Check the ledger's invariants (I1 to I5) on the whole database.

    Re-computes every cost from its usage and price, adds up every lease and window, and compares
    rows with what the journals still say. Safe beside a running proxy. Exit code 1 for a finding.
    """
    config = invocation.load()

    def work(progress: Callable[[int, int], None]) -> list[Finding]:
        return asyncio.run(_verify(config, progress))

    findings = with_progress("verifying", work)
    rows = (finding._asdict() for finding in findings)
    print_rows(rows, Finding._fields, output, empty="every invariant holds")
    if findings:
        raise click.exceptions.Exit(1)


async def _verify(config: Config, progress: Callable[[int, int], None]) -> list[Finding]:
    journal = Path(config.journal.dir)
    async with opened(config) as engine:
        directory = journal if await asyncio.to_thread(journal.is_dir) else None
        return await verify(engine, journal_dir=directory, progress=progress)
