"""A few worlds; `make simulate SEEDS=0-100000` tries more."""

import os

import pytest

from tests.simulation.runner import alone, clean, run_seed

SEEDS = int(os.environ.get("TOLLKEEPER_SEEDS", "20"))
SEEDS_PER_TEST = 5


@pytest.fixture(scope="module", autouse=True)
def scratch():
    alone()
    yield
    clean()


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_no_seed_breaks_an_invariant(first: int) -> None:
    for seed in range(first, min(first + SEEDS_PER_TEST, SEEDS)):
        world = run_seed(seed)
        assert world.invariants.corrected, "the end was reached"
