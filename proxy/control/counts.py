"""What the workers of a host have counted, added up; and what control counts itself."""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from proxy.metrics import ROW_LENGTH, Labels, Totals, decode_totals

SERIES_MAX = 10_000  # of all workers, dead ones included
COUNTERS = ("blocked", "spared", "lookups", "problems")  # of a worker's totals
L = TypeVar("L")


class BudgetFigures(NamedTuple):
    """A budget in USD above key level, in its current window."""

    scope: str
    period: str
    limit_nano: int
    spent_nano: int
    committed_nano: int


class OwnFigures(NamedTuple):
    """What control counts itself."""

    version: str
    pricing_version: str
    retries: int
    rows: int
    duplicates: int
    dead_letters: int
    queue_bytes: int
    waiting: int
    workers: int
    outage: bool
    budgets: tuple[BudgetFigures, ...] = ()
    alerts: Mapping[str, int] = {}  # by kind
    deliveries: Mapping[tuple[str, str], int] = {}  # by channel and outcome


class Counts:
    """The totals of every worker. Those of a dead one stay in the sums: counters never fall."""

    def __init__(self) -> None:
        self.alerts: dict[str, int] = {}  # raised by this host, by kind
        self.deliveries: dict[tuple[str, str], int] = {}  # by channel and outcome
        self._live: dict[bytes, Totals] = {}
        self._live_rows: dict[bytes, dict[Labels, list[int]]] = {}
        self._dead = Totals()
        self._dead_rows: dict[Labels, list[int]] = {}

    def update(self, journal_id: bytes, data: bytes) -> None:
        """Raises msgspec.MsgspecError for what no worker of this version sends."""
        totals = decode_totals(data)
        rows = self._live_rows.setdefault(journal_id, {})
        for labels, values in totals.rows:
            if len(values) == ROW_LENGTH and (labels in rows or len(rows) < SERIES_MAX):
                rows[labels] = values
        totals.rows = []
        self._live[journal_id] = totals

    def bury(self, journal_id: bytes) -> None:
        """A worker is gone: nothing of it is in flight any more."""
        totals = self._live.pop(journal_id, None)
        if totals is None:
            return
        _add_rows(self._dead_rows, self._live_rows.pop(journal_id))
        for name in COUNTERS:
            _add_counts(getattr(self._dead, name), getattr(totals, name))
        _add_rows(self._dead.provider_costs, totals.provider_costs)
        _add_notable(self._dead.notable, totals.notable)

    def sums(self) -> tuple[dict[Labels, list[int]], Totals]:
        """All workers together; a copy."""
        rows: dict[Labels, list[int]] = {}
        sums = Totals()
        for part in (self._dead_rows, *self._live_rows.values()):
            _add_rows(rows, part)
        for totals in (self._dead, *self._live.values()):
            sums.in_flight += totals.in_flight
            for name in COUNTERS:
                _add_counts(getattr(sums, name), getattr(totals, name))
            _add_rows(sums.provider_costs, totals.provider_costs)
            _add_notable(sums.notable, totals.notable)
        return rows, sums


def _add_rows(into: dict[L, list[int]], rows: Mapping[L, list[int]]) -> None:
    for labels, values in rows.items():
        known = into.get(labels)
        both = values if known is None else [a + b for a, b in zip(known, values, strict=True)]
        into[labels] = list(both)


def _add_notable(into: dict[str, dict[str, int]], more: dict[str, dict[str, int]]) -> None:
    for kind, counts in more.items():
        _add_counts(into.setdefault(kind, {}), counts)


def _add_counts(into: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        into[name] = into.get(name, 0) + count
