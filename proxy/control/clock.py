"""Control's clocks: a parameter, so that tests and the simulation can drive it."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    now_ms: Callable[[], int]  # wall clock, unix milliseconds
    monotonic: Callable[[], float]  # seconds


SYSTEM_CLOCK = Clock(now_ms=lambda: time.time_ns() // 1_000_000, monotonic=time.monotonic)


class Due(dict[str, float]):
    """When something is to be done next, by its name; 0: at once."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def now(self, what: str, every_s: float) -> bool:
        """Whether it is time; the next time is `every_s` later."""
        now = self._clock.monotonic()
        if now < self.get(what, 0.0):
            return False
        self[what] = now + every_s
        return True
