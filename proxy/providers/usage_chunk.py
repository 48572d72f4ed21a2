"""Withholding the usage chunk the proxy asked for and the client did not."""

import re

from proxy.providers.fields import as_dict
from proxy.providers.meters import SKIP, EventMeter, decode
from proxy.providers.openai_meter import ChatReader, search_usage
from proxy.sse import EVENT_ENDS, event_data, first_event_end, last_event_end

HELD_BYTES_MAX = 2**16  # a usage chunk is far smaller

_search_filled_choices = re.compile(rb'"choices"\s*:\s*\[\s*\{').search


class UsageChunkFilter:
    """Withholds the extra chunk a client did not ask for: `choices` empty, `usage` filled.

    Whole events pass at once. The start of an event is held only until it shows choices.
    """

    __slots__ = ("_edge", "_held", "_passing")

    def __init__(self) -> None:
        self._held = b""  # start of an event that may be the usage chunk
        self._passing = False  # in the middle of an event that is not
        self._edge = b""  # its last bytes: a blank line may straddle the pieces

    def feed(self, data: bytes) -> bytes:
        if not self._passing and not self._held and data.endswith(EVENT_ENDS):
            return self._without_usage_chunk(data) if search_usage(data) else data
        passed = b""
        if self._passing:
            joined = self._edge + data
            end = first_event_end(joined)
            if not end:
                self._edge = joined[-2:]
                return data
            cut = end - len(self._edge)
            passed, data = data[:cut], data[cut:]
            self._passing = False
        return passed + self._feed_held(self._held + data)

    def _feed_held(self, data: bytes) -> bytes:
        end = last_event_end(data)
        block, rest = data[:end], data[end:]
        self._held = b""
        if block and search_usage(block):
            block = self._without_usage_chunk(block)
        if not rest:
            return block
        if len(rest) > HELD_BYTES_MAX or _search_filled_choices(rest):
            self._passing, self._edge = True, rest[-2:]
            return block + rest
        self._held = rest
        return block

    def _without_usage_chunk(self, block: bytes) -> bytes:
        kept, start = [], 0
        while start < len(block):
            end = first_event_end(block, start) or len(block)
            if not _is_usage_chunk(block[start:end]):
                kept.append(block[start:end])
            start = end
        return b"".join(kept)

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return b"" if _is_usage_chunk(held) else held


def _is_usage_chunk(event: bytes) -> bool:
    if not search_usage(event) or _search_filled_choices(event):
        return False
    documents = event_data(event)
    if len(documents) != 1:
        return False
    chunk = as_dict(decode(documents[0]))
    return chunk.get("choices") == [] and bool(as_dict(chunk.get("usage")))


class WithholdingMeter(EventMeter):
    """An event meter that withholds the usage chunk."""

    __slots__ = ("_filter",)

    def __init__(self, reader: ChatReader) -> None:
        super().__init__(reader)
        self._filter = UsageChunkFilter()

    def feed(self, data: bytes) -> bytes:
        block = self._splitter.feed(data)
        need = self._scan(block) if block else SKIP
        if need == SKIP and block is data:
            return data  # whole events, none with usage
        return self._filter.feed(data)

    def finish(self) -> bytes:
        super().finish()
        return self._filter.finish()
