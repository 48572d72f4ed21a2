"""`tollkeeper prices reprice --dry-run` over a ledger of many calls: time, CPU and peak memory.

    repricing.py [--rows 10000000] [--days 90] [--directory /var/tmp/ledgers]

Makes a ledger (`million.py`) on SQLite, in a temporary directory or, once, in `--directory`, and a
price table in which each of its models costs something else; then runs the command as anybody
would and reads from the kernel what its process took. Every call is priced anew.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import Process
from pathlib import Path

from million import MODELS, make

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pricing.table import write_table

ROOT = Path(__file__).resolve().parents[1]
TABLE = "bench-other-prices"


def ledger(directory: Path, rows: int, days: int) -> Path:
    """The path of its database, made if it is not there."""
    path = directory / f"ledger-{rows}-{days}.db"
    if not path.exists():
        began = time.monotonic()
        made = path.with_suffix(".making")
        # A process of its own: what is measured later starts with the peak of whoever starts it.
        making = Process(target=_make, args=(made, directory / "made", rows, days))
        making.start()
        making.join()
        assert making.exitcode == 0, making.exitcode
        made.rename(path)
        print(f"{rows:,} calls made in {time.monotonic() - began:.0f} s", flush=True)
    return path


def _make(path: Path, directory: Path, rows: int, days: int) -> None:
    asyncio.run(make(f"sqlite+aiosqlite:///{path}", directory, rows, days))


def configured(directory: Path, database: Path) -> Path:
    entries = {
        ("openai", f"model-{n}"): {
            "input_cost_per_token": f"0.000000{n + 11}",
            "output_cost_per_token": f"0.00000{n + 44}",
        }
        for n in range(MODELS)
    }
    write_table(
        directory, entries, table_id=TABLE, source="bench", source_sha256="0" * 64,
        effective_from="2026-01-01",
    )  # fmt: skip
    settings = {
        "database": {"url": f"sqlite+aiosqlite:///{database}"},
        "journal": {"dir": str(directory / "journal")},
        "pricing": {"tables_dir": str(directory)},
        "providers": {"openai": {"api_key": "sk-none"}},
        "organizations": {"acme": {"teams": {"team-0": {}}}},
    }
    path = directory / "reprice.yaml"
    path.write_text(json.dumps(settings))
    return path


def reprice(config: Path) -> tuple[float, float, float, list[dict[str, str]]]:
    """Seconds it took, CPU seconds, peak resident MiB, and what it printed."""
    command = [sys.executable, "-m", "proxy", "--config", str(config), "prices", "reprice"]
    options = ["--since", "2020-01-01", "--until", "2026-12-31", "--version", TABLE]
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, *options, "--dry-run", "--format", "json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    took_s = time.monotonic() - began
    assert status == 0, status
    return took_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, json.loads(printed)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--directory", type=Path, help="where the ledger stays, or is already")
    return parser.parse_args()


def main() -> None:
    asked = options()
    with tempfile.TemporaryDirectory() as temporary:
        directory = asked.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        database = ledger(directory, asked.rows, asked.days)
        took_s, cpu_s, peak_mib, printed = reprice(configured(directory, database))
    calls = sum(int(row["calls"]) for row in printed)
    changed = sum(int(row["changed"]) for row in printed)
    assert calls == changed == asked.rows, (calls, changed)
    print(
        f"{calls:,} calls, {changed:,} of them changed: {took_s:.0f} s, {calls / took_s:,.0f} "
        f"calls/s, {cpu_s:.0f} s of CPU, {peak_mib:.0f} MiB at most"
    )


if __name__ == "__main__":
    main()
