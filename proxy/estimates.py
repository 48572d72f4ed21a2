"""Usage of a call whose reply did not say (section 7 of the design): an estimate, marked as such.

Input: text bytes of the request / 4, plus a usual image for each inline one. Output: what was
delivered. Where the reply gave provisional counts they are lower bounds. The caller cuts the
result component-wise to the ceiling's usage, so an estimate never costs more than its hold.
"""

from dataclasses import replace

from pricing.units import base_of
from pricing.usage import Usage
from proxy.providers.base import Facts, Reading

BYTES_PER_TOKEN = 4
TOKENS_PER_IMAGE = 1000
# Keys of media and opaque data: their bytes are not text.
_OPAQUE = frozenset(
    (
        *("data", "url", "image_url", "file_data", "encrypted_content", "signature"),
        *("thoughtSignature", "thought_signature", "result"),
    )
)


_INPUTS = (
    *("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    *("input_audio_tokens", "cache_read_audio_tokens", "input_image_tokens"),
    *("cache_read_image_tokens", "input_video_tokens"),
)
_OUTPUTS = ("output_tokens", "reasoning_tokens", "output_audio_tokens", "output_image_tokens")


def cut_to(usage: Usage, bound: Usage) -> Usage:
    """An estimate within a ceiling's usage: no total above the ceiling's, no part above its
    total, no pass on top. What it costs at any rate is then at most the hold."""
    cut = replace(usage, passes=())
    for name in _INPUTS:
        setattr(cut, name, min(getattr(usage, name), bound.input_tokens))
    for name in _OUTPUTS:
        setattr(cut, name, min(getattr(usage, name), bound.output_tokens))
    cut.units = {}
    for name, count in usage.units.items():
        within = bound.units.get(name) or bound.units.get(base_of(name))
        if not within and name == "milliseconds":
            within = bound.units.get("seconds", 0) * 1_000
        if within:
            cut.units[name] = min(count, within)
    return cut


def estimated_usage(facts: Facts, reading: Reading | None) -> Usage:
    """Usage to charge when `reading` is not a full report: its usage is None or partial; `reading`
    itself is None when no head of an answer came."""
    delivered = 0
    if reading is not None and facts.size.generates:
        delivered = reading.delivered_output_tokens
    if reading is not None and reading.usage is not None:
        return replace(reading.usage, output_tokens=max(reading.usage.output_tokens, delivered))
    if facts.estimate is not None:
        return facts.estimate
    tokens = -(-_text_bytes(facts.body) // BYTES_PER_TOKEN)
    return Usage(
        input_tokens=tokens + TOKENS_PER_IMAGE * facts.size.inline_images,
        output_tokens=delivered,
    )


def _text_bytes(body: dict[str, object]) -> int:
    total = 0
    stack: list[object] = [body]
    while stack:
        value = stack.pop()
        if type(value) is dict:
            for key, inner in value.items():
                if type(inner) is str:
                    if key not in _OPAQUE:
                        total += len(inner.encode("utf-8", "replace"))
                else:
                    stack.append(inner)
        elif type(value) is list:
            if value and type(value[0]) is int:
                total += BYTES_PER_TOKEN * len(value)  # token ids
            else:
                stack.extend(value)
        elif type(value) is str:
            total += len(value.encode("utf-8", "replace"))
    return total
