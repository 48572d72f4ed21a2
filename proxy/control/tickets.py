"""Calls that wait for money, the first come first: on this host, and among all hosts.

A ticket ends when its worker says so (admitted, refused, client gone), when the worker is gone, or
when its time is up; being granted money does not end it. Until then it keeps its place, so a call
that has to ask again stands where it stood.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from db.journal_records import Window
from db.ledger_types import OpenTicket
from proxy.wire import Want

GRACE_MS = 1_000  # a worker ends its own wants; this is for one that does not
TICKETS_MAX = 100_000
IGNORED_MAX = 10_000


@dataclass(slots=True)
class Ticket:
    journal_id: bytes
    call_id: bytes
    lacks: dict[Window, int]  # its windows; 0: granted, or there already
    deadline_ms: int
    number: int = 0  # its place among all hosts; 0: none, it has not had to wait for others
    answered: bool = False
    spent: bool = False  # a window cannot pay for it any more, as far as is known

    @property
    def waits(self) -> bool:
        return not self.spent and any(self.lacks.values())

    def is_behind(self, other: OpenTicket | None, epoch_id: int) -> bool:
        """Whether a ticket of another host is older than this one, of `epoch_id`."""
        if other is None:
            return False
        return not self.number or (self.number, epoch_id) > other


class Tickets:
    """Those of one host, the oldest first."""

    def __init__(self) -> None:
        self._tickets: dict[bytes, Ticket] = {}  # by call
        self._number = 0  # the highest that was given or seen

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets.values())

    @property
    def waiting(self) -> int:
        return sum(ticket.waits for ticket in self)

    def want(self, journal_id: bytes, want: Want) -> Ticket | None:
        """Again for the same call: the amounts are new, the place is kept. None: too many."""
        ticket = self._tickets.get(want.call_id)
        if ticket is None:
            if len(self._tickets) >= TICKETS_MAX:
                return None
            ticket = Ticket(journal_id, want.call_id, {}, want.deadline_ms)
            self._tickets[want.call_id] = ticket
        ticket.lacks = dict.fromkeys(ticket.lacks, 0) | dict(want.amounts)
        ticket.answered = ticket.spent = False
        return ticket

    def end(self, call_id: bytes) -> None:
        self._tickets.pop(call_id, None)

    def end_of(self, journal_id: bytes) -> None:
        """A worker is gone."""
        self._keep(lambda ticket: ticket.journal_id != journal_id)

    def expire(self, now_ms: int) -> None:
        self._keep(lambda ticket: ticket.deadline_ms + GRACE_MS >= now_ms)

    def _keep(self, wanted: Callable[[Ticket], bool]) -> None:
        self._tickets = {id_: each for id_, each in self._tickets.items() if wanted(each)}

    def lacking(self) -> dict[Window, int]:
        """What all of them lack together."""
        lacking: dict[Window, int] = {}
        for ticket in self:
            if not ticket.spent:
                for window, amount in ticket.lacks.items():
                    if amount:
                        lacking[window] = lacking.get(window, 0) + amount
        return lacking

    def firsts(self, *, waiting: bool = False) -> dict[Window, Ticket]:
        """The oldest in each window, be it that it has been granted what it lacked; `waiting`: of
        those that have not."""
        firsts: dict[Window, Ticket] = {}
        for ticket in self:
            if ticket.waits if waiting else not ticket.spent:
                for window in ticket.lacks:
                    firsts.setdefault(window, ticket)
        return firsts

    # --- among hosts

    def saw(self, number: int) -> None:
        """Another host has given this number."""
        self._number = max(self._number, number)

    def number(self) -> None:
        """Give those that wait a place behind all that are known, in their order: so there is one
        order over all windows and hosts, and nobody can wait in a circle."""
        for ticket in self:
            if not ticket.number and ticket.waits:
                self._number += 1
                ticket.number = self._number


@dataclass(slots=True)
class _Seen:
    ticket: OpenTicket
    since_ms: int


class Others:
    """Who is first among the other hosts. One that stays first for longer than any call may wait
    is of a host that is gone or stalls: it is passed over, and only order is lost."""

    def __init__(self) -> None:
        self.ignored: set[OpenTicket] = set()
        self.patience_ms = 0
        self._seen: dict[Window, _Seen] = {}

    def first(self, window: Window, ticket: OpenTicket | None, now_ms: int) -> OpenTicket | None:
        """`ticket`, unless it has stood still for too long."""
        if ticket is None:
            self._seen.pop(window, None)
            return None
        seen = self._seen.get(window)
        if seen is None or seen.ticket != ticket:
            self._seen[window] = _Seen(ticket, now_ms)
        elif now_ms - seen.since_ms > self.patience_ms:
            if len(self.ignored) >= IGNORED_MAX:
                self.ignored.clear()
            self.ignored.add(ticket)
            del self._seen[window]
            return None
        return ticket

    def oldest(self, tickets: list[OpenTicket]) -> OpenTicket | None:
        return min((each for each in tickets if each not in self.ignored), default=None)
