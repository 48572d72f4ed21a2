"""Repricing: what calls would cost at another price version, and booking the differences.

A run reads calls page by page and books each page with how far it has read, in one transaction:
killed at any time, the same command goes on from there, and nothing is booked twice.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)

from db.journal_records import FLAG_REPORTED_COST, FLAG_UNPRICED
from db.ledger import Ledger
from db.ledger_types import Adjusted, AskedRepricing, Correction, Read, Run
from db.repricing_prices import NewCost, NewPrices, decode_usage
from db.repricing_read import Selection, StoredCall, count_calls, read_page
from db.transactions import is_retryable

ATTEMPTS = 8
WAIT_INITIAL_S = 0.05
WAIT_MAX_S = 2
BOOKED_AT_ONCE = 500  # calls: a transaction that nobody waits long for

T = TypeVar("T")
Progress = Callable[[int, int], None]


def _no_progress(_done: int, _total: int) -> None:
    pass


@dataclass(slots=True)
class Sums:
    """What repricing changes for one team and model. Amounts in nano-USD."""

    calls: int = 0
    changed: int = 0
    unpriced: int = 0  # were charged a declared rate, or not priced at all
    estimated: int = 0  # their usage is an estimate, or a ceiling
    not_priced: int = 0  # the version has no price for them, or their usage is not known
    as_reported: int = 0  # are charged what the provider reported: left as they are
    before_nano: int = 0
    after_nano: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls to reprice, and whether budgets are charged the differences."""

    selection: Selection
    restate: bool = False
    model: str = "*"  # glob of the model requested


@dataclass(slots=True)
class Diff:
    """By (team id, model requested)."""

    sums: dict[tuple[int, str], Sums] = field(default_factory=dict)

    def add(self, call: StoredCall, new: NewCost | None) -> None:
        sums = self.sums.get((call.team_id, call.model))
        if sums is None:
            sums = self.sums[call.team_id, call.model] = Sums()
        after = call.cost_nano if new is None else new.nano
        sums.calls += 1
        sums.before_nano += call.cost_nano
        sums.after_nano += after
        sums.changed += after != call.cost_nano
        sums.estimated += call.usage_source == "estimated"
        sums.unpriced += bool(call.flags & FLAG_UNPRICED) or _lacks_price(call)
        if call.flags & FLAG_REPORTED_COST:
            sums.as_reported += 1
        elif new is None and call.usage is not None:
            sums.not_priced += 1


def _lacks_price(call: StoredCall) -> bool:
    return call.price_id is None and call.usage is not None


class Repricer:
    """Not for concurrent use. Two at work on one ledger do each other no harm."""

    def __init__(self, engine: AsyncEngine, prices: NewPrices, wanted: Wanted) -> None:
        self._engine = engine
        self._prices = prices
        self._wanted = wanted
        self._matches = lru_cache(maxsize=4096)(lambda model: fnmatchcase(model, wanted.model))

    async def diff(self, progress: Progress = _no_progress, after: Read | None = None) -> Diff:
        """What would change; changes nothing."""
        found = Diff()
        async for page in self._pages(self._wanted.selection, after, progress):
            for call in page:
                if self._matches(call.model):
                    found.add(call, self._new_cost(call))
        return found

    async def apply(
        self, ledger: Ledger, words: Mapping[str, object], progress: Progress = _no_progress
    ) -> Adjusted:
        """Book the differences. `words`: how the run was asked for. Returns all that the run has
        changed, earlier parts of it included."""
        run = await _retried(lambda: ledger.begin_repricing(self._asked(words)))
        selection = Selection(run.since_ms, run.until_ms, self._wanted.selection.team_ids)
        adjusted = run.adjusted
        async for page in self._pages(selection, run.read, progress):
            for start in range(0, len(page), BOOKED_AT_ONCE):
                some = page[start : start + BOOKED_AT_ONCE]
                booked = await self._book(ledger, run, some)
                adjusted = Adjusted(adjusted.calls + booked.calls, adjusted.nano + booked.nano)
        await _retried(lambda: ledger.end_repricing(run.id))
        return adjusted

    def _asked(self, words: Mapping[str, object]) -> AskedRepricing:
        selection, target = self._wanted.selection, self._prices.target
        return AskedRepricing(
            price_version=target.version,
            described=target.described({}),
            since_ms=selection.since_ms,
            until_ms=selection.until_ms,
            restate=self._wanted.restate,
            words=dict(words),
        )

    async def _pages(
        self, selection: Selection, after: Read | None, progress: Progress
    ) -> AsyncIterator[list[StoredCall]]:
        done, total = 0, await count_calls(self._engine, selection, after)
        progress(done, total)
        while page := await read_page(self._engine, selection, after):
            yield page
            after = Read(page[-1].at_ms, page[-1].call_id)
            done += len(page)
            progress(done, max(done, total))

    def _new_cost(self, call: StoredCall) -> NewCost | None:
        """None: it stays as it is."""
        return None if call.flags & FLAG_REPORTED_COST else self._prices.cost(call)

    async def _book(self, ledger: Ledger, run: Run, calls: list[StoredCall]) -> Adjusted:
        corrections = [
            self._correction(call, new, run)
            for call in calls
            if self._matches(call.model)
            and (new := self._new_cost(call)) is not None
            and (new.nano != call.cost_nano or (self._wanted.restate and call.kept_nano))
        ]
        read = Read(calls[-1].at_ms, calls[-1].call_id)
        return await _retried(lambda: ledger.reprice(run.id, corrections, read))

    def _correction(self, call: StoredCall, new: NewCost, run: Run) -> Correction:
        return Correction(
            call_id=adjustment_id(run, call.call_id),
            adjusts=call.call_id,
            at_ms=call.at_ms,  # of the call: the reports of its day have the net cost
            usage=decode_usage(call.usage or "{}"),
            usage_source=call.usage_source,
            price_version=self._prices.target.version,
            model=new.price.key,
            cost_nano=new.nano,
            cost_items=new.items,
            ending=call.ending,
            unpriced=new.price.unpriced,
            restate=self._wanted.restate,
        )


async def _retried(attempt: Callable[[], Awaitable[T]]) -> T:
    """Outages and conflicts pass; what was committed after all is not done twice."""
    retrying = AsyncRetrying(
        retry=retry_if_exception(is_retryable),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(initial=WAIT_INITIAL_S, max=WAIT_MAX_S),
        reraise=True,
    )

    async def tried() -> T:  # tenacity awaits what it recognises as a coroutine function
        return await attempt()

    return await retrying(tried)


def adjustment_id(run: Run, call_id: bytes) -> bytes:
    """The same for the same call in the same run, so that it is booked once; a UUIDv7 of the
    run's time, so that it follows the ids of earlier adjustments."""
    random = hashlib.sha256(run.id.to_bytes(8, "big") + call_id).digest()
    return (
        run.started_at_ms.to_bytes(6, "big")
        + bytes((0x70 | (random[0] & 0x0F), random[1], 0x80 | (random[2] & 0x3F)))
        + random[3:10]
    )
