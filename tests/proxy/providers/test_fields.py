import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.fields import (
    COUNT_MAX,
    as_count,
    error_name,
    first_count,
    nano_from_json,
    object_after,
    text_after,
)


@pytest.mark.parametrize(
    ("value", "count"),
    [(7, 7), (0, 0), (-1, 0), (7.0, 7), (7.5, 0), (True, 0), ("7", 0), (None, 0), ([], 0)],
)
def test_counts(value: object, count: int) -> None:
    assert as_count(value) == count


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e300, COUNT_MAX + 1])
def test_impossible_counts_read_as_absent(value: object) -> None:
    assert as_count(value) == 0


def test_reported_zero_is_not_absent() -> None:
    assert first_count({"a": None, "b": 0, "c": 5}, "a", "b", "c") == 0
    assert first_count({"a": "x"}, "a", "b") is None


@pytest.mark.parametrize(
    ("value", "nano"),
    [
        (1, 1_000_000_000),
        (6e-08, 60),
        (0.0004970133333333333, 497_013),
        (0, 0),
        (10**6 + 1, None),  # more than any call costs, and than a ledger could add up
        (-1, None),
        (True, None),
        ("1", None),
        (None, None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_money(value: object, nano: int | None) -> None:
    assert nano_from_json(value) == nano


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ({"type": "server_error", "code": None}, "server_error"),
        ({"type": "t", "code": "insufficient_quota"}, "insufficient_quota"),
        ({"code": 503, "status": "UNAVAILABLE"}, "UNAVAILABLE"),
        ({"code": 400, "message": "m"}, "400"),
        ({"message": "m"}, "error"),
        ("something", "error"),
        (None, ""),
        ({}, "error"),
    ],
)
def test_names_of_errors(error: object, name: str) -> None:
    assert error_name(error) == name


def test_the_last_object_behind_a_key() -> None:
    data = b'"usage": {"a": 1}, "text": "\\"usage\\": {", "usage" : {"b": {"c": "}"}}, "x": 1}'
    assert object_after(data, b"usage") == {"b": {"c": "}"}}
    assert object_after(data + b', "usage": null', b"usage") == {"b": {"c": "}"}}
    assert object_after(b'"usage": {"a"', b"usage") == {}
    assert object_after(b'"usage": {"a": 1} "usage": {"a"', b"usage") == {"a": 1}
    assert object_after(b"", b"usage") == {}


@given(st.binary(max_size=50))
def test_no_fragment_makes_it_raise(data: bytes) -> None:
    assert object_after(b'"usage":{' + data, b"usage") == {} or b"}" in data


def test_the_first_text_behind_a_key() -> None:
    assert text_after(b'{"model" : "gpt-4o", "model": "x"}', b"model") == "gpt-4o"
    assert text_after(b'{"model": null}', b"model") == ""
