"""The ledger beside a provider's own cost export, by day (UTC) and model."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    Text,
    case,
    cast,
    delete,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import CostValidation, ModelCost, UsageCost
from db.retention import require_rows
from db.statements import table_of
from pricing.exports import TOOL, Export
from pricing.money import NANO_PER_USD, nano_from_atto

MS_PER_DAY = 86_400_000
EPOCH = date(1970, 1, 1)
ALL = ""  # the model of a line that is compared as the whole day

_COSTS = table_of(UsageCost)
_VALIDATIONS = table_of(CostValidation)
_DATED = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|latest)\Z")
_ROWS_PER_INSERT = 500

Key = tuple[date, str]


class Spent(NamedTuple):
    calls: int
    nano: int


class Comparison(NamedTuple):
    """One line: what the ledger and the provider say of a model on a day."""

    day: date
    model: str
    calls: int
    ledger_nano: int
    provider_nano: int
    exceeds: bool

    @property
    def drift_nano(self) -> int:
        return self.ledger_nano - self.provider_nano


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What drift is too much: more than this of the provider's figure, and more than that."""

    percent: Decimal = Decimal(1)
    nano: int = NANO_PER_USD // 100

    def exceeded(self, ledger_nano: int, provider_nano: int) -> bool:
        drift = abs(ledger_nano - provider_nano)
        return drift > self.nano and drift * 100 > self.percent * abs(provider_nano)


@dataclass(frozen=True, slots=True)
class Names:
    """Under which name models are compared: without dates, `aliases` applied."""

    aliases: Mapping[str, str] = field(default_factory=dict)

    def of(self, model: str) -> str:
        name = self.aliases.get(model, model).strip().lower().replace(" ", "-")
        return _DATED.sub("", name)


async def compare(
    connection: AsyncConnection,
    export: Export,
    providers: Sequence[str],
    tolerance: Tolerance,
    names: Names,
) -> list[Comparison]:
    """Every model of either side, each day the export speaks of, in order. `providers`: names of
    the configuration; none: all. A day on which the export does not tell models is one line.
    Raises ReportError where the ledger's calls of a day were removed."""
    if export.days:
        await require_rows(connection, _ms(export.days[0]), "reconciling")
    theirs: dict[Key, Spent] = {}
    for (day, model), nano in export.nano.items():
        _add(theirs, (day, names.of(model)), Spent(0, nano))
    tools = sorted({model for _, model in theirs if model.startswith(TOOL)})
    ours = await _ledger(connection, export.days, providers, tools, names)
    whole = {day for day, model in theirs if model == ALL}
    ours, theirs = _merged(ours, whole), _merged(theirs, whole)
    days, nothing = frozenset(export.days), Spent(0, 0)
    return [
        _comparison(key, ours.get(key, nothing), theirs.get(key, nothing).nano, tolerance)
        for key in sorted(ours.keys() | theirs.keys())
        if key[0] in days
    ]


def _merged(sums: Mapping[Key, Spent], whole: Container[date]) -> dict[Key, Spent]:
    """All models of a day that is compared as a whole in one line."""
    merged: dict[Key, Spent] = {}
    for (day, model), spent in sums.items():
        _add(merged, (day, ALL if day in whole else model), spent)
    return merged


def _comparison(key: Key, ours: Spent, theirs: int, tolerance: Tolerance) -> Comparison:
    return Comparison(*key, *ours, theirs, tolerance.exceeded(ours.nano, theirs))


def _add(sums: dict[Key, Spent], key: Key, spent: Spent) -> None:
    known = sums.get(key, Spent(0, 0))
    sums[key] = Spent(known.calls + spent.calls, known.nano + spent.nano)


# --- the ledger's side ---------------------------------------------------------------------


async def _ledger(
    connection: AsyncConnection,
    days: Sequence[date],
    providers: Sequence[str],
    tools: Sequence[str],
    names: Names,
) -> dict[Key, Spent]:
    """By day and model; of tools that the export bills apart, their items under the tool."""
    if not days:
        return {}
    conditions = [
        _COSTS.c.at_ms >= _ms(days[0]),
        _COSTS.c.at_ms < _ms(days[-1] + timedelta(1)),
    ]
    if providers:
        conditions.append(_COSTS.c.provider.in_(providers))
    sums: dict[Key, Spent] = {}
    for row in await connection.execute(_sums_query(conditions)):
        key = (EPOCH + timedelta(int(row.day)), names.of(_model(row)))
        _add(sums, key, Spent(int(row.calls), int(row.nano)))
    for tool in tools:
        await _set_apart(connection, sums, tool, conditions, names)
    return sums


def _sums_query(conditions: Sequence[Any]) -> Any:
    day = (_COSTS.c.at_ms // literal_column(str(MS_PER_DAY), Integer)).label("day")
    calls = func.sum(case((_COSTS.c.adjusts.is_(None), 1), else_=0)).label("calls")
    return (
        select(day, _COSTS.c.model, ModelCost.model.label("entry"), calls)
        .add_columns(func.sum(_COSTS.c.cost_nano).label("nano"))
        .join(ModelCost, _COSTS.c.price_id == ModelCost.id, isouter=True)
        .where(*conditions)
        .group_by("day", _COSTS.c.model, ModelCost.model)
    )


def _model(row: Any) -> str:
    """As the price table names it, which is nearest to what a provider bills."""
    return str(row.entry.partition("/")[2] if row.entry else row.model)


async def _set_apart(
    connection: AsyncConnection,
    sums: dict[Key, Spent],
    tool: str,
    conditions: Sequence[Any],
    names: Names,
) -> None:
    """Few calls use a tool, so their items are read one by one."""
    item = tool.removeprefix(TOOL)
    query = (
        select(_COSTS.c.at_ms, _COSTS.c.model, ModelCost.model.label("entry"), _COSTS.c.cost_items)
        .join(ModelCost, _COSTS.c.price_id == ModelCost.id, isouter=True)
        .where(*conditions, _COSTS.c.adjusts.is_(None))
        .where(cast(_COSTS.c.cost_items, Text).contains(f'"{item}', autoescape=True))
    )
    for row in await connection.execute(query):
        atto = sum(
            count * rate for name, count, rate in row.cost_items if name.partition("@")[0] == item
        )
        day = EPOCH + timedelta(row.at_ms // MS_PER_DAY)
        nano = nano_from_atto(atto)
        _add(sums, (day, names.of(_model(row))), Spent(0, -nano))
        _add(sums, (day, tool), Spent(1, nano))


def _ms(day: date) -> int:
    return (day - EPOCH).days * MS_PER_DAY


# --- what was found ------------------------------------------------------------------------


def store(
    connection: Connection,
    found: Sequence[Comparison],
    *,
    source: str,
    file_sha256: str,
    tolerance: Tolerance,
    now_ms: int,
) -> None:
    """In place of what an earlier comparison with the same file found."""
    of_file = (_VALIDATIONS.c.file_sha256 == file_sha256, _VALIDATIONS.c.source == source)
    connection.execute(delete(_VALIDATIONS).where(*of_file))
    common = {
        "validated_at_ms": now_ms,
        "source": source,
        "file_sha256": file_sha256,
        "threshold_percent": str(tolerance.percent)[:16],
    }
    rows = [
        common
        | {
            "day": each.day.isoformat(),
            "model": each.model[:256],
            "calls": each.calls,
            "ledger_nano": each.ledger_nano,
            "provider_nano": each.provider_nano,
            "exceeds": each.exceeds,
        }
        for each in found
    ]
    for start in range(0, len(rows), _ROWS_PER_INSERT):
        connection.execute(insert(_VALIDATIONS), rows[start : start + _ROWS_PER_INSERT])
