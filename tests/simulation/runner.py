"""Runs seeds: `python -m tests.simulation 0-1000`."""

import argparse
import gc
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from tests.factories import a_table
from tests.simulation.invariants import Violation
from tests.simulation.scenario import Scenario
from tests.simulation.world import World


class Finding(AssertionError):
    """A seed that failed, with its last steps."""


@cache
def scratch() -> Path:
    """In memory where there is such a place: nothing here has to survive."""
    memory = Path("/dev/shm")
    parent = str(memory) if memory.is_dir() else None
    path = Path(tempfile.mkdtemp(prefix="tollkeeper-simulation-", dir=parent))
    (path / "tables").mkdir()
    a_table(path / "tables", effective_from="2026-01-01")
    return path


def clean() -> None:
    shutil.rmtree(scratch(), ignore_errors=True)
    scratch.cache_clear()


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="go on after a finding")
    parser.add_argument("seeds", type=seeds_of, nargs="?", default=range(200), help="7 or 0-1000")
    options = parser.parse_args()
    began, findings = time.monotonic(), 0
    try:
        for done, seed in enumerate(options.seeds, 1):
            try:
                run_seed(seed)
            except Finding as finding:
                findings += 1
                shown = str(finding).splitlines()[0] if options.all else str(finding)
                sys.stdout.write(f"\n{shown}\n")
                if not options.all:
                    break
            if sys.stderr.isatty() or done % 100 == 0:
                rate = done / (time.monotonic() - began)
                sys.stderr.write(f"\r{done} of {len(options.seeds)} seeds, {rate:.1f} a second")
    finally:
        clean()
    sys.stdout.write(f"\n{done} seeds, {findings or 'no'} finding{'s' if findings > 1 else ''}\n")
    return 1 if findings else 0
