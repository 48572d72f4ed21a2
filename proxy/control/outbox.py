"""What each worker is told next: only what it does not know yet, in one message."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from db.journal_records import Window
from proxy.control.slices import WindowState
from proxy.wire import Room, Slices

Send = Callable[[Slices], None]


@dataclass(slots=True)
class _Letter:
    windows: set[Window] = field(default_factory=set)
    answered: list[bytes] = field(default_factory=list)


class Outbox:
    def __init__(self, windows: Mapping[Window, WindowState]) -> None:
        self.full = False  # the journal's disk has no room for more calls
        self._windows = windows
        self._workers: dict[bytes, Send] = {}
        self._letters: dict[bytes, _Letter] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def __contains__(self, journal_id: bytes) -> bool:
        return journal_id in self._workers

    def attach(self, journal_id: bytes, send: Send, *, outage: bool) -> None:
        self._workers[journal_id] = send
        self._letters[journal_id] = _Letter()
        if outage or self.full:
            send(Slices([], [], [], outage, self.full))

    def detach(self, journal_id: bytes) -> None:
        self._workers.pop(journal_id, None)
        self._letters.pop(journal_id, None)

    def tell(self, journal_id: bytes, window: Window) -> None:
        """Something about a worker's window may be new to it."""
        letter = self._letters.get(journal_id)
        if letter is not None:
            letter.windows.add(window)

    def tell_all(self, state: WindowState) -> None:
        for journal_id in state.slices:
            self.tell(journal_id, state.window)

    def answer(self, journal_id: bytes, call_id: bytes, windows: list[Window]) -> None:
        letter = self._letters.get(journal_id)
        if letter is not None:
            letter.answered.append(call_id)
            letter.windows.update(windows)

    def send(self, *, outage: bool, everybody: bool = False) -> None:
        for journal_id, letter in list(self._letters.items()):
            message = Slices([], [], letter.answered, outage, self.full)
            for window in sorted(letter.windows):
                state = self._windows.get(window)
                if state is not None and journal_id in state.slices:
                    _add_news(message, state, journal_id)
            if everybody or message.granted or message.room or message.answered:
                self._workers[journal_id](message)
            self._letters[journal_id] = _Letter()


def _add_news(message: Slices, state: WindowState, journal_id: bytes) -> None:
    slice_ = state.slices[journal_id]
    if slice_.granted != slice_.told_granted:
        slice_.told_granted = slice_.granted
        message.granted.append((state.window, slice_.granted))
    if not state.known:
        return
    free = state.room + max(state.pool, 0)
    room = Room(
        window=state.window,
        limit=state.limit,
        spent=state.spent_total,
        committed=state.committed,
        free=free,
        scarce=state.scarce or state.over_limit,
        oldest=state.oldest,
        drained=slice_.consumed,
    )
    if room != slice_.told_room:
        slice_.told_room = room
        message.room.append(room)
