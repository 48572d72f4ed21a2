from hypothesis import given
from hypothesis import strategies as st

from pricing.buckets import NAMES, split
from pricing.rates import Rates
from pricing.usage import Usage

ANY_COUNT = st.integers(-1_000, 5_000)
TOKEN_FIELDS = [name for name in Usage.__dataclass_fields__ if name.endswith("_tokens")]


@given(st.fixed_dictionaries(dict.fromkeys(TOKEN_FIELDS, ANY_COUNT)))
def test_buckets_are_disjoint_whatever_a_provider_reports(counts: dict[str, int]) -> None:
    buckets = split(Usage(**counts))
    assert min(buckets) >= 0
    assert sum(buckets[:9]) == max(counts["input_tokens"], 0)
    assert sum(buckets[9:]) == max(counts["output_tokens"], 0)


@given(st.fixed_dictionaries({name: st.integers(0, 100) for name in NAMES}))
def test_consistent_usage_is_split_as_reported(parts: dict[str, int]) -> None:
    read = parts["cache_read"] + parts["cache_read_audio"] + parts["cache_read_image"]
    write = parts["cache_write"] + parts["cache_write_1h"]
    fresh = sum(parts[name] for name in ("input", "input_audio", "input_image", "input_video"))
    outputs = ("output", "reasoning", "output_audio", "output_image")
    usage = Usage(
        input_tokens=read + write + fresh,
        output_tokens=sum(parts[name] for name in outputs),
        cache_read_tokens=read,
        cache_write_tokens=write,
        cache_write_1h_tokens=parts["cache_write_1h"],
        reasoning_tokens=parts["reasoning"],
        input_audio_tokens=parts["input_audio"] + parts["cache_read_audio"],
        cache_read_audio_tokens=parts["cache_read_audio"],
        output_audio_tokens=parts["output_audio"],
        input_image_tokens=parts["input_image"] + parts["cache_read_image"],
        cache_read_image_tokens=parts["cache_read_image"],
        output_image_tokens=parts["output_image"],
        input_video_tokens=parts["input_video"],
    )
    assert split(usage)._asdict() == parts


def test_more_cached_than_prompt_is_cut_to_the_prompt() -> None:
    # Azure-hosted Grok reports 161 cached tokens of a prompt of 10.
    buckets = split(Usage(input_tokens=10, cache_read_tokens=161, output_tokens=5))
    assert (buckets.input, buckets.cache_read, buckets.output) == (0, 10, 5)


def test_rates_have_the_order_of_buckets() -> None:
    assert Rates._fields == NAMES
