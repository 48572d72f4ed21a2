"""The simulation can fail: each hole of the protocol's model, put into the real code, is found."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.forks import CONTEXT
from tests.simulation import mutate
from tests.simulation.mutations import MUTATIONS

FOUND_S_MAX = 300


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """A new process for each task."""
    with ProcessPoolExecutor(1, CONTEXT, max_tasks_per_child=1) as pool:
        yield pool


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_is_found(processes: ProcessPoolExecutor, name: str) -> None:
    """In a process of its own: a hole is there for everything that runs in the same one."""
    finding = processes.submit(mutate.search, name).result(FOUND_S_MAX)
    assert "make simulate SEEDS=" in finding
