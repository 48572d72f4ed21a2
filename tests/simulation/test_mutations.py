"""The simulation can fail: each hole of the protocol's model, put into the real code, is found."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation import mutate
from tests.simulation.mutations import MUTATIONS

FOUND_S_MAX = 300


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """A new process for each task, forked from one that has imported what they need."""
    context = get_context("forkserver")
    context.set_forkserver_preload([mutate.__name__])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        yield pool


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_is_found(processes: ProcessPoolExecutor, name: str) -> None:
    """In a process of its own: a hole is there for everything that runs in the same one."""
    finding = processes.submit(mutate.search, name).result(FOUND_S_MAX)
    assert "make simulate SEEDS=" in finding
