"""The simulation can fail: each hole of the protocol's model, put into the real code, is found."""

import subprocess
import sys

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.source_code import ROOT

FOUND_S_MAX = 300


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_is_found(name: str) -> None:
    """In a process of its own: a hole is there for everything that runs in the same one."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.mutate", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=FOUND_S_MAX,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "make simulate SEEDS=" in done.stdout, done.stdout + done.stderr
