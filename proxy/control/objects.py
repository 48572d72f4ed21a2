"""What providers keep, on control's side: workers' questions are answered from the ledger, and
open calls are settled once their final usage is there.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from db.journal_records import Window
from db.ledger_types import FoundObject, Settled
from db.writer import Flush
from pricing.money import usd_from_nano
from proxy.wire import Answer, Ask

log = logging.getLogger(__name__)

WAIT_S = 0.5  # for what is in a journal here and not yet drained,
WAIT_SHARED_S = 2.0  # or in one of another host
LOOK_S = 5.0  # what a host that died has left is settled this soon
ASKS_MAX = 10_000
KEEP_MS = 90 * 24 * 3_600_000  # files and responses that no call refers to

Send = Callable[[Answer], None]


class ObjectLedger(Protocol):
    async def find_object(self, identity: tuple[str, str, str, str]) -> FoundObject | None: ...

    async def settle_open(self) -> tuple[list[Settled], list[str]]: ...

    async def try_again(self) -> None: ...

    async def forget_objects(self, before_ms: int) -> int: ...


@dataclass(slots=True)
class _Asked:
    send: Send
    ask: Ask
    until: float


class Objects:
    def __init__(
        self,
        ledger: ObjectLedger,
        *,
        monotonic: Callable[[], float],
        refresh: Callable[[Iterable[Window]], None],
        shared: bool,
    ) -> None:
        self._ledger = ledger
        self._monotonic = monotonic
        self._refresh = refresh  # windows whose money has changed
        self._wait_s = WAIT_SHARED_S if shared else WAIT_S
        self._asked: list[_Asked] = []
        self._ready = True  # calls of a former life may be
        self._look_at = 0.0

    def on_ask(self, send: Send, ask: Ask) -> None:
        if len(self._asked) >= ASKS_MAX:
            send(Answer(ask.ask_id, found=False, outage=True))
        else:
            self._asked.append(_Asked(send, ask, self._monotonic() + self._wait_s))

    def on_flush(self, flush: Flush) -> None:
        self._ready = self._ready or flush.ready > 0

    def fail(self) -> None:
        """The ledger is out of reach: nobody has to wait for it."""
        asked, self._asked = self._asked, []
        for each in asked:
            each.send(Answer(each.ask.ask_id, found=False, outage=True))

    async def step(self, *, at_once: bool = False) -> None:
        """Answer and settle; `at_once`: whatever was told of it. Raises what the ledger raises;
        then both are tried again."""
        if self._asked:
            await self._answer()
        now = self._monotonic()
        if at_once or self._ready or now >= self._look_at:
            self._look_at = now + LOOK_S
            await self._settle()

    async def _answer(self) -> None:
        """What is not there may be on its way, from another host: it is looked for until its time
        is up."""
        now = self._monotonic()
        for each in list(self._asked):
            ask = each.ask
            found = await self._ledger.find_object(
                (ask.provider, ask.account, ask.kind, ask.object_id)
            )
            if found is None and now < each.until:
                continue
            requests = found.requests if found is not None else None
            each.send(Answer(ask.ask_id, found is not None, requests))
            self._asked.remove(each)

    async def _settle(self) -> None:
        while True:
            settled, problems = await self._ledger.settle_open()
            for problem in problems:
                log.error("cannot settle %s", problem)
            for each in settled:
                if each.change > 0:
                    log.error(
                        "call %s cost %s USD, %s above its ceiling",
                        each.call_id.hex(), usd_from_nano(each.nano), usd_from_nano(each.change),
                    )  # fmt: skip
            self._refresh({window for each in settled for window in each.windows})
            if not settled:
                break
        self._ready = False

    async def housekeeping(self, now_ms: int) -> None:
        """Now and then: a table that a call's price needs may be here by now."""
        await self._ledger.try_again()
        await self._ledger.forget_objects(now_ms - KEEP_MS)
