"""Deaths and outages under load: for seconds in the suite, for minutes in `scripts/soak`.

What must hold afterwards is the same: one row for every call the provider billed, exact where the
client has its reply, all money back, refusals only by the configured policy.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.databases import Postgres
from tests.fleet import Fleet
from tests.load import Load, Provider, cost_of, nano, number_of
from tests.processes import Serving, resident_mb, wait_for

PAUSE_S = (0.0, 0.6)  # between two deaths
SERVED = 20  # calls that must end after the last one

Row = dict[str, Any]


# --- what must hold ------------------------------------------------------------------------


def check_rows(rows: list[Row], provider: Provider, completed: dict[int, str]) -> Counter[str]:
    """One row for every call that reached the provider; `completed`: request ids by number, of
    calls whose reply the client has in full. Returns how calls ended."""
    by_number = {number_of(row): row for row in rows}
    assert len(by_number) == len(rows), "a call has two rows"
    for number, bills in provider.billed.items():
        assert len(bills) == 1, "forwarded twice"
        row, billed = by_number[number], nano(bills[0])
        if row["ending"] == "lost":
            assert row["cost_usd"] == row["hold_usd"]
            assert cost_of(row) >= billed
        else:
            assert (row["ending"], cost_of(row)) == ("complete", billed), row
    for number, request_id in completed.items():
        row = by_number[number]
        assert (row["ending"], row["request_id"]) == ("complete", request_id), row
    return Counter(row["ending"] for row in rows)


def check_money(serving: Serving, rows: list[Row]) -> None:
    """After a stop in order nothing is held, leased or open any more."""
    states = serving.query("SELECT DISTINCT state FROM ai_control_epochs WHERE id > 0")
    assert states == [("closed",)], states
    assert serving.query("SELECT sum(granted - spent) FROM ai_budget_leases") == [(0,)]
    windows = serving.query("SELECT committed, overage FROM ai_budget_windows")
    assert windows == [(sum(map(cost_of, rows)), 0)] * len(serving.config["budgets"])
    assert serving.output("verify") == ""


# --- deaths --------------------------------------------------------------------------------


@dataclass
class Deaths:
    kinds: Counter[str]
    endings: Counter[str]
    completed: int


def kill_a_worker(serving: Serving, chance: random.Random) -> None:
    workers = wait_for("a worker", lambda: serving.workers)
    serving.kill(chance.choice(workers))


def kill_control(serving: Serving, _chance: random.Random) -> None:
    serving.kill_control()
    serving.start()


def kill_all(serving: Serving, _chance: random.Random) -> None:
    serving.kill_all()
    serving.start()


KINDS: dict[str, Callable[[Serving, random.Random], None]] = {
    "worker": kill_a_worker,
    "control": kill_control,
    "all": kill_all,
}


def deaths(
    serving: Serving,
    provider: Provider,
    *,
    count: int,
    seed: int,
    clients: int = 8,
    stop_at: float = float("inf"),
) -> Deaths:
    """`count` times kill -9 at random moments of mixed load, then a stop in order. Ends earlier
    at the moment `stop_at` of the monotonic clock."""
    chance, kinds = random.Random(seed), Counter[str]()
    with Load(serving.url, provider, clients=clients, seed=seed) as load:
        load.wait_completed(SERVED, 60)
        for _ in range(count):
            time.sleep(chance.uniform(*PAUSE_S))
            kind = chance.choice(sorted(KINDS))
            KINDS[kind](serving, chance)
            kinds[kind] += 1
            if time.monotonic() > stop_at:
                break
        load.wait_completed(SERVED, 90)
    serving.wait_rows(len(provider.billed), 90)
    assert serving.stop() == 0, serving.log
    rows = serving.rows()
    completed = {number: seen.request_id for number, seen in load.completed.items()}
    endings = check_rows(rows, provider, completed)
    check_money(serving, rows)
    return Deaths(kinds, endings, len(completed))


# --- outages of PostgreSQL -----------------------------------------------------------------


@dataclass
class Outage:
    completed: int
    during: int  # of them, while there was no database
    refused: Counter[str]  # by status
    grown_mb: float  # the process that grew most
    endings: Counter[str]


def outages(
    fleet: Fleet, provider: Provider, server: Postgres, *, down_s: float, clients: int = 8
) -> Outage:
    """Under load the server is stopped for `down_s`, started, killed with -9, and started again."""
    (serving,) = fleet.hosts
    with Load(serving.url, provider, clients=clients, seed=1) as load:
        load.wait_completed(10 * clients, 90)
        pids = [serving.pid, *serving.workers]
        before = [resident_mb(pid) for pid in pids]
        server.pause()
        known = len(load.completed)
        time.sleep(down_s)
        during = len(load.completed) - known
        grown = [resident_mb(pid) - was for pid, was in zip(pids, before, strict=True)]
        server.start()
        wait_for("the ledger", lambda: serving.seen("the ledger is back"), 60)
        load.wait_completed(clients, 90)
        server.kill()
        time.sleep(down_s / 10)
        server.start()
        load.wait_completed(clients, 90)
    serving.wait_rows(len(provider.billed), 90)
    assert pids == [serving.pid, *serving.workers], "a process died"
    assert serving.stop() == 0, serving.log
    rows = serving.rows()
    completed = {number: seen.request_id for number, seen in load.completed.items()}
    endings = check_rows(rows, provider, completed)
    check_money(serving, rows)
    refused = Counter(str(seen.status) for seen in load.seen.values() if not seen.complete)
    return Outage(len(completed), during, refused, max(grown), endings)
