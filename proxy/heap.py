"""Memory of a process that runs for months, and of one that starts: collector and allocator."""

import ctypes
import gc
from contextlib import suppress

M_ARENA_MAX = -8  # of mallopt(3)


def share_one_arena() -> None:
    """Of the C library's allocator: its default, one for each thread, keeps megabytes of freed
    memory apart. Threads here rarely allocate at the same time. To be called before they start."""
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def loading() -> None:
    """What is made while a process starts is kept: to look for garbage in it, again and again,
    takes a tenth of the start. `settle_heap` ends this."""
    gc.disable()


def look_rarely(garbage: int) -> None:
    """`garbage`: objects between two looks."""
    gc.set_threshold(garbage, 20, 20)


def settle_heap(garbage: int) -> None:
    """What is loaded by now stays: the collector need not look at it again, nor look as often as
    it does in a program whose garbage has cycles. What the start has freed goes back."""
    gc.enable()
    gc.collect()
    gc.freeze()
    look_rarely(garbage)
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
