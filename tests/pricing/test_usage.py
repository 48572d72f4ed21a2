import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.usage import Usage

COUNTS = st.integers(0, 10**9)
PARTS = st.builds(
    Usage,
    input_tokens=COUNTS,
    output_tokens=COUNTS,
    cache_read_tokens=COUNTS,
    reasoning_tokens=COUNTS,
    units=st.dictionaries(st.sampled_from(["web_search", "image"]), COUNTS),
    service_tier=st.sampled_from(["", "flex"]),
    provider_cost_nano=st.none() | COUNTS,
)
USAGES = st.builds(
    lambda usage, passes: _with_passes(usage, tuple(passes)),
    PARTS,
    st.lists(st.tuples(st.sampled_from(["", "model-2"]), PARTS), max_size=3),
)


def _with_passes(usage: Usage, passes: tuple[tuple[str, Usage], ...]) -> Usage:
    usage.passes = passes
    return usage


@given(USAGES)
def test_a_dict_of_usage_survives_json(usage: Usage) -> None:
    assert Usage.from_dict(json.loads(json.dumps(usage.as_dict()))) == usage


def test_a_dict_of_usage_holds_only_what_was_said() -> None:
    assert Usage(input_tokens=3, units={"web_search": 1}).as_dict() == {
        "input_tokens": 3,
        "units": {"web_search": 1},
    }


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(TypeError):
        Usage.from_dict({"input_tokens": 1, "thoughts": 2})


def test_total_includes_passes() -> None:
    inner = Usage(input_tokens=10, output_tokens=20)
    assert Usage(input_tokens=1, output_tokens=2, passes=(("m", inner),)).total_tokens == 33
