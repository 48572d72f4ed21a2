"""Another model's name in a request, and not a byte more."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.downgrade import rewritten as renamed
from proxy.downgrade import target_of, with_model
from proxy.providers.registry import dialect
from tests.factories import a_budget

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.booleans(), st.integers(0, 3))
def test_the_model_alone_is_exchanged(
    members: dict[str, Any], ascii_only: bool, indent: int
) -> None:
    members = {"first": {"model": "inner"}} | members | {"model": "gpt-5"}
    body = json.dumps(members, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "replace")
    marked = json.dumps(members | {"model": "mini"}, ensure_ascii=ascii_only, indent=indent)
    assert with_model(body, "mini") == marked.encode("utf-8", "replace")


@pytest.mark.parametrize(
    ("body", "rewritten"),
    [
        (b' {"model" :\t"a" , "x":1.50} ', b' {"model" :\t"b" , "x":1.50} '),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"b"}'),
        (
            b'{"x":[{"model":"a"}],"model":"a","y":"\\"model\\":"}',
            b'{"x":[{"model":"a"}],"model":"b","y":"\\"model\\":"}',
        ),
    ],
)
def test_it_is_found_wherever_it_stands(body: bytes, rewritten: bytes) -> None:
    assert with_model(body, "b") == rewritten


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'"model"',
        b'{"model":1}',
        b'{"model":{"model":"a"}}',
        b'{"model":"a","model":"a"}',
        b'{"model":"a"',
        b'{"model":"a',
        b'{"model"',
        b'{"x":{"model":"a"}}',
        b'\xff{"model":"a"}',
        b"[" * 100_000,
    ],
)
def test_what_cannot_be_rewritten_stays_as_it_is(body: bytes) -> None:
    changed = with_model(body, "b")
    assert changed == body or json.loads(changed + b"}")["model"] == "b"


@pytest.mark.parametrize(
    ("model", "target"),
    [
        ("gpt-5", "gpt-5-mini"),
        ("GPT-5", "gpt-5-mini"),
        ("gpt-5-mini", ""),
        ("o3", "gpt-5"),
        ("claude", ""),
    ],
)
def test_the_first_glob_that_matches_counts(model: str, target: str) -> None:
    budget = a_budget(downgrade=(("gpt-5*", "gpt-5-mini"), ("o?", "gpt-5"), ("o3", "never")))
    assert target_of(budget, model) == target


_HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
_VERTEX = "/v1/projects/p/locations/global/publishers"
_CONTENTS = b'{"contents":[]}'
_MESSAGES = b'{"max_tokens":5,"messages":[{"role":"user","content":"x"}]}'


@pytest.mark.parametrize(
    ("name", "path", "body", "target"),
    [
        ("gemini", "/v1beta/models/gemini-2.5-pro:generateContent", _CONTENTS, "gemini-2.5-flash"),
        (
            "vertex", f"{_VERTEX}/google/models/gemini-2.5-pro:streamGenerateContent", _CONTENTS,
            "gemini-2.5-flash",
        ),
        (
            "vertex", f"{_VERTEX}/anthropic/models/claude-opus-4@20250514:rawPredict", _MESSAGES,
            "claude-3-5-haiku@20241022",
        ),
        (
            "bedrock", "/model/us.anthropic.claude-opus-4-20250514-v1%3A0/converse",
            b'{"messages":[]}', _HAIKU,
        ),
        (
            "bedrock", "/model/anthropic.claude-opus-4-20250514-v1:0/invoke-with-response-stream",
            _MESSAGES, _HAIKU,
        ),
        (
            "azure", "/openai/deployments/big/chat/completions", b'{"messages":[]}', "small",
        ),
    ],
)  # fmt: skip
def test_a_model_in_the_path_is_exchanged_there_alone(
    name: str, path: str, body: bytes, target: str
) -> None:
    spoken = dialect(name)
    same, other = renamed(name, body, path.encode(), target)
    assert (same, path.encode() in other) == (body, False)
    route = spoken.route("POST", path)
    assert route is not None
    found = spoken.facts(route, other.decode(), b"", body)
    assert (found.model, spoken.route("POST", other.decode())) == (target, route)


def test_where_the_path_names_none_the_body_does() -> None:
    for name, path in (("azure", b"/openai/v1/chat/completions"), ("vertex", b"/v1/models/x")):
        assert renamed(name, b'{"model":"big"}', path, "small") == (b'{"model":"small"}', path)
