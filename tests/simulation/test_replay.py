"""A seed is one world: the same steps every time, in every process."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.simulation.mutations import applied
from tests.simulation.runner import Finding, alone, clean, run_seed, run_seeds

SEEDS = (3, 12, 27, 44)
ROOT = Path(__file__).parents[2]
CODE = """
import sys
from tests.simulation.runner import clean, run_seed
print(*[run_seed(int(seed)).digest for seed in sys.argv[1:]])
clean()
"""


def digests(seeds: Iterable[int], hash_seed: int) -> list[int]:
    """Of these worlds, in a process of their own, as `make simulate` runs them."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, seeds)],
        cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": str(hash_seed)}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return [int(digest) for digest in done.stdout.split()]


@pytest.fixture(scope="module", autouse=True)
def scratch():
    alone()
    yield
    clean()


def test_a_seed_replays_in_another_process() -> None:
    assert digests(SEEDS, 4711) == digests(SEEDS[::-1], 1)[::-1]


def test_different_seeds_are_different_worlds() -> None:
    assert len({run_seed(seed).digest for seed in SEEDS}) == len(SEEDS)


def test_a_finding_says_how_to_replay_it_and_what_happened_last() -> None:
    with applied("drop_open_holds") as scenario, pytest.raises(Finding) as found:
        run_seeds(range(10), **scenario)
    lines = str(found.value).splitlines()
    assert lines[0] == lines[-1]
    assert "make simulate SEEDS=" in lines[2]
    assert any("Settle" in line for line in lines)
