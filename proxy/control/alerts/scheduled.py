"""Reports that are sent by themselves: once per time, like an alert; made when they are sent."""

from collections.abc import Iterable, Iterator
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from db.alerts import REPORT, Message, NewAlert, identity_of
from proxy.config import Report
from proxy.control.alerts.figures import iso_ms
from proxy.control.alerts.messages import Content
from proxy.control.reporting import Question, answer
from proxy.schedules import last_due, last_whole, parse_schedule

LATE_S = 24 * 3600  # what was due while no control ran is sent, if it was so long ago at most
ROWS_MAX = 10_000


def due_reports(reports: Iterable[Report], now_ms: int) -> Iterator[tuple[NewAlert, list[str]]]:
    """With the channels each goes to. The same until the next time: the identity decides."""
    for report in reports:
        at_s = last_due(parse_schedule(report.at), report.timezone, now_ms / 1000)
        if now_ms / 1000 - at_s <= LATE_S:
            yield _new(report, at_s), report.to


def _new(report: Report, at_s: int) -> NewAlert:
    start_s, end_s = last_whole(report.period, report.timezone, at_s)
    facts = {
        "name": report.name,
        "by": report.by,
        "where": report.where,
        "since": iso_ms(start_s * 1000),
        "until": iso_ms(end_s * 1000),
        "timezone": report.timezone,
    }
    return NewAlert(REPORT, identity_of(REPORT, report.name, at_s), "info", report.name, "", facts)


async def fill_report(connection: AsyncConnection, message: Message, now_ms: int) -> Content:
    """Raises ReportError."""
    facts = message.facts
    by = tuple(facts["by"])
    question = Question(by, facts["since"], facts["until"], facts["where"])
    found = await answer(connection, question, now_ms)
    total = sum((Decimal(row["cost_usd"]) for row in found.rows), Decimal())
    calls = sum(row["calls"] for row in found.rows)
    summary = (
        f"{facts['name']}: {total:f} USD, {calls:,} calls, "
        f"from {facts['since']} to {facts['until']}"
    )
    shown = (*by, "calls", "input_tokens", "output_tokens", "cost_usd")
    return Content(message._replace(summary=summary), found.columns, found.rows[:ROWS_MAX], shown)
