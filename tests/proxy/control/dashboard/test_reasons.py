"""Every code has words and a kind; unknown ones are shown as they are."""

from proxy.control.dashboard.reasons import (
    KINDS,
    OTHER,
    REASONS,
    Kind,
    by_kind,
    reached_provider,
    reason,
)
from proxy.errors import CODES


def test_every_error_is_of_one_kind():
    listed = [code for codes in KINDS.values() for code in codes]
    assert sorted(listed) == sorted(CODES)
    assert len(set(REASONS.values())) == len(CODES)


def test_a_code_without_words_is_made_readable():
    assert reason("budget_exceeded") == "Budget spent"
    assert reason("some_new_code") == "Some new code"


def test_counts_are_sorted_into_kinds():
    counts = [("key_expired", 5), ("budget_exceeded", 3), ("new_one", 2), ("budget_busy", 1)]
    assert by_kind(counts) == [
        Kind("Money", 4, [("budget_exceeded", 3), ("budget_busy", 1)]),
        Kind("Keys", 5, [("key_expired", 5)]),
        Kind(OTHER, 2, [("new_one", 2)]),
    ]
    assert by_kind([]) == []


def test_only_a_provider_can_have_been_reached():
    assert reached_provider("upstream_timeout")
    assert not reached_provider("budget_exceeded")
