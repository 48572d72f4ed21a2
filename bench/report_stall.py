"""Do reports in control stall the data plane? Calls and streams with and without them.

    report_stall.py [--rows 1000000] [--seconds 20] [--by model,ending]

Fills the ledger with copies of one real cost row, then asks control for a grouped report again and
again while calls and paced streams are measured. Tollkeeper has one core, as in bench.py. The
default dimensions are not in the rollups, so every report reads every row.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

import load
import processes
from sqlalchemy import create_engine, func, insert, literal, select, true
from targets import HOME, TARGETS

from bench import start
from db.models import UsageCost

TARGET = TARGETS["tollkeeper"]
ADMIN_PORT = 9402
ADMIN_KEY = "bench-admin-key-0123456789"
MS_BETWEEN_ROWS = 2500  # a million rows are about a month
MODELS = 20


@contextmanager
def tollkeeper() -> Iterator["subprocess.Popen[bytes]"]:
    """The proxy on the ledger as it is, ready."""
    since = time.monotonic()
    process = start("tollkeeper", TARGET)
    try:
        load.wait_ready(TARGET, process, since)
        yield process
    finally:
        processes.stop(process)


def fill(rows: int) -> float:
    """Copy the newest cost row `rows` times, spread over time and models; seconds it took."""
    since = time.monotonic()
    table = UsageCost.__table__
    engine = create_engine(f"sqlite:///{HOME}/tollkeeper/ledger.db")
    first = select(literal(1).label("n")).cte("numbers", recursive=True)
    numbers = first.union_all(select(first.c.n + 1).where(first.c.n < rows))
    row = select(table).order_by(table.c.at_ms.desc()).limit(1).cte("pattern")
    changed = {
        "call_id": func.randomblob(16),
        "at_ms": row.c.at_ms - numbers.c.n * MS_BETWEEN_ROWS,
        "model": literal("model-").concat(numbers.c.n % MODELS),
        "cost_nano": row.c.cost_nano + numbers.c.n % 1000,
    }
    names = [column.name for column in table.columns]
    copies = select(*(changed.get(name, row.c[name]).label(name) for name in names))
    with engine.begin() as connection:
        connection.execute(
            insert(table).from_select(names, copies.select_from(row.join(numbers, true())))
        )
    engine.dispose()
    return time.monotonic() - since


def report(by: str) -> tuple[float, int]:
    """Ask control for a report; seconds and bytes of its answer."""
    since = time.monotonic()
    connection = HTTPConnection("127.0.0.1", ADMIN_PORT, timeout=600)
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    connection.request("GET", f"/admin/api/report?by={by}", headers=headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"report: {response.status} {data[:300]!r}")
    return time.monotonic() - since, len(data)


@contextmanager
def reports(by: str, taken: list[float]) -> Iterator[None]:
    """Reports one after the other, in the background."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            taken.append(report(by)[0])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def drive(seconds: float) -> dict[str, float]:
    """One connection of calls and eight paced streams at the same time."""
    load.pace(10)
    commands = (
        load.command(TARGET, 1, seconds),
        load.command(TARGET, 8, seconds, stream=True),
    )
    running = [subprocess.Popen(one, stdout=subprocess.PIPE, text=True) for one in commands]
    calls, streams = (json.loads(one.communicate()[0]) for one in running)
    for result in (calls, streams):
        if result["errors"]:
            raise RuntimeError(result["first_error"])
    names = ("p50", "p99", "max")
    figures = {f"call {name} us": calls[f"lat_{name}"] for name in names}
    return figures | {f"chunk {name} us": streams[f"relay_{name}"] for name in names}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--by", default="model,ending")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    TARGET.prepare()
    with load.provider():
        with tollkeeper():
            load.run(TARGET, 1, 0.5)
        print(f"{chosen.rows} rows written in {fill(chosen.rows):.1f} s", file=sys.stderr)
        with tollkeeper():
            alone = drive(chosen.seconds)
            taken: list[float] = []
            with reports(chosen.by, taken):
                beside = drive(chosen.seconds)
    print(f"{len(taken)} reports by {chosen.by}, slowest {max(taken):.2f} s\n")
    print("| | " + " | ".join(alone) + " |")
    print("|---" * (len(alone) + 1) + "|")
    for name, figures in (("alone", alone), ("with reports", beside)):
        print(f"| {name} | " + " | ".join(f"{value:.0f}" for value in figures.values()) + " |")


if __name__ == "__main__":
    main()
