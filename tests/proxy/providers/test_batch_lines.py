"""The lines of batches: input files bounded, output files summed up, in any pieces."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers import lines as lines_module
from proxy.providers.batch_lines import AnswerLines, RequestLines, parts_of
from proxy.providers.lines import Lines, LineTooLong
from proxy.providers.openai import OpenAI
from proxy.providers.openai_batches import answer_reader
from tests.e2e.batch_provider import a_failure, a_request, an_answer, lines

OPENAI = OpenAI()
ALLOWED = frozenset(("chat.completions", "responses", "embeddings"))
REQUESTS = lines(a_request(1), a_request(2, "gpt-4o", max_tokens=7), a_request(3, n=2))
ANSWERS = lines(an_answer(1, 10, 4), a_failure(2), an_answer(3, 30, 6, "gpt-4o"))
cuts = st.lists(st.integers(0, 900), max_size=6)


def pieces_of(data: bytes, at: list[int]) -> list[bytes]:
    ends = [0, *sorted(at), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(ends)]


def requests_of(*pieces: bytes) -> dict[str, Any]:
    reader = RequestLines(OPENAI.route, OPENAI.facts, ALLOWED)
    for piece in pieces:
        reader.feed(piece)
    return reader.requests()


def result_of(*pieces: bytes) -> Any:
    reader = AnswerLines(answer_reader)
    for piece in pieces:
        reader.feed(piece)
    result = reader.result()
    return None if result is None else result.groups


def test_what_bounds_the_requests() -> None:
    found = requests_of(REQUESTS)
    assert found["route"] == "chat.completions"
    (small, size), (large, other) = parts_of(json.loads(json.dumps(found)))
    assert (small, size.requests, size.output_limits) == ("gpt-4o-mini", 2, 300)
    assert (large, other.requests, other.output_limits) == ("gpt-4o", 1, 7)
    bodies = [len(json.dumps(json.loads(line)["body"])) for line in REQUESTS.splitlines()]
    assert size.inline_tokens == bodies[0] + bodies[2] + 2 * 2048
    assert size.largest_tokens == max(bodies[0], bodies[2]) + 2048


@given(cuts)
def test_requests_in_any_pieces(at: list[int]) -> None:
    whole = requests_of(REQUESTS)
    assert "problem" not in whole
    assert requests_of(*pieces_of(REQUESTS, at)) == whole
    assert requests_of(*pieces_of(REQUESTS.rstrip(), at)) == whole
    assert requests_of(*pieces_of(REQUESTS.replace(b"\n", b"\r\n\n"), at)) == whole


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no requests"),
        (b"[]\n", "line 1 is no request"),
        (lines(a_request(1)) + b'{"url": "/v1/chat/comp', "line 2 is no request"),
        (lines(a_request(1) | {"method": "GET"}), "batches to"),
        (lines(a_request(1) | {"url": "/v1/images/generations"}), "cannot be metered"),
        (lines(a_request(1), a_request(2) | {"url": "/v1/embeddings"}), "another endpoint"),
        (lines(a_request(1), a_request(2, max_tokens="x")), "line 2: `max_tokens`"),
        (lines(*(a_request(n, f"m{n}") for n in range(9))), "more than 8 models"),
    ],
)
def test_problems_are_told(data: bytes, words: str) -> None:
    assert words in requests_of(data)["problem"]


@given(cuts)
def test_answers_in_any_pieces(at: list[int]) -> None:
    groups = result_of(*pieces_of(ANSWERS, at))
    assert [(model, used["input_tokens"], used["output_tokens"]) for model, used in groups] == [
        ("gpt-4o", 30, 6),
        ("gpt-4o-mini", 10, 4),
    ]
    assert all(used["service_tier"] == "batch" for _, used in groups)


def test_failures_cost_nothing() -> None:
    expired = {"custom_id": "r1", "response": None, "error": {"code": "batch_expired"}}
    assert result_of(lines(a_failure(1), expired)) == []


@pytest.mark.parametrize(
    "data",
    [
        ANSWERS[:-20],
        b"a,b\n1,2\n",
        lines({"custom_id": "r1", "response": {"status_code": 200, "body": {"id": "x"}}}),
        lines({"custom_id": "r1", "response": {"status_code": 200, "body": None}}),
        lines(a_request(1) | {"custom_id": 1, "response": "x"}),
    ],
)
def test_nothing_is_settled_from_what_is_not_understood(data: bytes) -> None:
    assert result_of(data) is None


def test_responses_are_read_too() -> None:
    usage = {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}
    body = {"object": "response", "id": "r", "model": "gpt-5", "output": [], "usage": usage}
    line = {"custom_id": "r1", "response": {"status_code": 200, "body": body}}
    ((model, used),) = result_of(lines(line))
    assert (model, used["input_tokens"], used["output_tokens"]) == ("gpt-5", 5, 6)


def test_a_line_too_long_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LINE_BYTES_MAX", 10)
    reader = Lines()
    assert reader.feed(b"a\nb") == [b"a"]
    assert reader.feed(b"c\n") == [b"bc"]
    with pytest.raises(LineTooLong):
        reader.feed(b"x" * 11)
    assert "longer" in requests_of(b"x" * 11)["problem"]
    assert result_of(b"x" * 11, b"\n") is None
