"""`tollkeeper budgets raise` and `raises`: limits that are higher for a while."""

import asyncio
import time
from typing import NamedTuple

import click
from sqlalchemy import Connection

from db.catalog import load_budgets
from db.catalog_types import BudgetRow
from db.engine import reader
from db.errors import CatalogError
from db.raises import RaiseRow, list_raises
from proxy.cli import Failure, Invocation, pass_invocation
from proxy.cli_ledger import cli_actor, opened
from proxy.cli_output import Row, format_option, print_rows, timestamp
from proxy.config import Config
from proxy.control.figures import figure
from proxy.control.raising import Asked, customers_budget, raise_limit, raised_budgets
from proxy.windows import PERIODS

COLUMNS = ("id", "scope", "period", "unit", "by", "from", "until", "in_force", "made_by", "reason")
UNITS = ("usd", "tokens", "requests")


@click.command()
@click.argument("scope")
@click.option("--by", required=True, help="In the budget's unit: USD, tokens or requests.")
@click.option("--until", required=True, help="Date (to its end), weekday or timestamp.")
@click.option("--from", "since", help="Date, weekday or timestamp [default: now].")
@click.option("--reason", default="", help="For people who read `budgets raises`.")
@click.option("--period", type=click.Choice(PERIODS), help="Where the scope has several budgets.")
@click.option("--unit", type=click.Choice(UNITS), help="The same.")
@click.option("--customer", default="", help="Of a budget for each customer: whose limit it is.")
@pass_invocation
def raise_(
    invocation: Invocation,
    scope: str,
    by: str,
    until: str,
    since: str | None,
    reason: str,
    period: str | None,
    unit: str | None,
    customer: str,
) -> None:
    """Raise the limit of SCOPE's budget for a while: team/acme/search --by 50 --until friday.

    In force within a second, and over by itself. Dates are of the budget's time zone. What was
    raised by mistake is taken back with the same amount below zero (--by=-50).
    """
    asked = Asked(by, until, since or "", reason)
    which = _Which(scope, period, unit, customer)
    made = asyncio.run(_made(invocation.load(), which, asked))
    click.echo(made, err=True)


class _Which(NamedTuple):
    """The budget that is meant."""

    scope: str
    period: str | None
    unit: str | None
    customer: str


async def _made(config: Config, which: _Which, asked: Asked) -> str:
    def work(connection: Connection) -> str:
        return _make(connection, which, asked)

    async with opened(config, read_only=False) as engine, engine.begin() as connection:
        return await connection.run_sync(work)


def _make(connection: Connection, which: _Which, asked: Asked) -> str:
    budget = _budget(load_budgets(connection), which)
    now_ms = time.time_ns() // 10**6
    try:
        if which.customer:
            budget = customers_budget(connection, budget, which.customer, now_ms)
        made = raise_limit(connection, cli_actor(), budget, asked, now_ms)
    except CatalogError as exc:
        raise Failure(f"{budget.scope}: {exc}") from exc
    unit = "USD" if budget.unit == "usd" else budget.unit
    return (
        f"{budget.scope} per {budget.period}: {figure(budget.unit, made.amount)} {unit} more from "
        f"{timestamp(made.from_ms)} to {timestamp(made.until_ms)}"
    )


def _budget(budgets: list[BudgetRow], which: _Which) -> BudgetRow:
    scope = which.scope
    found = [
        budget
        for budget in budgets
        if budget.scope == scope
        and which.period in (None, budget.period)
        and which.unit in (None, budget.unit)
        and (bool(budget.each) or not which.customer)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        what = "budget for each customer" if which.customer else "such budget"
        raise Failure(f"no {what} on {scope!r}: see `tollkeeper budgets list`")
    kinds = ", ".join(f"{budget.unit} per {budget.period}" for budget in found)
    raise Failure(f"{scope} has several budgets ({kinds}): say which with --period and --unit")


@click.command()
@click.option("--all", "ended", is_flag=True, help="Those that have ended, too.")
@format_option
@pass_invocation
def raises(invocation: Invocation, ended: bool, output: str) -> None:
    """Raises in force and to come: of what, by whom, until when, why."""
    rows = asyncio.run(_rows(invocation.load(), ended))
    print_rows(rows, COLUMNS, output, empty="no raises")


async def _rows(config: Config, ended: bool) -> list[Row]:
    async with opened(config) as engine, reader(engine).connect() as connection:
        found = await connection.run_sync(lambda c: list_raises(c, ended=ended))
        budgets = await connection.run_sync(raised_budgets, found)
    return [_row(each, budgets.get(each.budget_id)) for each in found]


def _row(each: RaiseRow, budget: BudgetRow | None) -> Row:
    unit = budget.unit if budget else ""
    return {
        "id": each.id,
        "scope": budget.scope if budget else f"deleted budget {each.budget_id}",
        "period": budget.period if budget else "",
        "unit": unit,
        "by": figure(unit, each.amount),
        "from": timestamp(each.from_ms),
        "until": timestamp(each.until_ms),
        "in_force": each.in_force,
        "made_by": each.made_by,
        "reason": each.reason,
    }
