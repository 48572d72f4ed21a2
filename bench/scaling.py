"""How often the ledger is asked, up to a thousand workers: a simulation of intervals.

    scaling.py [--hosts 1,8,32,125] [--workers 8] [--rate 1000] [--seconds 20] [--interval-ms 100]

Control's real code (proxy.control.leases) and the worker's real slices (proxy.slices) run on
simulated time against a ledger that only adds up, with a load of calls in place of the calls:
each worker's calls are charged to one organization, one of its teams and one of its keys, hold
several times what they cost, and are in flight for a while. Counted are the ledger's transactions,
rows locked in them, LEASEs of the busiest window, and calls that had to wait for one.

`--left` ends the budget of the organization during the run: what it takes to spend the last of it.
"""

import argparse
import asyncio
import random
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from db.journal_records import Window
from db.ledger_types import LeaseOutcome, LeaseRequest, LeaseState, OpenTicket
from db.writer import Flush
from proxy.control.leases import Leases
from proxy.control.opening import IDLE_MS
from proxy.slices import Slice
from proxy.wire import Slices, Status, Unwant, Want

COST, HOLD = 2_000_000, 10_000_000  # nano-USD of a call, and what it holds
LATENCY_S = 2.0  # of a call: how long its hold stands
TEAMS, KEYS = 50, 400  # of all workers together
TEAMS_OF_WORKER, KEYS_OF_WORKER = 4, 8
ORGANIZATION: Window = (1, 0)
AMPLE = 10**18
WARM_UP_S = 6.0
WAIT_MS = 2_000
COLUMNS = (
    "hosts",
    "workers",
    "calls/s",
    "transactions/s",
    "of them LEASE",
    "LEASE of the busiest window/s",
    "lease and window rows/s",
    "calls that waited",
    "spent of the limit",
)


class Load(NamedTuple):
    hosts: int
    workers: int  # per host
    rate: float  # calls a second and worker
    interval_ms: int
    left: int  # of the organization's budget, nano-USD


@dataclass
class Row:
    limit: int
    committed: int = 0
    leases: dict[int, list[int]] = field(default_factory=dict)  # by epoch: granted, spent
    tickets: dict[int, int] = field(default_factory=dict)


class AddingLedger:
    """The statements of the protocol on windows in memory."""

    def __init__(self, left: int) -> None:
        self.rows: dict[Window, Row] = {}
        self.left = left
        self.counts: Counter[str] = Counter()

    def row(self, window: Window) -> Row:
        found = self.rows.get(window)
        if found is None:
            limit = self.left if window == ORGANIZATION else AMPLE
            found = self.rows[window] = Row(limit)
        return found

    async def lease(
        self,
        epoch_id: int,
        requests: Sequence[LeaseRequest],
        ignored: Collection[OpenTicket] | None,
    ) -> list[LeaseOutcome]:
        self.counts["lease"] += 1
        self.counts["rows"] += 2 * len(requests)
        return [self._lease(epoch_id, request) for request in requests]

    def _lease(self, epoch_id: int, request: LeaseRequest) -> LeaseOutcome:
        row = self.row(request.window)
        if request.window == ORGANIZATION:
            self.counts["busiest"] += 1
        lease = row.leases.setdefault(epoch_id, [0, 0])
        others = [OpenTicket(n, epoch) for epoch, n in row.tickets.items() if epoch != epoch_id]
        first = min(others, default=None)
        delta = min(request.delta, row.limit - row.committed) if request.delta > 0 else 0
        mine = request.ticket > 0 and (first is None or (request.ticket, epoch_id) < first)
        if request.delta < 0:
            delta = request.delta
        elif delta < max(1, request.at_least) or not (first is None or mine):
            delta = 0
        lease[0] += delta
        row.committed += delta
        if request.publish:
            row.tickets.pop(epoch_id, None)
            if request.ticket:
                row.tickets[epoch_id] = request.ticket
        spent = sum(each[1] for each in row.leases.values())
        newest = max((each.number for each in others), default=0)
        return LeaseOutcome(
            request.window, delta, *lease, row.limit, row.committed, spent, first, newest
        )

    async def leases(self, epoch_id: int) -> dict[Window, LeaseState]:
        return {
            window: LeaseState(*row.leases[epoch_id])
            for window, row in self.rows.items()
            if epoch_id in row.leases
        }

    async def tickets(self, epoch_id: int) -> dict[Window, list[OpenTicket]]:
        self.counts["look"] += 1
        return {
            window: [OpenTicket(n, epoch) for epoch, n in row.tickets.items() if epoch != epoch_id]
            for window, row in self.rows.items()
            if row.tickets
        }

    def drain(self, epoch_id: int, consumed: dict[Window, int]) -> dict[Window, LeaseState]:
        self.counts["drain"] += 1
        self.counts["rows"] += len(consumed)
        states = {}
        for window, amount in consumed.items():
            lease = self.row(window).leases[epoch_id]
            lease[1] += amount
            states[window] = LeaseState(*lease)
        return states


class Worker:
    """Calls by the number: what an interval's calls hold, charge and give back."""

    def __init__(self, number: int, load: Load, random_: random.Random) -> None:
        self.id = number.to_bytes(16, "big")
        teams = [2 + random_.randrange(TEAMS) for _ in range(TEAMS_OF_WORKER)]
        keys = [1000 + random_.randrange(KEYS) for _ in range(KEYS_OF_WORKER)]
        self.pairs = [((team, 0), (key, 0)) for team, key in zip(teams * 2, keys, strict=True)]
        self.slices: dict[Window, Slice] = {}
        for window in {ORGANIZATION, *(window for pair in self.pairs for window in pair)}:
            self.slices[window] = Slice(window, 2**40)
        flights = max(1, round(LATENCY_S * 1000 / load.interval_ms))
        self.flying: deque[Counter[tuple[Window, Window]]] = deque([Counter()] * flights, flights)
        self.mean = load.rate * load.interval_ms / 1000
        self.random = random_
        self.waiting: Counter[tuple[Window, Window]] = Counter()
        self.wants = 0
        self.admitted = self.waited = 0

    def settle(self) -> dict[Window, int]:
        """End the calls that began longest ago; what they were charged."""
        consumed: dict[Window, int] = {}
        for pair, calls in self.flying.popleft().items():
            for window in (ORGANIZATION, *pair):
                slice_ = self.slices[window]
                slice_.held -= calls * HOLD
                slice_.used += calls * COST
                slice_.free += calls * (HOLD - COST)
                consumed[window] = consumed.get(window, 0) + calls * COST
        return consumed

    def begin(self) -> dict[Window, int]:
        """Admit what waits and what comes; what is lacking."""
        arriving: Counter[tuple[Window, Window]] = Counter()
        share = self.mean / len(self.pairs)
        for pair in self.pairs:
            arriving[pair] += max(0, round(self.random.gauss(share, share**0.5)))
        begun: Counter[tuple[Window, Window]] = Counter()
        lacking: dict[Window, int] = {}
        queue, self.waiting = self.waiting + arriving, Counter()
        for pair, calls in queue.items():
            slices = [self.slices[window] for window in (ORGANIZATION, *pair)]
            fit = min(calls, *(slice_.free // HOLD for slice_ in slices))
            for slice_ in slices:
                slice_.free -= fit * HOLD
                slice_.held += fit * HOLD
                slice_.low = min(slice_.low, slice_.free)
            begun[pair] += fit
            if calls > fit:
                self.waiting[pair] = calls - fit
                for slice_ in slices:
                    short = (calls - fit) * HOLD - slice_.free
                    if short > 0:
                        lacking[slice_.window] = lacking.get(slice_.window, 0) + short
        self.flying.append(begun)
        self.admitted += begun.total()
        self.waited += self.waiting.total()
        return lacking

    def status(self) -> Status:
        for slice_ in self.slices.values():
            idle = slice_.tick()
            if slice_.scarce:
                idle = slice_.free
            slice_.give_back(min(idle, slice_.free))
        return Status([slice_.status() for slice_ in self.slices.values()])

    def receive(self, message: Slices) -> None:
        for window, total in message.granted:
            self.slices[window].grant(total)
        for room in message.room:
            self.slices[room.window].learn(room)


class Host:
    def __init__(
        self, number: int, load: Load, ledger: AddingLedger, clock: "Clock", random_: random.Random
    ) -> None:
        self.epoch_id, self.ledger, self.load = number + 1, ledger, load
        self.clock = clock
        self.leases = Leases(
            self.epoch_id,
            ledger,
            now_ms=clock.now_ms,
            sync=_synced,
            idle_ms=IDLE_MS,
            interval_ms=load.interval_ms,
            shared=load.hosts > 1,
        )
        first = number * load.workers
        self.workers = [Worker(first + n, load, random_) for n in range(load.workers)]
        limits = dict.fromkeys((w[0] for each in self.workers for w in each.slices), AMPLE)
        self.leases.set_limits(limits | {1: ledger.left}, WAIT_MS)
        for worker in self.workers:
            self.leases.attach(worker.id, worker.receive)

    async def interval(self) -> None:
        """What a flush interval brings, in control's order: drain, then lease and grant."""
        for worker in self.workers:
            consumed = worker.settle()
            lacking = worker.begin()
            self.leases.on_status(worker.id, worker.status())
            self._want(worker, lacking)
            if consumed:
                states = self.ledger.drain(self.epoch_id, consumed)
                self.leases.on_flush(Flush(worker.id, self.epoch_id, consumed, states, False))
        # The journals of a host are drained in one transaction.
        self.ledger.counts["drain"] -= max(sum(1 for w in self.workers if w.admitted) - 1, 0)
        self.leases.interval()
        await self.leases.step()

    def _want(self, worker: Worker, lacking: dict[Window, int]) -> None:
        call_id = worker.id + bytes(4)
        if lacking:
            deadline = self.clock.now_ms() + WAIT_MS
            self.leases.on_want(worker.id, Want(call_id, list(lacking.items()), deadline))
        else:
            self.leases.on_unwant(worker.id, Unwant(call_id))


async def _synced() -> None:
    """Journals are no part of the simulation."""


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms


class Figures(NamedTuple):
    admitted: float  # calls a second
    transactions: float  # of the ledger, a second
    leases: float
    busiest: float  # LEASEs of the organization's window, a second
    rows: float  # rows of leases and windows written or locked, a second
    waited: float  # share of calls that waited an interval or more


async def simulate(load: Load, seconds: float) -> tuple[Figures, AddingLedger]:
    random_, clock, ledger = random.Random(1), Clock(), AddingLedger(load.left)
    hosts = [Host(n, load, ledger, clock, random_) for n in range(load.hosts)]
    workers = [worker for host in hosts for worker in host.workers]

    async def run(run_s: float) -> None:
        for _ in range(round(run_s * 1000 / load.interval_ms)):
            for host in hosts:
                clock.ms += 0 if host is not hosts[0] else load.interval_ms
                await host.interval()
            check(ledger)

    await run(WARM_UP_S)
    ledger.counts.clear()
    for worker in workers:
        worker.admitted = worker.waited = 0
    await run(seconds)
    admitted = sum(worker.admitted for worker in workers)
    waited = sum(worker.waited for worker in workers)
    counts = ledger.counts
    transactions = counts["lease"] + counts["drain"] + counts["look"]
    figures = (transactions, counts["lease"], counts["busiest"], counts["rows"])
    per_s = [count / seconds for count in figures]
    return Figures(admitted / seconds, *per_s, waited / max(admitted + waited, 1)), ledger


def check(ledger: AddingLedger) -> None:
    for window, row in ledger.rows.items():
        if not sum(g for g, _ in row.leases.values()) == row.committed <= row.limit:
            raise AssertionError(f"window {window}: {row.committed} of {row.limit} committed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", default="1,8,32,125")
    parser.add_argument("--workers", type=int, default=8, help="per host")
    parser.add_argument("--rate", type=float, default=1000, help="calls a second and worker")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--interval-ms", type=int, default=100)
    parser.add_argument("--left", type=float, help="USD left in the organization's budget")
    asked = parser.parse_args()
    left = AMPLE if asked.left is None else int(asked.left * 10**9)
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for hosts in map(int, asked.hosts.split(",")):
        load = Load(hosts, asked.workers, asked.rate, asked.interval_ms, left)
        found, ledger = asyncio.run(simulate(load, asked.seconds))
        row = ledger.rows[ORGANIZATION]
        spent = sum(each[1] for each in row.leases.values()) / row.limit
        cells = (
            hosts,
            hosts * asked.workers,
            f"{found.admitted:,.0f}",
            f"{found.transactions:,.0f}",
            f"{found.leases:,.1f}",
            f"{found.busiest:,.1f}",
            f"{found.rows:,.0f}",
            f"{found.waited:.2%}",
            "-" if left == AMPLE else f"{spent:.2%}",
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
