"""What calls to a model have really used: the smaller hold of soft budgets (`hold: learned`).

The most tokens seen lately, twice over: above the 99.9th percentile of a steady flow of calls.
A call may need more, which is then booked as overage and flagged. Measurements: docs, ceilings.
"""

from collections import OrderedDict

from pricing.ceiling import Ceiling, ceiling_cost
from pricing.price import Price
from pricing.usage import RequestSize, Usage

REPLIES_MIN = 20  # before anything is said of a model
REPLIES_KEPT = 1_000  # the most a maximum looks back, and at least half of it
MODELS_MAX = 1_000  # the one that was not called for longest is forgotten
SLACK = 2
FIXED_BYTES = 500  # of a request, whose tokens do not follow its size
_SCALE = 1 << 20


class Learned:
    """One worker's statistics by price key. `observe` and `hold` are O(1)."""

    def __init__(self, replies_min: int = REPLIES_MIN) -> None:
        self._replies_min = replies_min
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def observe(self, key: str, size: RequestSize, usage: Usage) -> None:
        """Take note of the reported usage of a call that has ended."""
        if not _is_text(size):
            return
        seen = self._seen.get(key)
        if seen is None:
            if len(self._seen) >= MODELS_MAX:
                self._seen.popitem(last=False)
            seen = self._seen[key] = _Seen()
        else:
            self._seen.move_to_end(key)
        rate = usage.input_tokens * _SCALE // (size.body_bytes + FIXED_BYTES) + 1
        output = -(-usage.output_tokens // max(size.choices, 1))
        seen.rate = max(seen.rate, rate)
        seen.output = max(seen.output, output)
        # A reply cut short by its limit does not tell how long others get.
        if size.output_limit is None or output < size.output_limit:
            seen.replies += 1
            if seen.replies % (REPLIES_KEPT // 2) == 0:
                seen.turn()

    def hold(self, size: RequestSize, price: Price, bound: Ceiling) -> Ceiling | None:
        """What calls like this have needed, within `bound`, the call's ceiling. None: too few
        are known, or the body does not tell the size of the input."""
        seen = self._seen.get(price.name)
        if seen is None or seen.replies < self._replies_min or not _is_text(size):
            return None
        rate, output = max(seen.rate, seen.former_rate), max(seen.output, seen.former_output)
        tokens_in = SLACK * rate * (size.body_bytes + FIXED_BYTES) // _SCALE
        tokens_out = SLACK * output * max(size.choices, 1)
        usage = Usage(
            input_tokens=min(tokens_in, bound.usage.input_tokens),
            output_tokens=min(tokens_out, bound.usage.output_tokens),
            service_tier=size.service_tier,
            speed=size.speed,
        )
        total = usage.input_tokens + usage.output_tokens
        return Ceiling(ceiling_cost(usage, price), total, usage)


class _Seen:
    """Maxima of the current block of replies and of the one before."""

    __slots__ = ("former_output", "former_rate", "output", "rate", "replies")

    def __init__(self) -> None:
        self.replies = 0
        self.rate = 0  # input tokens per byte of body and FIXED_BYTES, in 1 / _SCALE
        self.output = 0  # tokens of one choice
        self.former_rate = 0
        self.former_output = 0

    def turn(self) -> None:
        self.former_rate, self.former_output = self.rate, self.output
        self.rate = self.output = 0


def _is_text(size: RequestSize) -> bool:
    """Whether the body's length says how long the input is."""
    beyond = size.inline_images or size.web_searches or size.units
    return not (size.windowed or size.tool_windows or beyond)
