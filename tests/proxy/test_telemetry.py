"""Calls are told of several at a time, and none is left out for that."""

import asyncio
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import json

from proxy.metrics import CALLS
from proxy.telemetry import LineLog, Telemetry


class Loop:
    """Timers and what runs next are lists: the test runs them."""

    def __init__(self) -> None:
        self.timers: list[Any] = []
        self.soon: list[Any] = []

    def call_soon(self, callback: Any) -> None:
        self.soon.append(callback)

    def call_later(self, delay_s: float, callback: Any) -> Any:
        self.timers.append(callback)
        return SimpleNamespace(cancel=lambda: None)


class Told:
    """A telemetry and what it writes."""

    def __init__(self) -> None:
        self.loop: Any = Loop()
        self.read, write = os.pipe()
        os.set_blocking(self.read, False)
        self.telemetry = Telemetry(self.loop, LineLog(self.loop, write))

    def lines(self) -> list[Any]:
        self.telemetry._log.flush()
        try:
            return [json.decode(line) for line in os.read(self.read, 65_536).splitlines()]
        except BlockingIOError:
            return []


@pytest.fixture
def told() -> Iterator[Told]:
    one = Told()
    yield one
    os.close(one.read)
    os.close(one.telemetry._log._fd)


def a_call(**changes: Any) -> Any:
    """As much of a call as is there when it ends at the door."""
    nothing = ("refusal", "provider", "route", "principal", "facts", "price", "outcome", "held")
    values: dict[str, Any] = dict.fromkeys(nothing) | {
        "state": SimpleNamespace(tracer=None),
        "client": SimpleNamespace(method="POST"),
        "body": b"",
        "request_id": "id",
        "key_name": "",
        "error": "",
        "at_ms": 0,
        "began_ns": 0,
        "first_byte_ns": 0,
        "status": 200,
        "streams": False,
        "meter": None,
    }
    return SimpleNamespace(**values | changes)


def counted(told: Told) -> int:
    return sum(row.values[CALLS] for row in told.telemetry.metrics._rows.values())


def test_several_are_told_of_together(told: Told) -> None:
    for number in range(7):
        told.telemetry.ended(a_call(request_id=str(number)))
    assert told.lines() == []
    assert told.loop.soon == []
    told.telemetry.ended(a_call(request_id="7"))
    told.loop.soon.pop()()
    assert [line["request_id"] for line in told.lines()] == [str(n) for n in range(8)]


def test_the_last_ones_wait_for_a_timer(told: Told) -> None:
    told.telemetry.ended(a_call())
    told.telemetry.ended(a_call())
    assert len(told.loop.timers) == 1
    told.loop.timers.pop()()
    assert len(told.lines()) == 2
    told.telemetry.ended(a_call())
    assert told.telemetry._on_timer in told.loop.timers


def test_the_counts_are_whole_whenever_they_are_asked_for(told: Told) -> None:
    told.telemetry.ended(a_call())
    assert counted(told) == 1
    assert counted(told) == 1


def test_a_large_request_is_not_kept(told: Told) -> None:
    told.telemetry.ended(a_call())
    told.telemetry.ended(a_call(body=bytes(100_000)))
    told.loop.soon.pop()()
    assert len(told.lines()) == 2


def test_one_that_cannot_be_told_of_leaves_the_others(told: Told) -> None:
    told.telemetry.ended(a_call(request_id="bad", outcome="not an outcome"))
    told.telemetry.ended(a_call(request_id="good"))
    assert counted(told) == 1
    problem, line = told.lines()
    assert (problem["event"], problem["request_id"]) == ("internal error", "bad")
    assert line["request_id"] == "good"


def test_the_end_tells_of_all() -> None:
    one = Told()
    one.telemetry.ended(a_call())
    one.telemetry.close()
    assert os.read(one.read, 65_536).count(b"\n") == 1


async def test_a_timer_of_a_running_loop_is_taken() -> None:
    loop, (read, write) = asyncio.get_running_loop(), os.pipe()
    telemetry = Telemetry(loop, LineLog(loop, write))
    telemetry.ended(a_call())
    telemetry.close()
    assert os.read(read, 65_536).endswith(b"}\n")
