"""A till for the turns of sessions, with so much money and no clock."""

import asyncio
from typing import Any

from proxy.errors import Refusal
from proxy.providers.base import Facts
from proxy.providers.openai_realtime import TurnMeter
from proxy.realtime_turns import Till


class Hold:
    """What a lane takes for a call."""

    def __init__(self, facts: Facts, *, backed: bool = True) -> None:
        self.facts = facts
        self.backed = backed
        self.meter: TurnMeter | None = None
        self.ending = ""


class FakeTill(Till):
    """Each hold costs 1; what is charged never comes back."""

    def __init__(self, money: int) -> None:
        self.money = money
        self.holds: list[Any] = []  # every one there ever was
        self.slow: asyncio.Event | None = None  # set: the answer may come

    @property
    def open(self) -> list[Any]:
        return [hold for hold in self.holds if not hold.ending]

    async def hold(self, facts: Facts) -> Any:
        await (self.slow.wait() if self.slow is not None else asyncio.sleep(0))
        if self.money < 1:
            raise Refusal("budget_exceeded", "spent")
        self.money -= 1
        return self._added(Hold(facts))

    def charge_unheld(self, facts: Facts) -> Any:
        return self._added(Hold(facts, backed=False))

    def _added(self, hold: Hold) -> Hold:
        self.holds.append(hold)
        return hold

    def begin(self, call: Any, meter: TurnMeter) -> None:
        assert call.meter is None
        call.meter = meter

    def end(self, call: Any, ending: str) -> None:
        assert not call.ending, "ended twice"
        call.ending = ending
        if call.backed and call.meter is None:
            self.money += 1  # unused
        # a turn that has ended has spent what it held

    def give(self, amount: int) -> None:
        self.money += amount


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)
