"""Removing cost rows of long ago, whole months of them, once and for all.

What their sums are needed for stays: rollups, so that reports by hour, day or month go on; what
they charged to budgets, added up per set of windows, so that windows can still be verified; and the
horizon, before which there are no calls. A call goes with its adjustments, never without. After
`KEEP_DAYS_MIN` no provider tells the usage of a call any more, so calls that are still open, were
estimated, lost or not priced are final by then, and go as they were charged.

On PostgreSQL a month is a partition, detached and dropped. Elsewhere, and of rows in no month's
partition, calls go in small batches, so that nobody waits long for the lock.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from db.errors import ReportError
from db.journal_records import FLAG_UNPRICED
from db.models import CostAdjustment, ProviderObject, PrunedCharges, Repricing, Retention, UsageCost
from db.partitions import Partition, detach, list_partitions, lock
from db.statements import table_of
from db.transactions import T, Transactions, Work, with_retries
from db.verify_charges import SUMS, row_sums

MS_PER_DAY = 86_400_000
KEEP_DAYS_MIN = 90
BATCH_CALLS = 100
BATCH_CALLS_MAX = 10_000
BATCH_S = 0.025  # what a batch is to take; the lock is held for twice that at most, but for fsync
LOCK = 0x746F6C72  # PostgreSQL advisory lock: one batch at a time
PAUSE = 2  # times a batch: others are to find the lock free most of the time

_COSTS = table_of(UsageCost)
_LATER = _COSTS.alias()
_RUNS = table_of(Retention)
_ADJUSTMENTS = table_of(CostAdjustment)
_CARRIED = table_of(PrunedCharges)

Progress = Callable[[int, int], None]


class Removed(NamedTuple):
    calls: int
    nano: int


def horizon_of(keep_days: int, now_ms: int) -> int:
    """The begin, in unix milliseconds, of the month (UTC) that the oldest day kept is in."""
    oldest = datetime.fromtimestamp(now_ms / 1000 - keep_days * 86_400, UTC)
    return int(datetime(oldest.year, oldest.month, 1, tzinfo=UTC).timestamp()) * 1000


def first_id(at_ms: int) -> bytes:
    """Call ids of earlier times are smaller, the others are not: UUIDv7 begin with their time."""
    return at_ms.to_bytes(6, "big") + bytes(10)


async def read_horizon(connection: AsyncConnection) -> int:
    """Unix milliseconds; 0: everything is there."""
    return int((await connection.execute(select(func.max(_RUNS.c.horizon_ms)))).scalar() or 0)


async def require_rows(connection: AsyncConnection, since_ms: int | None, what: str) -> None:
    """Raises ReportError where the calls since then (None: all) are not there any more."""
    horizon_ms = await read_horizon(connection)
    if horizon_ms and (since_ms is None or since_ms < horizon_ms):
        day = f"{datetime.fromtimestamp(horizon_ms / 1000, UTC):%Y-%m-%d}"
        raise ReportError(
            f"{what} needs the calls themselves, and those before {day} were removed (`tollkeeper "
            f"db retain`): ask for {day} (UTC) or later. Sums of whole hours by organization, team,"
            " project, user, key, provider or model reach back further"
        )


class Month(NamedTuple):
    """Calls of one month (UTC) that are to go. `open` still wait for their usage, `lost` and
    `estimated` were charged without it, `unpriced` at a declared rate."""

    month: str
    calls: int
    nano: int  # adjustments included
    open: int
    lost: int
    estimated: int
    unpriced: int


async def look(connection: AsyncConnection, horizon_ms: int) -> list[Month]:
    """What a run would remove, by month."""
    call = _COSTS.c.adjusts.is_(None)
    corrected = exists().where(_LATER.c.adjusts == _COSTS.c.call_id)
    kinds = (
        call,
        and_(call, _COSTS.c.ending == "open", ~corrected),
        and_(call, _COSTS.c.ending == "lost", ~corrected),
        and_(call, _COSTS.c.usage_source == "estimated", ~corrected),
        and_(call, _COSTS.c.flags.bitwise_and(FLAG_UNPRICED) != 0, ~corrected),
    )
    day = (_COSTS.c.at_ms // literal_column(str(MS_PER_DAY), Integer)).label("day")
    query = (
        select(day, func.sum(_COSTS.c.cost_nano), *(func.sum(_one(kind)) for kind in kinds))
        .where(_COSTS.c.at_ms < horizon_ms)
        .group_by("day")
    )
    months: dict[str, list[int]] = {}
    for number, nano, calls, *others in await connection.execute(query):
        name = f"{datetime.fromtimestamp(number * 86_400, UTC):%Y-%m}"
        sums = months.setdefault(name, [0] * 6)
        for n, value in enumerate((calls, nano, *others)):
            sums[n] += int(value)
    return [Month(name, *sums) for name, sums in sorted(months.items())]


def _one(condition: Any) -> Any:
    return case((condition, 1), else_=0)


# --- a run ---------------------------------------------------------------------------------


async def retain(
    transactions: Transactions, horizon_ms: int, now_ms: int, progress: Progress
) -> Removed:
    """Remove calls before the horizon; an interrupted run goes on. `progress(calls, of)`."""
    bound = first_id(horizon_ms)
    total = await _run(transactions, lambda c: _count(c, bound))
    if total == 0:
        return Removed(0, 0)
    run_id = await _run(transactions, lambda c: _begin(c, horizon_ms, now_ms))
    removal = _Removal(transactions, run_id, progress, total)
    if transactions.dialect == "postgresql":
        await removal.drop_partitions(bound)
    await removal.remove_batches(bound)
    ended = update(_RUNS).where(_RUNS.c.id == run_id).values(finished_at_ms=now_ms)
    await _run(transactions, lambda c: c.execute(ended))
    return removal.removed


class _Removal:
    def __init__(
        self, transactions: Transactions, run_id: int, progress: Progress, total: int
    ) -> None:
        self.removed = Removed(0, 0)
        self._transactions = transactions
        self._run_id = run_id
        self._progress = progress
        self._total = total

    async def drop_partitions(self, bound: bytes) -> None:
        """Those that have nothing after the bound, the oldest first."""
        for each in await _run(self._transactions, list_partitions):
            if each.high is not None and each.high <= bound:
                self._add(await _run(self._transactions, self._dropping(each)))

    def _dropping(self, partition: Partition) -> Callable[[Connection], Removed]:
        def work(connection: Connection) -> Removed:
            _alone(connection)
            if partition not in list_partitions(connection):
                return Removed(0, 0)  # another run was faster
            lock(connection, partition)
            low, high = partition.low or b"", partition.high
            assert high is not None
            removed = _remove(connection, self._run_id, low, high)
            detach(connection, partition)
            return removed

        return work

    async def remove_batches(self, bound: bytes) -> None:
        low: bytes | None = b""
        calls = BATCH_CALLS
        while low is not None:
            batch = partial(_batch, run_id=self._run_id, low=low, bound=bound, calls=calls)
            begun = time.perf_counter()
            low, removed, took_s = await _run(self._transactions, batch)
            self._add(removed)
            calls = next_size(calls, took_s)
            if self._transactions.dialect == "sqlite":  # whose lock is not handed on in turn
                await asyncio.sleep(PAUSE * (time.perf_counter() - begun))

    def _add(self, removed: Removed) -> None:
        self.removed = Removed(self.removed.calls + removed.calls, self.removed.nano + removed.nano)
        self._progress(min(self.removed.calls, self._total), self._total)


def next_size(calls: int, took_s: float) -> int:
    """Of a batch, after one of so many calls: it grows by half at most, and shrinks at once; not
    below where most of it would be what any transaction takes."""
    wanted = int(calls * BATCH_S / max(took_s, 1e-6))
    return min(max(BATCH_CALLS, min(wanted, calls + calls // 2)), BATCH_CALLS_MAX)


async def _run(transactions: Transactions, work: Work[T]) -> T:
    return await with_retries(lambda: transactions.run(work))


def _count(connection: Connection, bound: bytes) -> int:
    calls = select(func.count()).select_from(_COSTS)
    old = calls.where(_COSTS.c.call_id < bound, _COSTS.c.adjusts.is_(None))
    return int(connection.execute(old).scalar_one())


def _begin(connection: Connection, horizon_ms: int, now_ms: int) -> int:
    """From now on nobody asks for calls before the horizon; those that are there still, go."""
    same = select(_RUNS.c.id).where(
        _RUNS.c.horizon_ms == horizon_ms, _RUNS.c.finished_at_ms.is_(None)
    )
    known = connection.execute(same).scalar()
    if known is not None:
        return int(known)
    row = {"horizon_ms": horizon_ms, "begun_at_ms": now_ms, "calls": 0, "cost_nano": 0}
    return int(connection.execute(insert(_RUNS).returning(_RUNS.c.id), row).scalar_one())


# --- a part of it, in one transaction -------------------------------------------------------


def _batch(
    connection: Connection, run_id: int, low: bytes, bound: bytes, calls: int
) -> tuple[bytes | None, Removed, float]:
    """Where the next one begins (None: this was the last), what is gone, how long it took."""
    begun = time.perf_counter()
    _alone(connection)
    next_call = (
        select(_COSTS.c.call_id)
        .where(_COSTS.c.call_id >= low, _COSTS.c.call_id < bound)
        .order_by(_COSTS.c.call_id)
        .offset(calls)
        .limit(1)
    )
    following: bytes | None = connection.execute(next_call).scalar()
    high = bound if following is None else following
    removed = _remove(connection, run_id, low, high)
    connection.execute(delete(_COSTS).where(*_between(_COSTS.c.call_id, low, high)))
    return following, removed, time.perf_counter() - begun


def _alone(connection: Connection) -> None:
    """Two runs that add up the same rows would keep their sums twice. SQLite has one writer."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})


def _between(column: Any, low: bytes, high: bytes) -> tuple[Any, Any]:
    return column >= low, column < high


def _remove(connection: Connection, run_id: int, low: bytes, high: bytes) -> Removed:
    """All of the calls [low, high) but their own rows, once their sums are kept."""
    of_calls = _between(_COSTS.c.call_id, low, high)
    adjusting = _between(_COSTS.c.adjusts, low, high)
    rows = or_(and_(*of_calls), and_(*adjusting))
    _carry_charges(connection, rows)
    _carry_repricings(connection, adjusting)
    calls = func.sum(_one(_COSTS.c.adjusts.is_(None)))
    sums = select(calls, func.sum(_COSTS.c.cost_nano)).where(rows)
    removed = Removed(*(int(value or 0) for value in connection.execute(sums).one()))
    connection.execute(
        update(_RUNS)
        .where(_RUNS.c.id == run_id)
        .values(calls=_RUNS.c.calls + removed.calls, cost_nano=_RUNS.c.cost_nano + removed.nano)
    )
    objects = table_of(ProviderObject)
    concerned = update(objects).where(*_between(objects.c.call_id, low, high))
    connection.execute(concerned.values(call_id=None, adjustment_id=None, ready=False))
    adjustments = select(_COSTS.c.call_id).where(*adjusting)
    connection.execute(delete(_ADJUSTMENTS).where(_ADJUSTMENTS.c.call_id.in_(adjustments)))
    connection.execute(delete(_COSTS).where(*adjusting))
    return removed


def _carry_charges(connection: Connection, rows: Any) -> None:
    query = row_sums().where(rows).group_by(_COSTS.c.charge_set_id)
    for row in connection.execute(query).all():
        sums = {name: int(getattr(row, name) or 0) for name in SUMS}
        more = {name: _CARRIED.c[name] + value for name, value in sums.items()}
        own = _CARRIED.c.charge_set_id == row.charge_set_id
        if connection.execute(update(_CARRIED).where(own).values(more)).rowcount == 0:
            connection.execute(insert(_CARRIED), {"charge_set_id": row.charge_set_id, **sums})


def _carry_repricings(connection: Connection, adjusting: tuple[Any, Any]) -> None:
    runs = table_of(Repricing)
    query = (
        select(
            _ADJUSTMENTS.c.repricing_id,
            func.count(_COSTS.c.adjusts.distinct()),
            func.sum(_COSTS.c.cost_nano),
        )
        .join(_ADJUSTMENTS, _ADJUSTMENTS.c.call_id == _COSTS.c.call_id)
        .where(*adjusting, _ADJUSTMENTS.c.repricing_id.is_not(None))
        .group_by(_ADJUSTMENTS.c.repricing_id)
    )
    for run_id, calls, nano in connection.execute(query).all():
        more = {
            "pruned_calls": runs.c.pruned_calls + calls,
            "pruned_nano": runs.c.pruned_nano + int(nano),
        }
        connection.execute(update(runs).where(runs.c.id == run_id).values(more))
