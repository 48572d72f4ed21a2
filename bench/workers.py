"""How calls per second grow with workers on one host: Tollkeeper with 1 to 8 of them.

    python bench/workers.py [--workers 1,2,4,8] [--rounds 3]

Target, provider and load generator share all cores, so throughput of the whole is bounded by the
CPU of all of them. What counts is CPU per call: from it follows what the cores give when the load
comes from elsewhere (one worker has one core at most; control has another, or its share).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import load
import processes
from targets import HOME, TARGETS, clear_tollkeeper

SECONDS = 3.0
CONNECTIONS = 64
CORES = os.cpu_count() or 1
PATH = HOME / "workers.yaml"


def write_config(workers: int) -> None:
    source = (Path(__file__).parent / "tollkeeper.yaml").read_text()
    found = source.replace("workers: 1", f"workers: {workers}")
    if workers != 1 and found == source:
        sys.exit("bench/tollkeeper.yaml does not say `workers: 1`")
    PATH.write_text(found)


def measure(workers: int) -> dict[str, float]:
    """CPU us per call of the workers and of control, and calls per second."""
    target = TARGETS["tollkeeper"]
    write_config(workers)
    clear_tollkeeper()
    command = [target.command[0], "--config", str(PATH), "serve"]
    with (HOME / "logs/workers.log").open("ab") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            command, env={**os.environ, "BENCH_HOME": str(HOME)}, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        load.wait_ready(replace(target, command=tuple(command)), process, began)
        load.run(target, CONNECTIONS, 1.0)
        before = processes.cpu_s(processes.tree(process.pid))
        result = load.run(target, CONNECTIONS, SECONDS)
        time.sleep(1.0)  # what was put off is counted too
        used = processes.cpu_s(processes.tree(process.pid))
    finally:
        processes.stop(process)
    calls = result["requests"]
    spent = {pid: 1e6 * (used[pid] - before[pid]) / calls for pid in before if pid in used}
    control = spent.pop(process.pid)
    return {"rps": result["rps"], "control": control, "workers": sum(spent.values())}


def row(workers: int, runs: list[dict[str, float]]) -> str:
    figures = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    both = figures["workers"] + figures["control"]
    alone = 1e6 / figures["workers"]  # of one worker that has a core to itself
    elsewhere = min(workers * alone, CORES * 1e6 / both)
    cells = [f"{figures[name]:,.0f}" for name in ("workers", "control", "rps")]
    return f"| {workers} | {' | '.join(cells)} | {elsewhere:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    counts = [int(each) for each in options.workers.split(",")]
    found: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    with load.provider():
        os.sched_setaffinity(0, range(CORES))
        load.pace(0)
        for _ in range(options.rounds):
            for count in counts:
                found[count].append(measure(count))
                sys.stderr.write(f"{count}: {json.dumps(found[count][-1])}\n")
    print("| workers | CPU us/call of workers | of control | calls/s, load on the same cores | "
          f"calls/s that {CORES} cores give, load elsewhere |")  # fmt: skip
    print("|---|---|---|---|---|")
    for count, runs in found.items():
        print(row(count, runs))


if __name__ == "__main__":
    main()
