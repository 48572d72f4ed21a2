"""`tollkeeper budgets raise` and `raises`: limits that are higher for a while."""

import asyncio
import time
from datetime import datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo

import click
from sqlalchemy import Connection

from db.audit import record
from db.catalog import bump_revision, load_budgets
from db.catalog_types import BudgetRow
from db.engine import reader
from db.errors import CatalogError
from db.raises import LIMIT_MAX, RaiseRow, Span, add_raise, list_raises
from pricing.money import NANO_PER_USD
from proxy.cli import Failure, Invocation, pass_invocation
from proxy.cli_ledger import cli_actor, opened
from proxy.cli_output import Row, format_option, print_rows, timestamp
from proxy.config import WEEKDAYS, Config
from proxy.control.figures import figure
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
) -> None:
    """Raise the limit of SCOPE's budget for a while: team/acme/search --by 50 --until friday.

    In force within a second, and over by itself. Dates are of the budget's time zone. What was
    raised by mistake is taken back with the same amount below zero (--by=-50).
    """
    if not reason.isprintable():
        raise Failure("--reason: printable characters, please")
    made = asyncio.run(_made(invocation.load(), scope, (by, since, until, reason), (period, unit)))
    click.echo(made, err=True)


async def _made(
    config: Config,
    scope: str,
    asked: tuple[str, str | None, str, str],
    which: tuple[str | None, str | None],
) -> str:
    def work(connection: Connection) -> str:
        return _make(connection, scope, asked, which)

    async with opened(config, read_only=False) as engine, engine.begin() as connection:
        return await connection.run_sync(work)


def _make(
    connection: Connection,
    scope: str,
    asked: tuple[str, str | None, str, str],
    which: tuple[str | None, str | None],
) -> str:
    by, since, until, reason = asked
    budget, now_s = _budget(load_budgets(connection), scope, *which), time.time()
    amount, zone = _amount(budget.unit, by), ZoneInfo(budget.timezone)
    begins = now_s if since is None else _moment(since, zone, now_s, end=False)
    span = Span(int(begins * 1000), int(_moment(until, zone, now_s, end=True) * 1000), amount)
    by_whom, now_ms = cli_actor(), int(now_s * 1000)
    try:
        made = {"made_by": by_whom.who, "reason": reason}
        id_ = add_raise(connection, budget.id, span, now_ms=now_ms, **made)
    except CatalogError as exc:
        raise Failure(f"{budget.scope}: {exc}") from exc
    bump_revision(connection)
    told: Row = {
        "raise": id_,
        "scope": budget.scope,
        "period": budget.period,
        "unit": budget.unit,
        "by": figure(budget.unit, amount),
        "from": timestamp(span.from_ms),
        "until": timestamp(span.until_ms),
        "reason": reason,
    }
    record(connection, by_whom, now_ms, "budget.raise", f"budget/{budget.id}", None, told)
    unit = "USD" if budget.unit == "usd" else budget.unit
    return (
        f"{budget.scope} per {budget.period}: {figure(budget.unit, amount)} {unit} more from "
        f"{timestamp(span.from_ms)} to {timestamp(span.until_ms)}"
    )


def _budget(
    budgets: list[BudgetRow], scope: str, period: str | None, unit: str | None
) -> BudgetRow:
    found = [
        budget
        for budget in budgets
        if budget.scope == scope and period in (None, budget.period) and unit in (None, budget.unit)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise Failure(f"no such budget on {scope!r}: see `tollkeeper budgets list`")
    kinds = ", ".join(f"{budget.unit} per {budget.period}" for budget in found)
    raise Failure(f"{scope} has several budgets ({kinds}): say which with --period and --unit")


def _amount(unit: str, text: str) -> int:
    try:
        value = Decimal(text) * (NANO_PER_USD if unit == "usd" else 1)
        if value.is_finite() and not value % 1 and abs(value) <= LIMIT_MAX:
            return int(value)
    except InvalidOperation:
        pass
    expected = "an amount in USD, down to 0.000000001" if unit == "usd" else f"a number of {unit}"
    raise Failure(f"--by {text}: expected {expected}")


def _moment(text: str, zone: ZoneInfo, now_s: float, *, end: bool) -> float:
    """Unix seconds; `end`: a day is meant to its end."""
    today = datetime.fromtimestamp(now_s, zone).date()
    try:
        if text.lower() in WEEKDAYS:
            ahead = (WEEKDAYS.index(text.lower()) - today.weekday()) % 7
            day = today + timedelta(days=ahead)
        else:
            moment = datetime.fromisoformat(text)
            if len(text) > len("2026-12-04"):
                return moment.replace(tzinfo=moment.tzinfo or zone).timestamp()
            day = moment.date()
        day += timedelta(days=int(end))
        return datetime.combine(day, time_of_day.min, zone).timestamp()
    except (ValueError, OverflowError) as exc:
        raise Failure(
            f"{text!r}: expected a date like 2026-12-04, a timestamp or a weekday"
        ) from exc


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
        budgets = {row.id: row for row in await connection.run_sync(load_budgets)}
        found = await connection.run_sync(lambda c: list_raises(c, ended=ended))
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
