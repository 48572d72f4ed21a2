"""Measure LLM proxies side by side: CPU per call and chunk, latency, start-up, memory.

    bench.py [--target NAME ...] [--runs 3] [--out FILE] [--list]

Runs alternate between the targets, so that a slow spell of the machine does not land on one of
them. A target and all it starts are pinned to core 0; provider and load generator to core 1.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import load
import processes
from load import CHAT, EVENTS
from targets import HERE, HOME, TARGETS, Target

TARGET_CORE = "0"
REST_S, REST_LOAD, REST_S_MAX = 0.25, 0.06, 10.0  # at rest: less than this share of a core

Figures = dict[str, float]


def calibrate_ms() -> float:
    """A fixed job on the target's core: how fast the machine is just now."""
    code = (
        "import json, sys, time; text = open(sys.argv[1]).read(); start = time.process_time();"
        "[json.dumps(json.loads(text)) for _ in range(4000)];"
        "print((time.process_time() - start) * 1e3)"
    )
    command = [sys.executable, "-c", code, str(HERE / "bodies" / load.JSON_BODY)]
    done = subprocess.run(
        load.pinned(TARGET_CORE, command), capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def start(name: str, target: Target) -> "subprocess.Popen[bytes]":
    env = {**os.environ, "BENCH_HOME": str(HOME), **target.env}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # start-up is measured as installed
    with (HOME / "logs" / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            load.pinned(TARGET_CORE, list(target.command)),
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


class Run:
    """One target, once through all phases."""

    def __init__(self, target: Target, process: "subprocess.Popen[bytes] | None") -> None:
        self.target = target
        self.process = process
        self.figures: Figures = {}

    def family(self) -> list[int]:
        return processes.tree(self.process.pid) if self.process else []

    def phase(self, connections: int, seconds: float, *, stream: bool = False) -> load.Result:
        """Drive the target; adds CPU per call: of all its processes, and of its children. What
        it has put off until the load is over counts too."""
        before = processes.cpu_s(self.family())
        result = load.run(self.target, connections, seconds, stream=stream)
        self.rest()
        used = processes.cpu_s(self.family())
        for pid, seconds_before in before.items():
            used[pid] = used.get(pid, seconds_before) - seconds_before
        us_per_call = 1e6 / result["requests"]
        result["cpu_us"] = sum(used.values()) * us_per_call
        root = used[self.process.pid] if self.process else 0.0
        result["child_cpu_us"] = result["cpu_us"] - root * us_per_call
        return result

    def rest(self) -> None:
        """Wait until the target has nothing left to do."""
        used, deadline = 0.0, time.monotonic() + REST_S_MAX
        while time.monotonic() < deadline:
            now = sum(processes.cpu_s(self.family()).values())
            if now - used < REST_S * REST_LOAD:
                return
            used = now
            time.sleep(REST_S)

    def memory(self, when: str) -> None:
        family = self.family()
        if family:
            sizes = [processes.rss_mib(pid) for pid in family]
            self.figures[f"rss_{when}"] = sum(sizes)
            self.figures[f"rss_child_{when}"] = max(sizes[1:], default=0.0)

    def latency(self) -> None:
        result = self.phase(1, 3)
        self.figures |= {"c1_p50": result["lat_p50"], "c1_p99": result["lat_p99"]}
        self.figures["c1_cpu"] = result["cpu_us"]

    def saturation(self) -> None:
        count, seconds = self.target.slices
        slices = [self.phase(self.target.connections, seconds) for _ in range(count)]
        for name, source in (
            ("sat_cpu", "cpu_us"),
            ("sat_child_cpu", "child_cpu_us"),
            ("sat_rps", "rps"),
        ):
            self.figures[name] = statistics.median(result[source] for result in slices)
        self.figures["sat_cpu_min"] = min(result["cpu_us"] for result in slices)

    def streams(self) -> None:
        load.pace(10)
        self.phase(min(self.target.paced_streams, 8), 0.5, stream=True)
        result = self.phase(self.target.paced_streams, 3, stream=True)
        self.figures |= {
            "chunk_cpu": result["cpu_us"] / EVENTS,
            "chunk_child_cpu": result["child_cpu_us"] / EVENTS,
            "ttfb_p50": result["ttfb_p50"],
            "relay_p50": result["relay_p50"],
            "relay_p99": result["relay_p99"],
        }
        load.pace(0)
        result = self.phase(self.target.burst_streams, 1.5, stream=True)
        self.figures |= {"burst_cpu": result["cpu_us"], "burst_rps": result["rps"]}

    def all(self) -> Figures:
        self.memory("idle")
        self.phase(8, self.target.warm_s)
        self.latency()
        self.saturation()
        self.streams()
        self.memory("after")
        return self.figures


def check(name: str, target: Target) -> None:
    """Both APIs, plain and streamed, answer as the provider does. Raises RuntimeError if not."""
    for path, body, ending in (
        (CHAT, "openai_json.json", b'"usage"'),
        (CHAT, "openai_sse.json", b"[DONE]"),
        ("/v1/messages", "anthropic_json.json", b'"usage"'),
        ("/v1/messages", "anthropic_sse.json", b"message_stop"),
    ):
        status, data = load.call(target, path, body)
        if status != 200 or ending not in data:
            raise RuntimeError(f"{name}: {path} {body}: {status} {data[:300]!r}")


def measure(name: str, target: Target) -> Figures:
    figures: Figures = {"calib_ms": calibrate_ms()}
    stolen = processes.stolen_s()
    load.pace(0)
    if not target.command:
        return figures | Run(target, None).all()
    if load.taken(target.port):
        raise RuntimeError(f"port {target.port} is in use")
    target.prepare()
    since = time.monotonic()
    process = start(name, target)
    try:
        figures["start_s"] = load.wait_ready(target, process, since)
        check(name, target)
        time.sleep(0.5)
        figures |= Run(target, process).all()
    finally:
        processes.stop(process)
    return figures | {"stolen_s": processes.stolen_s() - stolen}


def summary(runs: list[Figures]) -> Figures:
    """Medians; the best slice of all runs for `_min`."""
    return {
        key: (min if key.endswith("_min") else statistics.median)(run[key] for run in runs)
        for key in runs[0]
    }


COLUMNS = (
    ("sat_cpu", "JSON CPU us/call", ".0f"),
    ("sat_cpu_min", "best slice", ".0f"),
    ("json_ratio", "x nginx", ".1f"),
    ("sat_child_cpu", "of it children", ".0f"),
    ("sat_rps", "calls/s", ".0f"),
    ("chunk_cpu", "SSE CPU us/chunk", ".1f"),
    ("chunk_ratio", "x nginx", ".1f"),
    ("added_p50", "added p50 us", ".0f"),
    ("added_p99", "added p99 us", ".0f"),
    ("relay_p99", "chunk relay p99 us", ".0f"),
    ("start_s", "ready s", ".2f"),
    ("rss_idle", "RSS idle MiB", ".0f"),
    ("rss_after", "RSS after MiB", ".0f"),
    ("rss_child_after", "largest child MiB", ".0f"),
    ("calib_ms", "calibration ms", ".0f"),
)


def compare(medians: dict[str, Figures]) -> None:
    """Add what is only meaningful within one round: ratios to nginx, latency beyond direct."""
    nginx, direct = medians.get("nginx"), medians.get("direct")
    for name, figures in medians.items():
        if nginx and name != "direct":
            figures["json_ratio"] = figures["sat_cpu"] / nginx["sat_cpu"]
            figures["chunk_ratio"] = figures["chunk_cpu"] / nginx["chunk_cpu"]
        if direct and name != "direct":
            for quantile in ("p50", "p99"):
                figures[f"added_{quantile}"] = figures[f"c1_{quantile}"] - direct[f"c1_{quantile}"]


def table(medians: dict[str, Figures]) -> str:
    lines = [
        "| target | " + " | ".join(title for _, title, _ in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name, figures in medians.items():
        cells = [format(figures[key], form) if key in figures else "-" for key, _, form in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", action="append", choices=list(TARGETS), default=[])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write every figure of every run as JSON")
    parser.add_argument("--list", action="store_true", help="list the targets")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    if chosen.list:
        print("\n".join(TARGETS))
        return 0
    (HOME / "logs").mkdir(parents=True, exist_ok=True)
    (HOME / "tmp").mkdir(exist_ok=True)
    runs: dict[str, list[Figures]] = {name: [] for name in chosen.target or TARGETS}
    failed = False
    with load.provider():
        for number in range(1, chosen.runs + 1):
            for name, done in runs.items():
                try:
                    done.append(measure(name, TARGETS[name]))
                except (RuntimeError, subprocess.SubprocessError) as error:
                    failed = True
                    print(f"{name} run {number} failed: {error}", file=sys.stderr, flush=True)
                else:
                    print(f"{name} run {number} of {chosen.runs}", file=sys.stderr, flush=True)
    medians = {name: summary(done) for name, done in runs.items() if done}
    compare(medians)
    print(table(medians))
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps({"median": medians, "runs": runs}, indent=1))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
