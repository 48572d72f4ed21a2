"""Runs seeds: `python -m tests.simulation 0-1000`."""

import argparse
import gc
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.factories import a_table
from tests.simulation.invariants import Violation
from tests.simulation.scenario import Scenario
from tests.simulation.world import World


class Finding(AssertionError):
    """A seed that failed, with its last steps."""


_scratch: Path | None = None


def scratch() -> Path:
    """In memory where there is such a place: nothing here has to survive."""
    global _scratch  # noqa: PLW0603 - one for all worlds of a process, and of its children
    if _scratch is None:
        memory = Path("/dev/shm")
        parent = str(memory) if memory.is_dir() else None
        _scratch = Path(tempfile.mkdtemp(prefix="tollkeeper-simulation-", dir=parent))
        (_scratch / "tables").mkdir()
        a_table(_scratch / "tables", effective_from="2026-01-01")
    return _scratch


def share(directory: Path) -> None:
    """Use what another process has made."""
    global _scratch  # noqa: PLW0603
    _scratch = directory


def clean() -> None:
    global _scratch  # noqa: PLW0603
    if _scratch is not None:
        shutil.rmtree(_scratch, ignore_errors=True)
    _scratch = None


def alone() -> None:
    """What other tests left is not to be collected during a world: clients' finalizers make tasks
    on whatever loop runs."""
    gc.collect()


def run_seed(seed: int, **fixed: Any) -> World:
    """Raises Finding. `fixed`: parts of the scenario that the seed does not decide."""
    directory = scratch() / f"seed-{seed}"
    world = World(Scenario.of(seed, **fixed), directory, scratch() / "tables")
    try:
        world.run()
    except Exception as exc:
        shown = f"{exc}" if isinstance(exc, Violation) else "".join(traceback.format_exception(exc))
        lines = "\n".join(world.trace)
        raise Finding(
            f"seed {seed}: {shown}\n{world.scenario}\nreplay: make simulate SEEDS={seed}\n"
            f"last steps:\n{lines}\nseed {seed}: {shown}"
        ) from exc
    finally:
        with suppress(OSError):
            shutil.rmtree(directory)
    return world


def run_seeds(seeds: Iterable[int], **fixed: Any) -> None:
    """One after the other, up to the first Finding."""
    for seed in seeds:
        run_seed(seed, **fixed)


def seeds_of(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def try_seed(seed: int) -> str:
    """What was found, or nothing."""
    try:
        run_seed(seed)
    except Finding as finding:
        return str(finding)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="go on after a finding")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("seeds", type=seeds_of, nargs="?", default=range(200), help="7 or 0-1000")
    options = parser.parse_args()
    began, done, findings = time.monotonic(), 0, 0
    pool = ProcessPoolExecutor(
        min(options.processes, len(options.seeds)), get_context("spawn"), share, (scratch(),)
    )
    try:
        for done, finding in enumerate(pool.map(try_seed, options.seeds), 1):
            if finding:
                findings += 1
                sys.stdout.write(f"\n{finding.splitlines()[0] if options.all else finding}\n")
                if not options.all:
                    break
            if sys.stderr.isatty() or done % 100 == 0:
                rate = done / (time.monotonic() - began)
                sys.stderr.write(f"\r{done} of {len(options.seeds)} seeds, {rate:.1f} a second")
    finally:
        pool.shutdown(cancel_futures=True)
        clean()
    sys.stdout.write(f"\n{done} seeds, {findings or 'no'} finding{'s' if findings > 1 else ''}\n")
    return 1 if findings else 0
