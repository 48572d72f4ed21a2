"""The line of calls that wait for money (protocol section 8).

There is one order: a call is admitted when it is the first in each of its windows and all of
them have the money. So the oldest can wait for nobody younger, and no circle can form.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from proxy.holds import HeldCall, HoldResult, Ticket, refused
from proxy.slices import Slice
from proxy.wire import ANSWER_WAIT_MS, Message, Status, Unwant, Want

ANSWER_WAIT_S = ANSWER_WAIT_MS / 1000


class Timer(Protocol):
    """What a loop's `call_later` returns."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class Line:
    """Waiting calls of one worker, the first come first."""

    def __init__(self, send: Callable[[Message], None], call_later: CallLater) -> None:
        self._send = send
        self._call_later = call_later
        self._tickets: dict[bytes, Ticket] = {}

    # --- one call

    def spent(self, call: HeldCall) -> HoldResult | None:
        """The verdict on a call whose ceiling is more than what is left of a window."""
        for slice_, amount, entry, _ in call.needs:
            left = slice_.left
            if amount and left is not None and amount > left:
                return refused("spent", slice_, amount, entry)
        return None

    async def wait(
        self, call: HeldCall, now_s: float, client_gone: "asyncio.Future[None] | None"
    ) -> HoldResult | None:
        """Wait until the money is there; None: it has been taken."""
        wait_s = min(
            entry.hold_wait_ms if entry.enforce else 0  # for control's answer only
            for slice_, amount, entry, _ in call.needs
            if amount and slice_.lacks(amount)
        )
        ticket = Ticket(call, wait_s / 1000)
        self._enter(ticket, now_s)
        timer = self._call_later(ticket.wait_s, partial(self._expire, ticket))
        leave = partial(self._client_gone, ticket)
        if client_gone is not None:
            client_gone.add_done_callback(leave)
        try:
            await ticket.future
        except asyncio.CancelledError:
            if ticket.admitted:
                call.release()
                self.freed([need[0] for need in call.needs])
            raise
        finally:
            timer.cancel()
            if client_gone is not None:
                client_gone.remove_done_callback(leave)
            self._end(ticket, None)
        assert ticket.admitted or ticket.result is not None
        return ticket.result

    def _enter(self, ticket: Ticket, now_s: float) -> None:
        ticket.deadline_ms = int((now_s + max(ticket.wait_s, ANSWER_WAIT_S)) * 1000)
        lacking = {}
        for slice_, amount in ticket.needs.items():
            slice_.queue[ticket] = amount
            slice_.queued += amount
            slice_.watch()
            lacking[slice_] = min(amount, max(0, slice_.queued - slice_.free))
        self._tickets[ticket.call.call_id] = ticket
        self._ask(ticket, lacking)

    def _ask(self, ticket: Ticket, lacking: dict[Slice, int]) -> None:
        """Tell control what a call lacks, given that the older calls here are served first.

        Again only if that changed, or if money has come since: control took that for the answer.
        """
        granted = [slice_.granted for slice_ in lacking]
        if lacking == ticket.asked and granted == ticket.granted:
            return
        if not ticket.asked and not any(lacking.values()):
            return
        ticket.asked, ticket.granted = lacking, granted
        amounts = [(slice_.window, amount) for slice_, amount in lacking.items() if amount]
        self._send(Want(ticket.call.call_id, amounts, ticket.deadline_ms))

    def _expire(self, ticket: Ticket) -> None:
        if ticket.call.call_id not in self._tickets:
            return
        if ticket.answered or not ticket.asked:
            self._end(ticket, ticket.busy())
        elif ticket.wait_s < ANSWER_WAIT_S and not ticket.expired:
            ticket.expired = True
            rest_s = ANSWER_WAIT_S - ticket.wait_s
            self._call_later(rest_s, partial(self._expire, ticket))
        else:  # control stalls, or its ledger does
            self._end(ticket, HoldResult("outage"))

    def _client_gone(self, ticket: Ticket, _: object) -> None:
        self._end(ticket, HoldResult("gone"))

    # --- everybody

    def freed(self, slices: list[Slice]) -> None:
        """Money or knowledge of these windows has changed: admit and refuse who can be."""
        self._wake(slices)
        out: list[Ticket] = []
        for slice_ in slices:
            left = slice_.left
            if left is not None:
                out += [ticket for ticket, amount in slice_.queue.items() if amount > left]
        for ticket in out:
            self._remove(ticket, self.spent(ticket.call))
        if out:
            self._wake([slice_ for ticket in out for slice_ in ticket.needs])
        self.give_back([slice_ for slice_ in slices if slice_.scarce or slice_.retired])

    def answered(self, call_ids: list[bytes]) -> None:
        """Control has replied to these wants, whatever it gave."""
        for call_id in call_ids:
            ticket = self._tickets.get(call_id)
            if ticket is None:  # control heard of it again, after its end: others would wait for it
                self._send(Unwant(call_id))
                continue
            ticket.answered = True
            if ticket.expired:
                self._end(ticket, ticket.busy())

    def end_answered(self, result: HoldResult) -> None:
        """Control can give these calls no more than it has."""
        for ticket in [ticket for ticket in self._tickets.values() if ticket.answered]:
            self._end(ticket, result)

    def end_all(self, result: HoldResult) -> None:
        for ticket in list(self._tickets.values()):
            self._remove(ticket, result)

    def report(self, slice_: Slice) -> None:
        """Control tells of a window that somebody reports from."""
        self._send(Status([slice_.status()]))

    def surplus(self, slice_: Slice) -> int:
        """What is free and not needed by the first in line. Near the end of a window only the
        oldest call of all keeps money; if it waits elsewhere, all of ours goes to it."""
        if not slice_.queue or self._yields(slice_):
            return slice_.free
        return max(0, slice_.free - next(iter(slice_.queue.values())))

    def give_back(self, slices: Iterable[Slice]) -> None:
        """Return what nobody here may use, at once."""
        entries = []
        for slice_ in slices:
            surplus = self.surplus(slice_)
            if surplus:
                slice_.give_back(surplus)
                entries.append(slice_.status())
        if entries:
            self._send(Status(entries))

    def _yields(self, slice_: Slice) -> bool:
        """Whether the oldest call that needs this window waits elsewhere."""
        return slice_.scarce and bool(slice_.oldest) and slice_.oldest not in self._tickets

    def _wake(self, slices: list[Slice]) -> None:
        """Admit from the heads of these lines until nobody can be admitted any more."""
        pending = list(slices)
        while pending:
            slice_ = pending.pop()
            while slice_.queue:
                head = next(iter(slice_.queue))
                if all(self._has(head, each, amount) for each, amount in head.needs.items()):
                    head.call.take()
                    head.admitted = True
                    self._remove(head, None)
                else:
                    self._ask(head, self._lacking(head))
                    break
                pending += [each for each in head.needs if each is not slice_]

    def _has(self, ticket: Ticket, slice_: Slice, amount: int) -> bool:
        first = next(iter(slice_.queue)) is ticket
        return first and slice_.free >= amount and not self._yields(slice_)

    def _lacking(self, ticket: Ticket) -> dict[Slice, int]:
        """What a call lacks now, where it is the first; where it is not, what it lacked before."""
        lacking = {}
        for slice_, amount in ticket.needs.items():
            if next(iter(slice_.queue)) is ticket:
                free = 0 if self._yields(slice_) else slice_.free
                lacking[slice_] = max(0, amount - free)
            else:
                lacking[slice_] = ticket.asked.get(slice_, 0)
        return lacking

    def _end(self, ticket: Ticket, result: HoldResult | None) -> None:
        """Take a call out of the line; those behind it move up."""
        if self._remove(ticket, result):
            self._wake(list(ticket.needs))

    def _remove(self, ticket: Ticket, result: HoldResult | None) -> bool:
        if self._tickets.pop(ticket.call.call_id, None) is None:
            return False
        for slice_ in ticket.needs:
            slice_.queued -= slice_.queue.pop(ticket)
            slice_.watch()
            if slice_.oldest == ticket.call.call_id:  # who is next, control will tell
                slice_.oldest = b""
        if ticket.asked:
            self._send(Unwant(ticket.call.call_id))
        ticket.result = result
        if not ticket.future.done():
            ticket.future.set_result(None)
        return True
