"""CPU that `tollkeeper serve` takes until it is ready: control, the worker, children that ended.

    python bench/start.py [--runs 5]

CPU and not time, so the figures mean something on a machine with other work; on one idle core the
time until ready is about their sum.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import processes

ROOT = Path(__file__).resolve().parents[1]
CONFIG = Path(__file__).with_name("tollkeeper.yaml")
READY = "http://127.0.0.1:9401/readyz"
STEP_S = 0.002
READY_S_MAX = 60.0


def is_ready() -> bool:
    try:
        with urllib.request.urlopen(READY, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def ended_s(pid: int) -> float:
    """CPU seconds of children that ended and were waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / processes.TICKS_PER_S


def start(home: Path) -> dict[str, float]:
    """One start, from the beginning of the process until it is ready, in milliseconds."""
    (home / "tollkeeper").mkdir(exist_ok=True)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "--config", str(CONFIG), "serve"],
        cwd=home,
        env={**os.environ, "BENCH_HOME": str(home), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not is_ready():
            assert process.poll() is None, "it ended"
            assert time.monotonic() - began < READY_S_MAX, "never ready"
            time.sleep(STEP_S)
        wall = time.monotonic() - began
        used = processes.cpu_s(processes.tree(process.pid))
        ended = ended_s(process.pid)
    finally:
        processes.stop(process)
    control = used.pop(process.pid)
    figures = {"control": control, "worker": sum(used.values()), "ended": ended}
    figures |= {"all": sum(figures.values()), "time": wall}
    return {name: seconds * 1000 for name, seconds in figures.items()}


def table(runs: int) -> None:
    print("| database | control ms | worker ms | ended ms | CPU in all ms | time ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    found: dict[str, list[dict[str, float]]] = {"new file": [], "there is one": []}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as home:
            for each in found.values():
                each.append(start(Path(home)))
    for name, each in found.items():
        columns = (statistics.median(run[column] for run in each) for column in each[0])
        print(f"| {name} | {' | '.join(f'{column:.0f}' for column in columns)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    table(parser.parse_args().runs)
