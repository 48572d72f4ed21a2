"""Pauses in long work, so that calls which share the core get through.

A low priority alone does not do it: the scheduler takes a core away from a thread after
milliseconds, which is longer than a whole call takes. A thread that sleeps gives it up at once.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

PIECE_S = 0.0001  # of work, between two pauses: added to a call that meets it
PAUSE_S = 0.0004  # longer than a call


class _Pace(threading.local):
    due = float("inf")  # on the clock of `perf_counter`; other threads never pause


_pace = _Pace()


def take_pauses() -> None:
    """From now on the calling thread pauses."""
    _pace.due = 0.0


def pause() -> None:
    """To be called often in long work: sleeps where a pause is due."""
    if time.perf_counter() > _pace.due:
        time.sleep(PAUSE_S)
        _pace.due = time.perf_counter() + PIECE_S


def in_pieces(items: Iterable[T]) -> Iterator[T]:
    for item in items:
        pause()
        yield item


class Pieces(list[T]):
    """A list whose reader, SQLite's driver for one, pauses on its way through it."""

    def __iter__(self) -> Iterator[T]:
        return in_pieces(super().__iter__())
