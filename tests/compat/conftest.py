"""A running Tollkeeper, the packages around it and a scripted provider behind it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.compat.answers import WEATHER, play_tool
from tests.compat.programs import Program
from tests.replay import ReplayServer
from tests.sdk import conftest as sdk
from tests.sdk.conftest import Harness

provider, running, tollkeeper = sdk.provider, sdk.running, sdk.tollkeeper
Run = Callable[..., Any]


@pytest.fixture(scope="session")
def programs() -> Iterator[dict[str, Program]]:
    """Started drivers, by file name."""
    started: dict[str, Program] = {}
    yield started
    for program in started.values():
        program.stop()


@pytest.fixture
def run(programs: dict[str, Program]) -> Run:
    """`run(client, work, origin, key, **changes)`: what a package gives, or raises."""

    def run(client: Any, work: str, origin: str, key: str, **changes: str) -> Any:
        if client.driver not in programs:
            programs[client.driver] = Program(client.driver, client.package)
        return programs[client.driver].run(client.job(work, origin, key, **changes))

    return run


@pytest.fixture
def tools(tollkeeper: Harness, provider: ReplayServer) -> Harness:
    """A provider that calls the tool it is told of."""
    play_tool(provider, WEATHER)
    return tollkeeper
