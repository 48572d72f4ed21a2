"""`kill -9` at random moments under load: no completed call without its exact row, no row twice,
calls that were cut are charged their hold, and all money comes back."""

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.load import Load, Provider, cost_of, nano, number_of
from tests.processes import Serving, wait_for

SEED = int(os.environ.get("TOLLKEEPER_SEED", "20261121"))
KILLS = 5
CALLS_BETWEEN = (20, 120)  # completed between two kills

Row = dict[str, Any]


def kill_worker(serving: Serving) -> None:
    """Control goes on, and starts another."""
    pid = serving.worker()
    serving.kill_worker()
    wait_for("another worker", lambda: [each for each in serving.workers if each != pid])


def kill_control(serving: Serving) -> None:
    """The next one starts while the old worker finishes its calls."""
    serving.kill_control()
    serving.start()


def kill_all(serving: Serving) -> None:
    serving.kill_all()
    serving.start()


def check_rows(rows: list[Row], provider: Provider, load: Load) -> None:
    """One row for every call that reached the provider, exact where the client has its reply."""
    assert max(Counter(number_of(row) for row in rows).values()) == 1
    by_number = {number_of(row): row for row in rows}
    completed = load.completed
    assert len(completed) > KILLS * CALLS_BETWEEN[0]
    for number, seen in completed.items():
        (usage,) = provider.billed[number]
        row = by_number[number]
        assert (row["ending"], cost_of(row)) == ("complete", nano(usage)), row
        assert row["request_id"] == seen.request_id
    billed = sum(nano(provider.billed[number][0]) for number in completed)
    assert sum(cost_of(by_number[number]) for number in completed) == billed
    for number, bills in provider.billed.items():
        assert len(bills) == 1, "forwarded twice"
        check_ended(by_number[number], nano(bills[0]))


def check_ended(row: Row, billed: int) -> None:
    """Settled exactly, or charged the hold; never less than it was billed."""
    if row["ending"] == "lost":
        assert row["usage_source"] == "estimated"
        assert row["cost_usd"] == row["hold_usd"]
        assert cost_of(row) >= billed
    else:
        assert (row["ending"], cost_of(row)) == ("complete", billed), row


def check_money(serving: Serving, rows: list[Row]) -> None:
    """After a stop in order nothing is held, leased or open any more."""
    with sqlite3.connect(serving.directory / "ledger.db") as db:
        states = dict(db.execute("SELECT state, count(*) FROM ai_control_epochs GROUP BY state"))
        windows = db.execute("SELECT committed, overage FROM ai_budget_windows").fetchall()
        unspent = db.execute("SELECT sum(granted - spent) FROM ai_budget_leases").fetchone()[0]
    db.close()
    assert states.pop("open") == 1, "only the epoch of corrections is ever open"
    assert set(states) == {"closed"}
    assert unspent == 0
    total = sum(cost_of(row) for row in rows)
    assert windows == [(total, 0)] * len(serving.config["budgets"])


@pytest.mark.slow
@pytest.mark.parametrize("kill", [kill_worker, kill_control, kill_all])
def test_killed_five_times_in_a_row(tmp_path: Path, kill: Callable[[Serving], None]) -> None:
    moments = random.Random(f"{SEED} {kill.__name__}")
    with Provider(SEED) as provider, Serving(tmp_path, provider.url) as serving:
        with Load(serving.url, provider, seed=SEED) as load:
            for _ in range(KILLS):
                load.wait_completed(moments.randint(*CALLS_BETWEEN))
                kill(serving)
            load.wait_completed(CALLS_BETWEEN[0])
        billed = set(provider.billed)
        rows = serving.wait_rows(lambda rows: billed <= {number_of(row) for row in rows})
        assert serving.stop() == 0
        check_rows(rows, provider, load)
        endings = Counter(row["ending"] for row in rows)
        assert (endings["lost"] > 0) is (kill is not kill_control), endings
        assert serving.rows() == rows
        check_money(serving, rows)
        assert serving.output("verify") == ""
