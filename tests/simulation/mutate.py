"""Puts one hole of the protocol's model into the real code, and looks for a seed that finds it:
`python -m tests.simulation.mutate NAME`. Exit code 1: found, as it must be."""

import sys

from tests.simulation.mutations import MUTATIONS, applied
from tests.simulation.runner import Finding, clean, run_seeds

SEEDS_MAX = 200


def search(name: str) -> str:
    """The first finding; "" where none of many seeds has one."""
    first = MUTATIONS[name].first_seed
    try:
        with applied(name) as scenario:
            run_seeds(range(first, first + SEEDS_MAX), **scenario)
    except Finding as finding:
        return str(finding)
    finally:
        clean()
    return ""


def main(name: str) -> int:
    finding = search(name)
    sys.stdout.write(f"{finding}\n")
    return 1 if finding else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
