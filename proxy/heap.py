"""The garbage collector of a process that runs for months."""

import gc


def settle_heap(garbage: int) -> None:
    """What is loaded by now stays: the collector need not look at it again, nor look as often as
    it does in a program whose garbage has cycles. `garbage`: objects between two looks."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(garbage, 20, 20)
