"""The same usage at other models' prices, as rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import reader
from db.models import Organization, Team
from db.report_filters import Filters, parse_time_range
from db.whatif import Key, Repriced, what_if
from pricing.money import usd_from_nano
from proxy.config import Pricing
from proxy.control.reporting import change
from proxy.control.versions import CONFIGURED, find_version

COLUMNS = (
    "at_model", "calls", "cost_usd", "priced", "priced_cost_usd", "what_if_usd", "change_usd",
    "change_percent", "estimated", "not_priced", "reasons",
)  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Times as `parse_time_range` takes them, `version` as `find_version` does."""

    models: Sequence[str]  # PROVIDER/MODEL
    by: Sequence[str] = ()
    since: str | None = None
    until: str | None = None
    timezone: str = "UTC"
    where: Mapping[str, str] = field(default_factory=dict)
    version: str = CONFIGURED


async def rows_of(engine: AsyncEngine, pricing: Pricing, asked: WhatIf, now_ms: int) -> list[Row]:
    """The dearest groups first, models in the order of their cost. Raises ReportError."""
    times = parse_time_range(asked.since, asked.until, now_ms, asked.timezone)
    async with reader(engine).connect() as connection:
        target = await find_version(connection, asked.version, pricing)
        names = select(Team.id, Organization.name, Team.name).join(
            Organization, Team.organization_id == Organization.id
        )
        teams = {id_: (org, team) for id_, org, team in await connection.execute(names)}
    filters = Filters(*times, asked.where)
    found = await what_if(engine, target.book, asked.models, asked.by, filters, now_ms, teams)
    return list(_rows(found, asked.by))


def _rows(found: Mapping[Key, Repriced], by: Sequence[str]) -> Iterator[Row]:
    def order(item: tuple[Key, Repriced]) -> Any:
        key, sums = item
        return -sums.cost_nano, tuple(part or "" for part in key.group), sums.other_nano, key.model

    for key, sums in sorted(found.items(), key=order):
        difference = change(sums.other_nano, sums.priced_nano)
        reasons = [f"{count} {reason}" for reason, count in sums.not_priced.most_common()]
        yield {
            **dict(zip(by, key.group, strict=True)),
            "at_model": key.model,
            "calls": sums.calls,
            "cost_usd": usd_from_nano(sums.cost_nano),
            "priced": sums.priced,
            "priced_cost_usd": usd_from_nano(sums.priced_nano),
            "what_if_usd": usd_from_nano(sums.other_nano),
            "change_usd": difference["change_usd"],
            "change_percent": difference["change_percent"],
            "estimated": sums.estimated,
            "not_priced": sums.not_priced.total(),
            "reasons": reasons,
        }
