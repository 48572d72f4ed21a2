"""Call ids are UUIDv7: unique, ordered by time, readable by any UUID library."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from proxy.ids import CallIds, text


@given(st.integers(0, 2**48 - 1))
def test_layout(at_ms: int) -> None:
    call_id = CallIds().new(at_ms)
    parsed = uuid.UUID(bytes=call_id)
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert int.from_bytes(call_id[:6], "big") == at_ms
    assert text(call_id) == str(parsed)


def test_unique_within_a_millisecond_and_ordered_across() -> None:
    ids = CallIds()
    many = {ids.new(1_700_000_000_000) for _ in range(5000)}
    assert len(many) == 5000
    assert ids.new(1) < ids.new(2) < ids.new(1_700_000_000_000)
