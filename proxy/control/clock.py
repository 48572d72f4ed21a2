"""Control's clocks: a parameter, so that tests and the simulation can drive it."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    now_ms: Callable[[], int]  # wall clock, unix milliseconds
    monotonic: Callable[[], float]  # seconds


SYSTEM_CLOCK = Clock(now_ms=lambda: time.time_ns() // 1_000_000, monotonic=time.monotonic)
