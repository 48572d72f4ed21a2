"""`tollkeeper budgets`: how they stand, what one would say to a call, leases of lost hosts."""

import asyncio
import time
from functools import partial

import click

from db.catalog import load_budgets
from db.catalog_types import BudgetRow
from db.customers import count_customers
from db.engine import reader
from db.report_customers import customer_status
from db.report_leases import LeaseStatus, unfinished_leases
from db.reports import BudgetStatus, budget_status
from proxy import cli_explain, cli_raises
from proxy.cli import Failure, Invocation, pass_invocation, subgroup
from proxy.cli_ledger import cli_actor, opened
from proxy.cli_output import Row, format_option, print_rows, timestamp
from proxy.config import Config
from proxy.control.figures import figure, resets_at, starts_at
from proxy.control.releasing import release

COLUMNS = (
    "scope",
    "unit",
    "period",
    "customers",
    "limit",
    "raised",
    "spent",
    "leased",
    "remaining",
    "resets_at",
    "enforced",
    "would_refuse",
    "models",
    "providers",
)


@subgroup("List budgets, explain what they would say to a call, raise limits for a while.")
def command() -> None:
    pass


@command.command(name="list")
@click.option(
    "--customers",
    metavar="SCOPE",
    help="Those of its customers, where a budget on SCOPE is one for each: who spent most first.",
)
@click.option("--top", default=20, show_default=True, help="As many of them of each budget.")
@format_option
@pass_invocation
def list_(invocation: Invocation, customers: str | None, top: int, output: str) -> None:
    """Every budget and its current window.

    `leased` is set aside for calls in flight and workers; `remaining` is limit less spent;
    `would_refuse` counts the calls that a budget that is not enforced would have refused. A budget
    for each customer has none of these, but a number of `customers` that it tracks.
    """
    now_s, config = time.time(), invocation.load()
    if customers is None:
        statuses, counts = asyncio.run(_statuses(config, now_s))
    else:
        statuses, counts = asyncio.run(_customers(config, customers, top, now_s)), {}
    rows = (_row(status, counts.get(status.budget.id, 0), now_s) for status in statuses)
    empty = "no budgets" if customers is None else "no customers"
    print_rows(rows, COLUMNS, output, empty=empty)


async def _statuses(config: Config, now_s: float) -> tuple[list[BudgetStatus], dict[int, int]]:
    async with opened(config) as engine, reader(engine).connect() as connection:
        statuses = await budget_status(connection, lambda budget: starts_at(budget, now_s))
        return statuses, await connection.run_sync(count_customers)


async def _customers(config: Config, scope: str, top: int, now_s: float) -> list[BudgetStatus]:
    async with opened(config) as engine, reader(engine).connect() as connection:
        budgets = await connection.run_sync(load_budgets)
        templates = [budget for budget in budgets if budget.each and budget.scope == scope]
        if not templates:
            raise Failure(f"no budget on {scope!r} is one for each customer")
        found = []
        for template in templates:
            found += await customer_status(
                connection, template, lambda budget: starts_at(budget, now_s), top
            )
        return found


def _row(status: BudgetStatus, customers: int, now_s: float) -> Row:
    budget = status.budget
    if budget.each:
        return {
            "scope": budget.scope,
            "unit": budget.unit,
            "period": budget.period,
            "customers": customers,
            "limit": figure(budget.unit, status.limit),
            "resets_at": resets_at(budget, now_s),
            "enforced": budget.enforce,
            "models": list(budget.models),
            "providers": list(budget.providers),
        }
    return {
        "scope": budget.scope,
        "unit": budget.unit,
        "period": budget.period,
        "limit": figure(budget.unit, status.limit),
        "raised": figure(budget.unit, budget.raised) if budget.raised else None,
        "spent": figure(budget.unit, status.spent),
        "leased": figure(budget.unit, status.leased),
        "remaining": figure(budget.unit, status.remaining),
        "overage": figure(budget.unit, status.overage),
        "resets_at": resets_at(budget, now_s),
        "enforced": budget.enforce,
        "would_refuse": None if budget.enforce and not status.spared else status.spared,
        "models": list(budget.models),
        "providers": list(budget.providers),
    }


@command.command()
@format_option
@pass_invocation
def leases(invocation: Invocation, output: str) -> None:
    """Money granted to a control and not spent, by epoch (one life of one control).

    An epoch that is `lost` keeps its money until its host comes back with its journals, or
    `release-lease` gives it up.
    """
    rows = asyncio.run(_leases(invocation.load()))
    columns = ("epoch", "host", "state", "seen", "scope", "unit", "window", "granted", "spent")
    print_rows(rows, columns, output, empty="no leases")


async def _leases(config: Config) -> list[Row]:
    async with opened(config) as engine, reader(engine).connect() as connection:
        budgets = {row.id: row for row in await connection.run_sync(load_budgets)}
        found = await connection.run_sync(unfinished_leases)
    return [_lease_row(lease, budgets.get(lease.budget_id)) for lease in found]


def _lease_row(lease: LeaseStatus, budget: BudgetRow | None) -> Row:
    unit = budget.unit if budget else ""
    return {
        "epoch": lease.epoch_id,
        "host": lease.host_id,
        "state": lease.state,
        "seen": timestamp(lease.seen_at_ms),
        "scope": budget.scope if budget else f"deleted budget {lease.budget_id}",
        "unit": unit,
        "window": timestamp(lease.starts_at * 1000),
        "granted": figure(unit, lease.granted),
        "spent": figure(unit, lease.spent),
    }


@command.command(name="release-lease")
@click.argument("epoch", type=int)
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def release_lease(invocation: Invocation, epoch: int, yes: bool) -> None:
    """Give up EPOCH of a host that is gone for good: what it did not spend is free again.

    If the host comes back after all, rows still in its journals are recorded in full, but count
    as spending without backing.
    """
    if not yes:
        click.confirm(f"Is the host of epoch {epoch} off, and will it stay off?", abort=True)
    asyncio.run(_release(invocation.load(), epoch))
    click.echo(f"epoch {epoch} released", err=True)


async def _release(config: Config, epoch: int) -> None:
    now_ms = time.time_ns() // 1_000_000
    work = partial(release, actor=cli_actor(), epoch_id=epoch, now_ms=now_ms)
    async with opened(config, read_only=False) as engine, engine.begin() as connection:
        await connection.run_sync(work)


command.add_command(cli_explain.command, "explain")
command.add_command(cli_raises.raise_, "raise")
command.add_command(cli_raises.raises, "raises")
