"""`scripts/soak`: what the suite shows in a few runs, many times over; prints a table.

scripts/soak                         # everything: about half an hour
scripts/soak races --runs 50 --sizes 1x2 2x2
scripts/soak deaths --runs 200 --seed 7
scripts/soak outage --down-s 30
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.crashes import deaths, outages
from tests.databases import Postgres, find_postgres
from tests.fleet import AT_ONCE, FIRST, Fleet, Race, key_of, races
from tests.load import Provider
from tests.processes import Serving

SCENARIOS = ("races", "deaths", "outage")
SIZES = ("1x1", "1x2", "1x4", "2x2")  # hosts x workers on each
DEATHS_AT_A_TIME = 25


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description="Ledger under fire.")
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=", ".join(SCENARIOS))
    parser.add_argument("--runs", type=int, help="races per size (50), deaths (200)")
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="hosts x workers of races")
    parser.add_argument("--down-s", type=float, default=30.0, help="without a database")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit-s", type=float, default=3600.0, help="begin nothing after that")
    options = parser.parse_args()
    unknown = set(options.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    stop_at = time.monotonic() + options.limit_s
    for name in options.scenarios or SCENARIOS:
        if name == "races":
            for size in options.sizes:
                _race(size, options.runs or 50, stop_at)
        elif name == "deaths":
            _die(options.runs or 200, options.seed, stop_at)
        else:
            _outage(options.down_s)
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def _postgres() -> Iterator[Postgres]:
    binaries = find_postgres()
    if binaries is None:
        raise SystemExit("soak: PostgreSQL is not installed (no initdb)")
    server = Postgres(binaries)
    try:
        yield server
    finally:
        server.stop()


def _race(size: str, runs: int, stop_at: float) -> None:
    hosts, workers = map(int, size.split("x"))
    found: list[Race] = []
    with ExitStack() as stack:
        provider = stack.enter_context(Provider(seed=1))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(_postgres()).create("soak") if hosts > 1 else ""
        fleet = Fleet(directory, provider.url, hosts=hosts, workers=workers, url=url, **races(runs))
        stack.enter_context(fleet)
        for index in range(runs):
            if time.monotonic() > stop_at:
                break
            found.append(fleet.spend_out(provider, key_of(index), FIRST + 1000 * index))
            assert found[-1].billed_nano <= found[-1].limit_nano, found[-1]
        fleet.stop()
        assert fleet.hosts[0].output("verify") == ""
    used = [race.used for race in found]
    at_once = sum((race.at_once for race in found), Counter[str]())
    after = sum((race.after for race in found), Counter[str]())
    _say(
        f"| races {size} | {len(found)} runs of {AT_ONCE} calls | billed at most "
        f"{max(used):.1%} of the limit, at least {min(used):.1%} | at once {_shown(at_once)}; "
        f"after {_shown(after)} |"
    )


def _die(runs: int, seed: int, stop_at: float) -> None:
    kinds, endings, completed, number = Counter[str](), Counter[str](), 0, 0
    while kinds.total() < runs and time.monotonic() < stop_at:
        count = min(DEATHS_AT_A_TIME, runs - kinds.total())
        with (
            Provider(seed) as provider,
            tempfile.TemporaryDirectory() as directory,
            Serving(Path(directory), provider.url, server={"workers": 2}) as serving,
        ):
            found = deaths(
                serving, provider, count=count, seed=seed + number, clients=32, stop_at=stop_at
            )
        number += 1
        kinds += found.kinds
        endings += found.endings
        completed += found.completed
    _say(
        f"| deaths, seed {seed} | {kinds.total()} times kill -9: {_shown(kinds)} | {completed} "
        f"calls completed, each with its exact row | endings {_shown(endings)} |"
    )


def _outage(down_s: float) -> None:
    with (
        Provider(seed=1) as provider,
        _postgres() as server,
        tempfile.TemporaryDirectory() as directory,
    ):
        url = server.create("soak")
        with Fleet(Path(directory), provider.url, workers=2, url=url) as fleet:
            found = outages(fleet, provider, server, down_s=down_s, clients=16)
    _say(
        f"| outage | {down_s:.0f} s without PostgreSQL, then kill -9 of it | {found.completed} "
        f"calls completed, {found.during} of them without it | refused {_shown(found.refused)}; "
        f"grown by {found.grown_mb:.1f} MB; endings {_shown(found.endings)} |"
    )


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


if __name__ == "__main__":
    sys.exit(main())
