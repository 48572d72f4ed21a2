"""The turns of a realtime session, and the money that is held for them.

A provider may begin a turn at any moment, with no word from the client. So a lane keeps a hold
for the next one before it can begin; a turn that begins takes it, and another is asked for at
once. Each hold, and each turn, is a call with a row of its own.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from proxy.call import Call
from proxy.errors import Refusal
from proxy.providers.base import Facts
from proxy.providers.openai_realtime import TurnMeter, suffices

ACTIVE_MAX = 64  # turns that have begun and not ended; the oldest is then given up
ASKED_MAX = 32  # responses that a client has asked for and the provider not begun


class Till(Protocol):
    """Where a turn's money comes from."""

    async def hold(self, facts: Facts) -> Call:
        """Hold the most a turn can cost. Raises Refusal."""

    def charge_unheld(self, facts: Facts) -> Call | None:
        """A turn that has begun without a hold, so that its cost is in a row; None: the journal
        has no room."""

    def begin(self, call: Call, meter: TurnMeter) -> None:
        """The turn begins now."""

    def end(self, call: Call, ending: str) -> None:
        """Journal the settlement and free the hold."""


class Turn:
    """A turn that has begun; `call` is None while it has no hold."""

    __slots__ = ("call", "meter")

    def __init__(self, meter: TurnMeter, call: Call | None) -> None:
        self.meter = meter
        self.call = call


class Lane:
    """Turns of one kind. `changed` is called whenever a hold has come or was refused."""

    def __init__(self, till: Till, facts: Callable[[], Facts], changed: Callable[[], None]) -> None:
        self.refused: Refusal | None = None  # why the next turn has no hold
        self.active: dict[str, Turn] = {}
        self.asked: list[str] = []  # ids of events that will begin a turn each
        self.idle = False  # no turn can begin: nothing is held for one
        self._till = till
        self._facts = facts  # of the next turn
        self._changed = changed
        self._spares: list[Call] = []
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Hold for the first turn. Raises Refusal."""
        self._spares.append(await self._till.hold(self._facts()))

    # --- holds

    @property
    def spare(self) -> Call | None:
        """A hold for the next turn."""
        return self._spares[0] if self._spares else None

    @property
    def covered(self) -> bool:
        """Whether every turn that may begin has its hold."""
        return self._lacking() <= 0

    @property
    def stuck(self) -> bool:
        """Whether nothing but more money lets the session go on: no turn is under way whose end
        could bring some back."""
        if self.refused is None or self.uncovered:
            return self.refused is not None
        awaited = len(self.asked) > 1 and self._sufficient()
        return not self.active and not awaited

    @property
    def uncovered(self) -> list[Turn]:
        """Turns that began without one."""
        return [turn for turn in self.active.values() if turn.call is None]

    def _needed(self) -> int:
        return 0 if self.idle else max(1, len(self.asked))

    def _sufficient(self) -> list[Call]:
        wanted = self._facts()
        return [call for call in self._spares if suffices(_facts_of(call), wanted)]

    def _lacking(self) -> int:
        return len(self.uncovered) + self._needed() - len(self._sufficient())

    def refill(self) -> None:
        """Ask for what is lacking, release what is too much."""
        if self._task is not None:
            return
        self.refused = None
        if self._lacking() > 0:
            self._task = asyncio.get_running_loop().create_task(self._refill())
        else:
            self._release_surplus()

    async def _refill(self) -> None:
        try:
            while self._lacking() > 0:
                self._take(await self._till.hold(self._facts()))
            self._release_surplus()
        except Refusal as refusal:
            self.refused = refusal
        self._task = None
        self._changed()

    def _take(self, call: Call) -> None:
        for turn in self.uncovered:
            turn.call = call
            self._till.begin(call, turn.meter)
            return
        self._spares.append(call)

    def _release_surplus(self) -> None:
        enough = self._sufficient()
        keep = enough[: self._needed()]
        for call in self._spares:
            if call not in keep:
                self._till.end(call, "unused")
        self._spares = keep

    # --- turns

    def begin(self, turn_id: str, meter: TurnMeter) -> None:
        """A turn has begun."""
        if turn_id in self.active:
            return
        if len(self.active) >= ACTIVE_MAX:
            self.end(next(iter(self.active)), "upstream_broken")
        if self.asked:
            self.asked.pop(0)
        enough = self._sufficient() or self._spares
        call = enough[0] if enough else None
        self.active[turn_id] = Turn(meter, call)
        if call is not None:
            self._spares.remove(call)
            self._till.begin(call, meter)
        self.refill()

    def end(self, turn_id: str, ending: str) -> None:
        """A turn has ended, whatever its meter says of it."""
        turn = self.active.pop(turn_id)
        call = turn.call
        if call is None:
            call = self._till.charge_unheld(self._facts())
            if call is None:
                return
            self._till.begin(call, turn.meter)
        self._till.end(call, ending)
        self.refill()  # money has come back

    def end_all(self, ending: str, *, unused: str = "unused") -> None:
        """The session is over."""
        self.idle = True
        if self._task is not None:
            self._task.cancel()
        for turn_id in list(self.active):
            self.end(turn_id, ending)
        spares, self._spares = self._spares, []
        for call in spares:
            self._till.end(call, unused)


def _facts_of(call: Call) -> Facts:
    assert call.facts is not None
    return call.facts
