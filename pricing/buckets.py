"""Usage split into disjoint buckets, each with one price."""

from typing import NamedTuple

from pricing.usage import Usage


class Buckets(NamedTuple):
    """Token counts that add up to input plus output. The order is that of `rates.Rates`."""

    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    input_audio: int
    input_image: int
    input_video: int
    cache_read_audio: int
    cache_read_image: int
    output: int
    reasoning: int
    output_audio: int
    output_image: int


NAMES = Buckets._fields


def _part(count: int, limit: int) -> int:
    """A reported part of a whole: providers do report parts larger than their whole."""
    if count <= 0:
        return 0
    return count if count < limit else limit


def split(usage: Usage) -> Buckets:
    """Disjoint counts. Never negative, and they always sum to input plus output: what is
    reported beyond a whole is cut, first reads from cache, then writes, audio, image, video."""
    whole = usage.input_tokens if usage.input_tokens > 0 else 0
    read = write = write_1h = read_audio = read_image = 0
    if usage.cache_read_tokens or usage.cache_write_tokens:  # most replies have neither
        read = _part(usage.cache_read_tokens, whole)
        if usage.cache_write_tokens:
            write = _part(usage.cache_write_tokens, whole - read)
            write_1h = _part(usage.cache_write_1h_tokens, write)
        if usage.cache_read_audio_tokens or usage.cache_read_image_tokens:
            read_audio = _part(usage.cache_read_audio_tokens, read)
            read_image = _part(usage.cache_read_image_tokens, read - read_audio)
    fresh = whole - read - write
    audio = image = video = 0
    if usage.input_audio_tokens or usage.input_image_tokens or usage.input_video_tokens:
        audio = _part(usage.input_audio_tokens - read_audio, fresh)
        image = _part(usage.input_image_tokens - read_image, fresh - audio)
        video = _part(usage.input_video_tokens, fresh - audio - image)

    out = usage.output_tokens if usage.output_tokens > 0 else 0
    out_audio = out_image = reasoning = 0
    if usage.output_audio_tokens or usage.output_image_tokens:
        out_audio = _part(usage.output_audio_tokens, out)
        out_image = _part(usage.output_image_tokens, out - out_audio)
    if usage.reasoning_tokens:
        reasoning = _part(usage.reasoning_tokens, out - out_audio - out_image)
    return Buckets(
        fresh - audio - image - video,
        read - read_audio - read_image,
        write - write_1h,
        write_1h,
        audio,
        image,
        video,
        read_audio,
        read_image,
        out - out_audio - out_image - reasoning,
        reasoning,
        out_audio,
        out_image,
    )
