"""A worker's windows while its clock goes on, jumps and goes back, across changes of clocks."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from proxy.slices import WindowClock
from proxy.windows import FOREVER, PERIODS, current_window
from tests.factories import a_budget
from tests.proxy.test_windows import ZONES, transitions

STEPS_S = (1, 59, 60, 1_799, 1_800, 3_599, 3_600, 3_601, 86_399, 86_400, 604_800, 2_678_400)
HORIZON = (int(datetime(2006, 1, 1, tzinfo=UTC).timestamp()), 2_082_758_400)


class WindowMachine(RuleBasedStateMachine):
    """One budget. `seen`: each window ever computed, by its start."""

    @initialize(
        period=st.sampled_from([p for p in PERIODS if p != "request"]),
        zone=st.sampled_from(ZONES),
        week_start=st.integers(0, 6),
        month_day=st.integers(1, 31),
        now=st.sampled_from(transitions) | st.integers(*HORIZON),
    )
    def begin(self, period: str, zone: str, week_start: int, month_day: int, now: int) -> None:
        self.entry = a_budget(
            period=period, timezone=zone, week_start=week_start, month_day=month_day
        )
        self.clock = WindowClock(self.entry)
        self.now = now
        self.seen: dict[int, int] = {}
        self._look()

    def _look(self) -> None:
        """As a worker does at an admission."""
        self.now = min(max(self.now, HORIZON[0]), HORIZON[1])
        if not self.clock.starts_at <= self.now < self.clock.ends_at:
            window = self.clock.roll(self.now)
            assert window == (self.entry.id, self.clock.starts_at)
        start, end = self.clock.starts_at, self.clock.ends_at
        assert self.seen.setdefault(start, end) == end, "a window has one end"

    @rule(seconds=st.sampled_from(STEPS_S))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self._look()

    @rule(seconds=st.sampled_from(STEPS_S))
    def the_clock_is_set_back(self, seconds: int) -> None:
        self.now -= seconds
        self._look()

    @rule()
    def the_window_ends(self) -> None:
        """The first second of the next one."""
        before = self.clock.ends_at
        if before >= FOREVER or before > HORIZON[1]:
            return
        self.now = before
        self._look()
        assert self.clock.starts_at == before

    @rule()
    def the_second_before_the_window(self) -> None:
        start = self.clock.starts_at
        if start <= HORIZON[0]:
            return
        self.now = start - 1
        self._look()
        assert self.clock.ends_at == start

    @rule(change=st.sampled_from(transitions), seconds=st.integers(-7_200, 7_200))
    def near_a_change_of_clocks(self, change: int, seconds: int) -> None:
        self.now = change + seconds
        self._look()

    @invariant()
    def now_is_in_the_window_that_is_computed_afresh(self) -> None:
        if not hasattr(self, "clock"):
            return
        entry: Any = self.entry
        fresh = current_window(
            entry.period, entry.timezone, entry.week_start, entry.month_day, self.now + 0.5
        )
        assert (self.clock.starts_at, self.clock.ends_at) == fresh
        assert fresh[0] <= self.now < fresh[1]

    @invariant()
    def windows_do_not_overlap(self) -> None:
        if not hasattr(self, "seen"):
            return
        last = -1
        for start, end in sorted(self.seen.items()):
            assert last <= start < end
            last = end


class TestWindowMachine(WindowMachine.TestCase):
    settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
