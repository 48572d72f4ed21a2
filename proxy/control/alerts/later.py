"""What a provider bills later (batches, background responses) and was more than was held for it.

It is read off the ledger, where it was settled by whichever host: told once per model and day, also
after a restart.
"""

from sqlalchemy.ext.asyncio import AsyncConnection

from db.alerts import NewAlert, identity_of
from db.report_later import AboveHold, above_hold
from proxy.alert_kinds import KINDS
from proxy.control.alerts.figures import exact, usd
from proxy.control.alerts.host import ALERTS_MAX, DAY_MS, VIOLATION
from proxy.control.plain_rows import printable


async def settled_above(connection: AsyncConnection, now_ms: int) -> list[NewAlert]:
    """Of yesterday, whose last settlements nobody may have seen, and of today (UTC)."""
    today = now_ms // DAY_MS
    return [
        _alert(day, found)
        for day in (today - 1, today)
        for found in await above_hold(connection, day * DAY_MS, (day + 1) * DAY_MS, ALERTS_MAX)
    ]


def _alert(day: int, found: AboveHold) -> NewAlert:
    name = f"{found.provider}/{found.model}"
    calls = "a call" if found.calls == 1 else f"{found.calls:,} calls"
    summary = (
        f"{calls} to {printable(name)} cost {usd(found.above_nano)} USD more than was held, as the "
        "provider told later: a price or a rule of holds is wrong"
    )
    facts = {
        "name": printable(name),
        "count": found.calls,
        "above": exact("usd", found.above_nano),
        "later": True,
    }
    identity = identity_of(VIOLATION, "later", day, name)
    return NewAlert(VIOLATION, identity, KINDS[VIOLATION].severity, summary, "", facts)
