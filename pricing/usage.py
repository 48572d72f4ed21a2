"""Canonical usage of one call, and what bounds it before the call runs.

`input_tokens` is everything the provider counts as input, cached tokens included;
`output_tokens` everything generated, reasoning included. The other token counts are parts of
these two. `units` counts what is priced outside tokens. Providers' meters normalise to this.
"""

from dataclasses import dataclass, field, fields
from operator import attrgetter


@dataclass(slots=True)
class Usage:
    """Counts reported (or estimated) for one call. Unknown usage is `None`, never `Usage()`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0  # part of input
    cache_write_tokens: int = 0  # part of input, every time to live
    cache_write_1h_tokens: int = 0  # part of cache_write_tokens
    reasoning_tokens: int = 0  # part of output
    input_audio_tokens: int = 0  # part of input
    cache_read_audio_tokens: int = 0  # part of cache_read_tokens and of input_audio_tokens
    output_audio_tokens: int = 0  # part of output
    input_image_tokens: int = 0  # part of input
    cache_read_image_tokens: int = 0  # part of cache_read_tokens and of input_image_tokens
    output_image_tokens: int = 0  # part of output
    input_video_tokens: int = 0  # part of input
    units: dict[str, int] = field(default_factory=dict)  # as in `units.UNITS`: "web_search": 3
    service_tier: str = ""  # as echoed in the reply: "flex", "priority", "batch", ...; "" standard
    inference_geo: str = ""
    speed: str = ""
    # > 0: the counts are sums over the requests of a batch, and this is the largest input of one.
    largest_input_tokens: int = 0
    # Passes billed on top of the counts above, each at its own model ("" = the call's model).
    passes: tuple[tuple[str, "Usage"], ...] = ()
    provider_cost_nano: int | None = None  # the provider's own figure, where it gives one

    def as_dict(self) -> dict[str, object]:
        """The fields that differ from their defaults, JSON-ready; `from_dict` is the inverse."""
        out: dict[str, object] = {}
        if self.input_tokens:
            out["input_tokens"] = self.input_tokens
        if self.output_tokens:
            out["output_tokens"] = self.output_tokens
        if self.cache_read_tokens:
            out["cache_read_tokens"] = self.cache_read_tokens
        if self.reasoning_tokens:
            out["reasoning_tokens"] = self.reasoning_tokens
        rare = _rare(self)
        if rare != _NONE_RARE:
            out |= {name: value for name, value in zip(_RARE, rare, strict=True) if value}
        if self.provider_cost_nano is not None:
            out["provider_cost_nano"] = self.provider_cost_nano
        if self.units:
            out["units"] = dict(self.units)
        if self.passes:
            out["passes"] = [[model, usage.as_dict()] for model, usage in self.passes]
        return out

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> "Usage":
        """Build from `as_dict` output. Raises TypeError on an unknown field."""
        data = dict(data)
        passes = data.pop("passes", ())
        usage = cls(**data)  # type: ignore[arg-type]
        usage.passes = tuple((model, cls.from_dict(part)) for model, part in passes)  # type: ignore[attr-defined]
        return usage

    @property
    def total_tokens(self) -> int:
        """Input plus output, passes billed on top included: what token budgets are charged."""
        total = self.input_tokens + self.output_tokens
        for _, part in self.passes:
            total += part.total_tokens
        return total


_USUAL = frozenset(("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"))
# Every field whose default is 0 or "", but those that are often set.
_RARE = tuple(f.name for f in fields(Usage) if f.default in (0, "") and f.name not in _USUAL)
_rare = attrgetter(*_RARE)
_NONE_RARE = _rare(Usage())


@dataclass(slots=True)
class RequestSize:
    """What a request says about the most it can use; the input of a ceiling (docs: ceilings)."""

    body_bytes: int
    output_limit: int | None = None  # the request's own limit on output tokens, per choice
    choices: int = 1  # n / candidateCount / best_of: replies generated for one request
    inputs: int = 1  # independent inputs (embeddings): the window bounds each of them
    inline_images: int = 0  # images inside the body: tokens follow pixels, not bytes
    windowed: bool = False  # content that is not inline: only the context window bounds it
    # Server-side tools: context windows to hold (0 = no such tool; -1 = a tool without a limit of
    # its own: as many as `server_tool_passes`).
    tool_windows: int = 0
    web_searches: int = 0  # the most billable searches the request allows
    generates: bool = True  # False: embeddings, moderations, counts (no output tokens)
    service_tier: str = ""  # as requested; a ceiling takes the dearest tier that may apply
    speed: str = ""  # as requested: "fast" is dearer
    # The most of every other unit a reply may report (`units.UNITS`). A variant is named only
    # where no reply can be billed as another one.
    units: dict[str, int] = field(default_factory=dict)

    @property
    def simple(self) -> bool:
        """Whether it asks for one reply to one text that is all here, and nothing besides."""
        return (
            self.choices == 1
            and self.inputs == 1
            and not self.inline_images
            and not self.windowed
            and not self.tool_windows
            and not self.web_searches
            and not self.units
        )
