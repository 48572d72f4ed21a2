"""`kill -9` at random moments under load: no completed call without its exact row, no row twice,
calls that were cut are charged their hold, and all money comes back."""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.load import Load, OpenCall, Provider, cost_of, nano, number_of, post, served
from tests.processes import Serving, is_alive, wait_for

SEED = int(os.environ.get("TOLLKEEPER_SEED", "20261121"))
KILLS = 5
CLIENTS = 8
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
    states = serving.query("SELECT DISTINCT state FROM ai_control_epochs WHERE id > 0")
    assert states == [("closed",)]
    assert serving.query("SELECT sum(granted - spent) FROM ai_budget_leases") == [(0,)]
    windows = serving.query("SELECT committed, overage FROM ai_budget_windows")
    total = sum(cost_of(row) for row in rows)
    assert windows == [(total, 0)] * len(serving.config["budgets"])


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(SEED) as provider:
        yield provider


@pytest.mark.slow
@pytest.mark.parametrize("kill", [kill_worker, kill_control, kill_all])
def test_killed_five_times_in_a_row(
    tmp_path: Path, provider: Provider, kill: Callable[[Serving], None]
) -> None:
    moments = random.Random(f"{SEED} {kill.__name__}")
    with Serving(tmp_path, provider.url) as serving:
        with Load(serving.url, provider, clients=CLIENTS, seed=SEED) as load:
            for _ in range(KILLS):
                load.wait_completed(moments.randint(*CALLS_BETWEEN))
                kill(serving)
            load.wait_completed(CALLS_BETWEEN[0])
        rows = serving.wait_rows(len(provider.billed))
        assert serving.stop() == 0
        check_rows(rows, provider, load)
        endings = Counter(row["ending"] for row in rows)
        assert (endings["lost"] > 0) is (kill is not kill_control), endings
        assert serving.query("SELECT count(*) FROM ai_usage_costs") == [(len(rows),)]
        check_money(serving, rows)
        assert serving.output("verify") == ""


# --- one death at a time -------------------------------------------------------------------


def test_a_dead_workers_journal_is_finished_while_control_runs(
    tmp_path: Path, provider: Provider
) -> None:
    provider.held(1)
    provider.held(2)
    with (
        Serving(tmp_path, provider.url) as serving,
        OpenCall(serving, 1, stream=True) as stream,
        OpenCall(serving, 2, stream=False) as plain,
    ):
        stream.wait_data()
        provider.has(2)
        serving.kill_worker()
        rows = serving.wait_rows(2)
        assert {row["ending"] for row in rows} == {"lost"}
        stream.join(10)
        plain.join(10)
        assert (stream.cut, plain.cut) == (True, True)
        wait_for("another worker", lambda: serving.status("/readyz") == 200)
        served(serving, 3)
        serving.wait_rows(3)
        assert len(serving.seen("worker .* ended \\(signal 9\\)")) == 1
        assert serving.stop() == 0
    check_money(serving, serving.rows())
    assert serving.output("verify") == ""


def test_a_worker_without_control_finishes_and_goes(tmp_path: Path, provider: Provider) -> None:
    gates = [provider.held(1), provider.held(2)]
    with (
        Serving(tmp_path, provider.url) as serving,
        OpenCall(serving, 1, stream=True) as stream,
        OpenCall(serving, 2, stream=False) as plain,
    ):
        stream.wait_data()
        provider.has(2)
        worker = serving.worker()
        serving.kill_control()
        wait_for("closed door", lambda: serving.refuses, 3)
        assert is_alive(worker)
        serving.start()  # beside it
        assert is_alive(worker)
        served(serving, 3)
        for gate in gates:
            gate.open()
        for call in (stream, plain):
            call.join(10)
            assert (call.status, call.cut) == (200, False)
        wait_for("its end", lambda: not is_alive(worker))
        rows = serving.wait_rows(3)
        for row in rows:
            check_ended(row, nano(provider.billed[number_of(row)][0]))
            assert row["ending"] == "complete"
        serving.wait_event("is closed: what it did not spend is free")
        assert serving.stop() == 0
    check_money(serving, rows)


def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, provider: Provider) -> None:
    """Its lock cannot be had before (R1)."""
    provider.held(1)
    patience = {"proxy.serve.SILENT_S": 2.0}
    with (
        Serving(tmp_path, provider.url, constants=patience) as serving,
        OpenCall(serving, 1, stream=True) as stream,
    ):
        stream.wait_data()
        worker = serving.worker()
        os.kill(worker, signal.SIGSTOP)
        serving.wait_event(f"worker {worker} does not answer")
        wait_for("its end", lambda: not is_alive(worker))
        (row,) = serving.wait_rows(1)
        assert (row["ending"], row["cost_usd"]) == ("lost", row["hold_usd"])
        wait_for("another worker", lambda: serving.status("/readyz") == 200)
        served(serving, 2)
        assert serving.worker() != worker
        assert len(serving.seen("does not answer")) == 1
        stream.join(10)
        assert serving.stop() == 0
    check_money(serving, serving.rows())


def test_a_worker_that_only_has_nothing_to_do_is_left_alone(
    tmp_path: Path, provider: Provider
) -> None:
    """Nor is it blamed for a control that was stopped for longer than that."""
    interval = {"dir": str(tmp_path / "journal"), "flush_interval_ms": 100}
    patience = {"proxy.serve.SILENT_S": 0.5}
    with Serving(tmp_path, provider.url, journal=interval, constants=patience) as serving:
        worker = serving.worker()
        for _ in range(3):
            serving.signal(signal.SIGSTOP)
            assert post(serving, 0, "tk-wrong-key").status_code == 401
            serving.signal(signal.SIGCONT)
            assert serving.output("verify") == ""  # takes longer than SILENT_S
        assert serving.workers == [worker]
        assert serving.seen("does not answer") == []
