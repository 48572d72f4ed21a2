"""Hours that spend far more than the same hour of earlier weeks, per team or another part of the
hierarchy, from the hourly rollups. Hours are of UTC."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.alerts import NewAlert, identity_of
from db.anomaly import Anomaly, find_anomaly
from db.models import CostAnalytics
from db.paths import PATHS
from proxy.alert_kinds import KINDS
from proxy.control.alerts.figures import exact, iso_ms, usd

KIND = "spend_anomaly"
WEEK_H = 7 * 24
HOUR_MS = 3_600_000
LATE_MS = 15 * 60_000  # an hour is looked at for so long after its end
DAY_H = 24


@dataclass(frozen=True, slots=True)
class Watched:
    by: str  # a dimension of the hierarchy
    weeks: int
    minimum_nano: int
    threshold: float


async def anomalies(connection: AsyncConnection, watched: Watched, now_ms: int) -> list[NewAlert]:
    """In the hour that goes on, and in the one that has just ended; one per group and day."""
    hours = sorted({(now_ms - LATE_MS) // HOUR_MS, now_ms // HOUR_MS})
    alerts: list[NewAlert] = []
    for hour in hours:
        found = await _of_hour(connection, watched, hour)
        if found:
            names = await _names(connection, watched.by, list(found))
            alerts += [_alert(watched, hour, names[id_], found[id_]) for id_ in sorted(found)]
    return alerts


async def _of_hour(connection: AsyncConnection, watched: Watched, hour: int) -> dict[int, Anomaly]:
    group = CostAnalytics.__table__.c[f"{watched.by}_id"]
    spent = func.sum(CostAnalytics.cost_nano)
    same = [hour - WEEK_H * week for week in range(watched.weeks + 1)]
    query = (
        select(CostAnalytics.hour, group, spent)
        .where(CostAnalytics.hour.in_(same), group.is_not(None))
        .group_by(CostAnalytics.hour, group)
    )
    sums = {(id_, at): int(nano) for at, id_, nano in await connection.execute(query)}
    now = {id_: nano for (id_, at), nano in sums.items() if at == hour}
    now = {id_: nano for id_, nano in now.items() if nano >= watched.minimum_nano}
    if not now:
        return {}
    first = await _first_hours(connection, group, list(now), same[-1])
    found: dict[int, Anomaly] = {}
    for id_, nano in now.items():
        earlier = [sums.get((id_, at), 0) for at in same[1:] if at >= first[id_]]
        anomaly = find_anomaly(
            earlier, nano, minimum=watched.minimum_nano, threshold=watched.threshold
        )
        if anomaly is not None:
            found[id_] = anomaly
    return found


async def _first_hours(
    connection: AsyncConnection, column: Any, ids: list[int], since: int
) -> dict[int, int]:
    """When each began to spend: what was before it existed is no zero."""
    query = (
        select(column, func.min(CostAnalytics.hour))
        .where(column.in_(ids), CostAnalytics.hour >= since)
        .group_by(column)
    )
    return {id_: int(hour) for id_, hour in await connection.execute(query)}


async def _names(connection: AsyncConnection, by: str, ids: list[int]) -> dict[int, str]:
    query = PATHS[by]
    id_column = next(iter(query.selected_columns))
    rows = await connection.execute(query.where(id_column.in_(ids)))
    return {row[0]: f"{by}/{'/'.join(row[1:])}" for row in rows}


def _alert(watched: Watched, hour: int, scope: str, found: Anomaly) -> NewAlert:
    began = iso_ms(hour * HOUR_MS)
    summary = (
        f"{scope} has spent {usd(found.spent)} USD in the hour from {began}; "
        f"at this hour of the week it is usually {usd(found.usual)} USD"
    )
    facts = {
        "hour": began,
        "spent": exact("usd", found.spent),
        "usual": exact("usd", found.usual),
        "score": found.score,
        "weeks": watched.weeks,
    }
    identity = identity_of(KIND, scope, hour // DAY_H)
    return NewAlert(KIND, identity, KINDS[KIND].severity, summary, scope, facts)
