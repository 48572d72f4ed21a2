"""The garbage collector: of a process that runs for months, of one that starts."""

import gc


def loading() -> None:
    """What is made while a process starts is kept: to look for garbage in it, again and again,
    takes a tenth of the start. `settle_heap` ends this."""
    gc.disable()


def look_rarely(garbage: int) -> None:
    """`garbage`: objects between two looks."""
    gc.set_threshold(garbage, 20, 20)


def settle_heap(garbage: int) -> None:
    """What is loaded by now stays: the collector need not look at it again, nor look as often as
    it does in a program whose garbage has cycles."""
    gc.enable()
    gc.collect()
    gc.freeze()
    look_rarely(garbage)
