"""The short way through a chat completion gives what the long way gives, or nothing."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from proxy.errors import Refusal
from proxy.providers.base import Facts
from proxy.providers.meters import JsonMeter
from proxy.providers.openai import CHAT, OpenAI
from proxy.providers.openai_meter import ChatReader
from proxy.providers.openai_plain import PlainFacts, plain_reply, plain_request
from tests.corpus import records

PATH = "/v1/chat/completions"
counts = st.one_of(st.integers(0, 2_000), st.sampled_from([None, -1, 10**13, "7", 1.5, 0.0]))
models = st.sampled_from(
    ["gpt-4o", "models/gpt-5", "o3-mini", "x" * 300, "", None, "gpt-4o-search-preview", "compound"]
)
messages = st.one_of(
    st.none(),
    st.lists(
        st.one_of(
            st.fixed_dictionaries(
                {"role": st.just("user")},
                optional={
                    "content": st.one_of(st.none(), st.text(), st.lists(st.text(), max_size=2)),
                    "audio": st.sampled_from([None, {"id": "audio_1"}]),
                },
            ),
            st.integers(),
        ),
        max_size=3,
    ),
)
requests = st.fixed_dictionaries(
    {"model": models, "messages": messages},
    optional={
        "stream": st.sampled_from([True, False, None, "yes"]),
        "stream_options": st.sampled_from(
            [None, {}, {"include_usage": True}, {"include_usage": False}, {"include_usage": "x"}, 1]
        ),
        "service_tier": st.sampled_from([None, "flex", "auto", 3]),
        "max_tokens": counts,
        "max_completion_tokens": counts,
        "n": counts,
        "tools": st.sampled_from([None, [], [{"type": "function"}], [{"type": "web_search"}]]),
        "reasoning_effort": st.sampled_from([None, "low"]),
        "web_search_options": st.sampled_from([None, {}]),
        "plugins": st.sampled_from([None, []]),
        "search_parameters": st.sampled_from([None, {"mode": "off"}]),
        "temperature": st.floats(0, 2),
    },
)


class LongWay(OpenAI):
    """As if the short one did not exist."""

    def facts(self, route, path, query, body):  # type: ignore[no-untyped-def]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("proxy.providers.openai.plain_request", lambda route, body: None)
            return super().facts(route, path, query, body)


def facts(dialect: OpenAI, body: bytes) -> Facts | str:
    try:
        return dialect.facts(CHAT, PATH, b"", body)
    except Refusal as refusal:
        return refusal.message


def values(found: Facts | str) -> object:
    if isinstance(found, str):
        return found
    return {field.name: getattr(found, field.name) for field in fields(Facts)}


@given(requests)
def test_requests(request: dict[str, object]) -> None:
    body = json.encode(request)
    short, long = values(facts(OpenAI(), body)), values(facts(LongWay(), body))
    if (
        isinstance(short, dict)
        and isinstance(long, dict)
        and request.get("reasoning_effort", 1) is None
    ):
        short["reasoning"] = long["reasoning"]  # null asks for nothing; the long way takes care
    assert short == long


def test_the_usual_request_takes_the_short_way() -> None:
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"max_tokens":5}'
    found = OpenAI().facts(CHAT, PATH, b"", body)
    assert type(found) is PlainFacts
    assert (found.size.output_limit, found.body["max_tokens"]) == (5, 5)


def test_recorded_requests() -> None:
    bodies = [(r["request_body"] or "").encode() for r in records("openai_chat")]
    for body in bodies:
        assert values(facts(OpenAI(), body)) == values(facts(LongWay(), body))
    assert sum(plain_request(CHAT, body) is not None for body in bodies) > 50


usages = st.fixed_dictionaries(
    {"prompt_tokens": counts, "completion_tokens": counts},
    optional={
        "total_tokens": counts,
        "prompt_tokens_details": st.one_of(
            st.none(),
            st.dictionaries(
                st.sampled_from(["cached_tokens", "audio_tokens", "text_tokens"]), counts
            ),
        ),
        "completion_tokens_details": st.one_of(
            st.none(),
            st.dictionaries(
                st.sampled_from(["reasoning_tokens", "audio_tokens", "rejected_prediction_tokens"]),
                counts,
            ),
        ),
        "cost": st.floats(0, 1),
        "num_search_queries": st.integers(0, 2),
    },
)
replies = st.fixed_dictionaries(
    {},
    optional={
        "usage": st.one_of(st.none(), usages),
        "model": st.sampled_from(["gpt-4o", None, 3, "m" * 400]),
        "id": st.sampled_from(["chatcmpl-1", None, 7]),
        "service_tier": st.sampled_from([None, "default", "flex", "auto", 1]),
        "error": st.sampled_from([None, {"message": "no"}, "no"]),
        "choices": st.sampled_from([[], None, [{"finish_reason": "stop"}], [{}]]),
        "x_groq": st.sampled_from([None, {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}]),
    },
)


@given(replies, st.booleans())
def test_replies(reply: dict[str, object], consistent: bool) -> None:
    usage = reply.get("usage")
    if consistent and isinstance(usage, dict):
        prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
        if type(prompt) is int and type(completion) is int:
            usage["total_tokens"] = prompt + completion
    body = json.encode(reply)
    meter = JsonMeter(ChatReader())
    meter.feed(body)
    short = plain_reply(body)
    assert short is None or short == meter.reading()


def test_recorded_replies() -> None:
    taken = 0
    for record in records("openai_chat"):
        body = record["response_body"].encode()
        short = plain_reply(body)
        if short is not None and not record["stream"]:
            taken += 1
            meter = JsonMeter(ChatReader())
            meter.feed(body)
            assert short == meter.reading(), record["id"]
    assert taken > 50


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"usage":', b'"\xff"', b"[" * 3000])
def test_what_is_no_document(body: bytes) -> None:
    assert plain_reply(body) is None
    assert plain_request(CHAT, body) is None
