"""Loops for asynchronous tests: uvloop, which serves in production, and asyncio's own."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

LoopFactories = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> LoopFactories:
    factories: LoopFactories = {"asyncio": asyncio.new_event_loop}
    if item.path.name.startswith("test_upstream"):
        factories["uvloop"] = uvloop.new_event_loop
    return factories
