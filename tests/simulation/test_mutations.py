"""The simulation can fail: each hole of the protocol's model, put into the real code, is found."""

import pytest

from tests.simulation.mutations import MUTATIONS, applied
from tests.simulation.runner import Finding, clean, run_seeds

SEEDS_MAX = 200


@pytest.fixture(scope="module", autouse=True)
def scratch():
    yield
    clean()


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_is_found(name: str) -> None:
    first = MUTATIONS[name].first_seed
    with applied(name) as scenario, pytest.raises(Finding, match="make simulate SEEDS="):
        run_seeds(range(first, first + SEEDS_MAX), **scenario)
