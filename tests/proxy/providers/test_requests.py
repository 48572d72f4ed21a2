import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Refusal
from proxy.providers.requests import checked_count, parse_body, path_end, with_edits


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("/v1/x", "/v1/x"),
        ("/v1/x///", "/v1/x"),
        ("/v1%2Fx", "/v1/x"),
        ("/v1/models/a.b:c", "/v1/models/a.b:c"),
        ("/v1/..hidden", "/v1/..hidden"),
        ("/v1/./x", None),
        ("/v1/%2e%2e/x", None),
        ("/v1/x/..", None),
        ("/v1/x#y", None),
        ("/v1/x%00", None),
    ],
)
def test_path_end(path: str, end: str | None) -> None:
    assert path_end(path) == end


@pytest.mark.parametrize("value", [1.5, -1, True, "1x", "", "٣", [], 10**13, "9" * 13])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(Refusal, match="`n` must be a whole number of at least 1"):
        checked_count({"n": value}, "n")


objects = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), min_size=1)


@given(objects, objects, st.sampled_from(["", " \n"]), st.sampled_from([None, 1]))
def test_edits_set_keys_and_change_nothing_else(
    request_: dict[str, object], edits: dict[str, object], lead: str, indent: int | None
) -> None:
    body = (lead + json.dumps(request_, indent=indent, ensure_ascii=False)).encode()
    edited = with_edits(parse_body(body), body, edits)
    assert json.loads(edited) == {**request_, **edits}
    if not request_.keys() & edits.keys():
        assert edited.endswith(body.partition(b"{")[2])
