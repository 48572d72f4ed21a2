"""The database or the journal's disk is not there for a while: nothing is lost, nothing counted
twice, and no restart is needed."""

import contextlib
import os
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.load import OpenCall, Provider, cost_of, nano, number_of, post, served
from tests.processes import Serving, wait_for

IMPATIENT = {"db.engine.BUSY_TIMEOUT_S": 0.2}  # else SQLite itself waits for the lock, ten seconds
JOURNAL_DISK_BYTES, DATABASE_DISK_BYTES = 512 * 1024, 8 * 2**20
CALLS_UNTIL_FULL = 600


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(seed=2) as provider:
        yield provider


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else can write."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")


def check_books(serving: Serving, provider: Provider) -> None:
    """Exactly one exact row for every call that was billed."""
    rows = serving.wait_rows(len(provider.billed))
    assert Counter(map(number_of, rows)) == Counter(list(provider.billed))
    for row in rows:
        assert (row["ending"], row["usage_source"]) == ("complete", "reported")
        assert cost_of(row) == nano(provider.billed[number_of(row)][0])
    assert serving.output("verify") == ""


def check_unavailable(reply: httpx.Response) -> None:
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "ledger_unavailable")
    assert 1 <= int(reply.headers["retry-after"]) <= 60


# --- control -------------------------------------------------------------------------------


@pytest.mark.slow
def test_calls_go_on_while_control_stands_still(tmp_path: Path, provider: Provider) -> None:
    """Workers have money at hand; nobody waits for control to give them some more."""
    with Serving(tmp_path, provider.url) as serving:
        for number in range(1, 21):
            served(serving, number)
        serving.wait_rows(20)  # which takes longer than some flush intervals
        serving.signal(signal.SIGSTOP)
        try:
            for number in range(21, 120):
                served(serving, number)
        finally:
            serving.signal(signal.SIGCONT)
        check_books(serving, provider)


# --- the database --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("patience", [{}, IMPATIENT], ids=["waits", "fails"])
def test_calls_go_on_from_leases(
    tmp_path: Path, provider: Provider, patience: dict[str, object]
) -> None:
    with Serving(tmp_path, provider.url, constants=patience) as serving:
        served(serving, 1)
        serving.wait_rows(1)
        with locked(tmp_path / "ledger.db"):
            wait_for("outage", lambda: not patience or serving.seen("out of reach"))
            for number in range(2, 30):
                served(serving, number)
            assert len(serving.rows()) == 1
            assert serving.status("/readyz") == 200
        if patience:
            serving.wait_event("the ledger is back")
        check_books(serving, provider)
    assert serving.exit_code == 0


@pytest.mark.slow
def test_a_database_that_is_away_comes_back(tmp_path: Path, provider: Provider) -> None:
    files = [tmp_path / f"ledger.db{suffix}" for suffix in ("", "-wal", "-shm")]
    away = tmp_path / "away"
    away.mkdir()
    with Serving(tmp_path, provider.url, constants=IMPATIENT) as serving:
        served(serving, 1)
        with locked(tmp_path / "ledger.db"):
            serving.wait_event("out of reach")  # so it has to connect again
            for file in files:
                file.rename(away / file.name)
        served(serving, 2)
        assert not files[0].exists()
        for file in reversed(files):
            if (away / file.name).exists():
                (away / file.name).rename(file)
        serving.wait_event("the ledger is back")
        check_books(serving, provider)
    assert serving.exit_code == 0


@pytest.mark.slow
def test_a_worker_that_starts_in_an_outage(tmp_path: Path, provider: Provider) -> None:
    """It answers, but gets no money before its journal is registered (R8)."""
    with Serving(tmp_path, provider.url, constants=IMPATIENT) as serving:
        served(serving, 1)
        serving.wait_rows(1)
        with locked(tmp_path / "ledger.db"):
            serving.wait_event("out of reach")
            serving.kill_worker()
            wait_for("new worker", lambda: serving.status("/readyz") == 200, 20)
            check_unavailable(post(serving, 2))
            assert serving.seen("the ledger is back") == []
        serving.wait_event("the ledger is back")
        wait_for("money", lambda: post(serving, 3).status_code == 200)
        check_books(serving, provider)


@pytest.mark.slow
def test_an_end_in_an_outage_waits_for_nobody(tmp_path: Path, provider: Provider) -> None:
    """What is not committed is in the journal: the next start finds it."""
    patience = {"proxy.control.control.FINAL_S": 0.5, **IMPATIENT}
    with Serving(tmp_path, provider.url, constants=patience) as serving:
        served(serving, 1)
        serving.wait_rows(1)
        with locked(tmp_path / "ledger.db"):
            served(serving, 2)
            assert serving.stop(timeout_s=8) == 0  # `drain_s` is 10
            assert len(serving.rows()) == 1
        assert serving.seen("could not commit everything before stopping")
        serving.start()
        check_books(serving, provider)
        serving.wait_event("is closed: what it did not spend is free")


# --- full disks ----------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A small file system of its own."""
    mount = tmp_path / "disk"
    mount.mkdir()
    size = getattr(request, "param", JOURNAL_DISK_BYTES)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all that is free."""
    path = disk / "ballast"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(fd, bytes(4096))
    os.close(fd)
    return path


@pytest.mark.slow
def test_a_full_disk_refuses_calls_never_settlements(
    disk: Path, tmp_path: Path, provider: Provider
) -> None:
    numbers = iter(range(1, CALLS_UNTIL_FULL))
    in_flight = [next(numbers) for _ in range(4)]
    gates = [provider.held(number) for number in in_flight]
    journal = {"dir": str(disk / "journal")}
    with (
        contextlib.ExitStack() as calls,
        Serving(tmp_path, provider.url, journal=journal) as serving,
    ):
        opened = [
            calls.enter_context(OpenCall(serving, number, stream=number % 2 == 0))
            for number in in_flight
        ]
        for number in in_flight:
            provider.has(number)
        ballast = fill(disk)
        refused = next(reply for n in numbers if (reply := post(serving, n)).status_code != 200)
        check_unavailable(refused)
        for gate in gates:
            gate.open()
        for call in opened:
            call.join(10)
            assert (call.status, call.cut) == (200, False)
        ballast.unlink()
        for _ in range(3):
            served(serving, next(numbers))
        check_books(serving, provider)
        assert serving.stop() == 0


@pytest.mark.slow
def test_a_worker_that_starts_on_a_full_disk(
    disk: Path, tmp_path: Path, provider: Provider
) -> None:
    """It cannot, says so in a line, and the next attempt after space is freed can."""
    journal = {"dir": str(disk / "journal")}
    with Serving(tmp_path, provider.url, journal=journal) as serving:
        served(serving, 1)
        ballast = fill(disk)
        serving.kill_worker()
        event = serving.wait_event("worker cannot start")
        assert "No space left on device" in event["error"]
        assert "Traceback" not in "".join(
            line for line in serving.log.splitlines() if not line.startswith("{")
        )
        ballast.unlink()
        wait_for("a worker", lambda: serving.status("/readyz") == 200, 20)
        served(serving, 2)
        check_books(serving, provider)


@pytest.mark.slow
@pytest.mark.parametrize("disk", [DATABASE_DISK_BYTES], indirect=True)
def test_a_full_disk_under_the_database(disk: Path, tmp_path: Path, provider: Provider) -> None:
    url = {"url": f"sqlite+aiosqlite:///{disk / 'ledger.db'}"}
    (tmp_path / "ledger.db").symlink_to(disk / "ledger.db")
    with Serving(tmp_path, provider.url, database=url) as serving:
        served(serving, 1)
        serving.wait_rows(1)
        serving.query("PRAGMA wal_checkpoint(TRUNCATE)")  # else there is room in it for a while
        ballast = fill(disk)
        served(serving, 2)
        serving.wait_event("out of reach: .*disk is full")
        for number in range(3, 10):
            served(serving, number)
        ballast.unlink()
        serving.wait_event("the ledger is back")
        check_books(serving, provider)
    assert serving.exit_code == 0
