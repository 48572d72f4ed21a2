"""Refused calls: the newest ones of this host in memory, and counts of all of them on their way to
the ledger, where every host's are."""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from db.errors import reason
from db.refusals import FOLDED, HOUR_MS, Counted, Group, add_refusals, forget_refusals
from db.transactions import Transactions, is_retryable
from proxy.control.clock import Due
from proxy.wire import Refused, RefusedGroup

log = logging.getLogger(__name__)

KEPT_MAX = 2_000
GROUPS_MAX = 200  # of an hour, told apart; others by team, provider and reason alone
STORE_S = 5.0
FORGET_S = 3600.0
KEEP_MS = 90 * 24 * HOUR_MS

Sees = Callable[[str, str], bool]  # whether somebody may see an organization's team


class Refusals:
    def __init__(self) -> None:
        self._newest: deque[Refused] = deque(maxlen=KEPT_MAX)
        self._pending: dict[Group, Counted] = {}
        self._apart: dict[int, set[Group]] = {}  # by hour

    def add(self, refused: Iterable[Refused], groups: Iterable[RefusedGroup] = ()) -> None:
        self._newest.extendleft(refused)
        for each in groups:
            self._count(each)

    def newest(self, sees: Sees) -> list[Refused]:
        """The last one first."""
        return [each for each in self._newest if sees(each.organization, each.team)]

    def find(self, request_id: str, sees: Sees) -> Refused | None:
        return next((each for each in self.newest(sees) if each.request_id == request_id), None)

    # --- counts

    def _count(self, told: RefusedGroup) -> None:
        hour = told.last_at_ms // HOUR_MS
        group = Group(
            hour, told.organization, told.team, told.key, told.provider, told.model, told.code,
            told.scope,
        )  # fmt: skip
        apart = self._apart.setdefault(hour, set())
        if len(self._apart) > 2:
            del self._apart[min(self._apart)]
        if group not in apart:
            if len(apart) >= GROUPS_MAX:
                group = group._replace(key_name=FOLDED, model=FOLDED, scope=FOLDED)
            else:
                apart.add(group)
        self._merge(group, Counted(told.calls, told.last_at_ms))

    def _merge(self, group: Group, more: Counted) -> None:
        known = self._pending.get(group, more._replace(calls=0))
        last_at_ms = max(known.last_at_ms, more.last_at_ms)
        self._pending[group] = Counted(known.calls + more.calls, last_at_ms)

    async def store(self, transactions: Transactions, host_id: str, due: Due, now_ms: int) -> None:
        """Now and then, if there is anything. Raises what an outage raises; then it is tried
        again. What the database does not take is no reason to stop anything else."""
        if due.now("forget refusals", FORGET_S):
            await transactions.run(partial(forget_refusals, before_ms=now_ms - KEEP_MS))
        if not self._pending or not due.now("refusals", STORE_S):
            return
        counts, self._pending = self._pending, {}
        add = partial(add_refusals, host_id=host_id, counts=counts)
        try:
            await transactions.run(add)
        except Exception as exc:
            if not is_retryable(exc):
                log.error("refused calls cannot be counted: %s", reason(exc))
                return
            for group, counted in counts.items():
                self._merge(group, counted)
            raise
