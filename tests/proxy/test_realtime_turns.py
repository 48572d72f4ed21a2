"""Lanes: a hold before every turn, each ended exactly once."""

import pytest

from proxy.errors import Refusal
from proxy.providers.base import Facts
from proxy.providers.openai_realtime import Heard, Limit, TurnMeter, answer_facts
from proxy.realtime_turns import ACTIVE_MAX, Lane
from tests.proxy.tills import FakeTill, settled


class Desk:
    """A lane with its till; the limit of the next turn may change."""

    def __init__(self, money: int) -> None:
        self.till = FakeTill(money)
        self.limit: Limit = 100
        self.changes = 0
        self.lane = Lane(self.till, self._facts, self._changed)

    def _facts(self) -> Facts:
        return answer_facts("m", self.limit)

    def _changed(self) -> None:
        self.changes += 1

    def begin(self, name: str) -> None:
        self.lane.begin(name, TurnMeter("m", name, Heard()))

    def endings(self) -> list[str]:
        return [hold.ending for hold in self.till.holds]


async def opened(money: int) -> Desk:
    desk = Desk(money)
    await desk.lane.open()
    return desk


async def test_nothing_opens_without_money() -> None:
    with pytest.raises(Refusal):
        await opened(0)


async def test_a_turn_takes_the_spare_and_another_one_is_asked_for() -> None:
    desk = await opened(5)
    assert desk.lane.covered
    desk.begin("r1")
    assert not desk.lane.covered
    await settled()
    assert (desk.lane.covered, desk.changes, len(desk.till.open)) == (True, 1, 2)
    desk.lane.end("r1", "complete")
    desk.lane.end_all("cut")
    assert desk.endings() == ["complete", "unused"]


async def test_without_money_for_the_next_the_turn_in_progress_goes_on() -> None:
    desk = await opened(1)
    desk.begin("r1")
    await settled()
    assert desk.lane.refused is not None
    assert not desk.lane.stuck
    desk.lane.end("r1", "complete")
    await settled()
    assert desk.lane.stuck
    desk.till.give(1)
    desk.lane.refill()
    await settled()
    assert not desk.lane.stuck
    assert desk.lane.covered


async def test_a_turn_without_a_hold_gets_the_next_one() -> None:
    desk = await opened(3)
    desk.begin("r1")
    desk.begin("r2")  # before the next hold has come
    assert [turn.call for turn in desk.lane.uncovered] == [None]
    await settled()
    assert desk.lane.uncovered == []
    desk.lane.end("r2", "complete")
    desk.lane.end("r1", "complete")
    desk.lane.end_all("cut")
    assert [hold.backed for hold in desk.till.holds] == [True] * 3
    assert desk.endings() == ["complete", "complete", "unused"]


async def test_a_turn_without_a_hold_is_charged_all_the_same() -> None:
    desk = await opened(1)
    desk.begin("r1")
    desk.begin("r2")
    await settled()
    assert desk.lane.stuck  # at once, whatever is under way
    desk.lane.end_all("cut")
    assert desk.endings() == ["cut", "cut"]
    assert [hold.backed for hold in desk.till.holds] == [True, False]


async def test_every_response_asked_for_has_its_hold() -> None:
    desk = await opened(3)
    desk.lane.asked += ["e1", "e2", "e3"]
    desk.lane.refill()
    assert not desk.lane.covered
    await settled()
    assert desk.lane.covered
    desk.lane.asked.pop()
    desk.lane.refill()  # the provider refused one: its hold is released
    assert sorted(desk.endings()) == ["", "", "unused"]
    assert len(desk.till.open) == 2


async def test_what_is_no_longer_asked_for_was_not_refused() -> None:
    desk = await opened(1)
    desk.lane.asked += ["e1", "e2"]
    desk.lane.refill()
    await settled()
    assert desk.lane.refused is not None
    assert not desk.lane.stuck  # the first one may begin, and end
    desk.lane.asked.pop()
    desk.lane.refill()
    assert desk.lane.covered
    assert not desk.lane.stuck


async def test_a_raised_limit_needs_a_larger_hold() -> None:
    desk = await opened(2)
    desk.limit = 200
    assert not desk.lane.covered
    desk.lane.refill()
    await settled()
    assert desk.lane.covered
    assert desk.endings() == ["unused", ""]
    desk.limit = 50  # a larger one is kept
    desk.lane.refill()
    assert desk.lane.covered
    assert len(desk.till.holds) == 2


async def test_a_turn_that_begins_during_an_exchange_takes_what_there_is() -> None:
    desk = await opened(5)
    desk.limit = 200
    desk.lane.refill()
    desk.begin("r1")  # under the limit before
    await settled()
    assert desk.lane.uncovered == []
    assert desk.till.holds[0].meter is not None
    desk.lane.end_all("cut")
    assert set(desk.endings()) == {"cut", "unused"}


async def test_turns_that_never_end_are_given_up() -> None:
    desk = await opened(ACTIVE_MAX + 10)
    for number in range(ACTIVE_MAX + 1):
        desk.begin(f"r{number}")
        await settled()
    assert len(desk.lane.active) == ACTIVE_MAX
    assert desk.endings().count("upstream_broken") == 1


async def test_an_idle_lane_holds_nothing() -> None:
    desk = await opened(2)
    desk.lane.idle = True
    desk.lane.refill()
    assert desk.till.open == []
    assert desk.lane.covered


async def test_the_same_turn_begins_once() -> None:
    desk = await opened(5)
    desk.begin("r1")
    desk.begin("r1")
    await settled()
    assert len(desk.lane.active) == 1


async def test_the_end_while_a_hold_is_on_its_way() -> None:
    desk = await opened(5)
    desk.begin("r1")
    desk.lane.end_all("client_gone")
    await settled()
    assert desk.endings() == ["client_gone"]
    assert desk.till.open == []
