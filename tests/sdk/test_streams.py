"""Streams: the same events through the proxy as without it, and ends that are not clean."""

import gzip
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.replay import Reply, json_reply, sse, sse_reply
from tests.sdk import replies
from tests.sdk.conftest import KEYS, Harness
from tests.sdk.sdks import CONVERSATION, CUT, Sdk

KEY = KEYS["rich"]
EVENT_STREAM = ("content-type", "text/event-stream")


def events_of(sdk: Sdk, origin: str) -> list[Any]:
    seen: list[Any] = []
    sdk.stream(sdk.base(origin), KEY, seen)
    return seen


# --- the same events -----------------------------------------------------------------------


def test_a_stream(tollkeeper: Harness, sdk: Sdk) -> None:
    direct = events_of(sdk, tollkeeper.provider.url)
    through = events_of(sdk, tollkeeper.url)
    assert through == direct
    assert len(direct) >= len(replies.PIECES)
    (row,) = tollkeeper.rows()
    assert (row["route"], row["stream"]) == (sdk.stream_route, True)
    assert (row["ending"], row["usage_source"]) == ("complete", "reported")
    assert (row["input_tokens"], row["output_tokens"]) == (
        replies.INPUT_TOKENS,
        replies.OUTPUT_TOKENS,
    )
    assert tollkeeper.provider.requests[-1].query == sdk.stream_query


def test_usage_is_asked_for_and_kept_from_who_did_not(tollkeeper: Harness) -> None:
    with openai.OpenAI(base_url=f"{tollkeeper.url}/v1", api_key=KEY) as client:
        for options in ({}, {"stream_options": {"include_usage": True}}):
            with client.chat.completions.create(
                model=replies.CHAT_MODEL, messages=CONVERSATION, stream=True, **options
            ) as stream:
                chunks = list(stream)
            assert bool(chunks[-1].usage) is bool(options)
            assert all(chunk.choices for chunk in chunks[:-1])
    for request in tollkeeper.provider.requests:
        assert request.json()["stream_options"] == {"include_usage": True}
    assert [row["usage_source"] for row in tollkeeper.rows()] == ["reported", "reported"]


VARIANTS: dict[str, Callable[[list[bytes]], Reply]] = {
    "one chunk": lambda events: sse_reply([b"".join(events)]),
    "one byte per chunk": lambda events: sse_reply([bytes([byte]) for byte in b"".join(events)]),
    "pieces across framing": lambda events: sse_reply(events, cuts=range(0, 100_000, 97)),
    "content-length": lambda events: sse_reply(events, framing="length"),
    "until the connection ends": lambda events: sse_reply(events, framing="eof"),
    "connection: close": lambda events: sse_reply(events, close=True),
    "sixty more headers": lambda events: sse_reply(
        events, headers=[(f"x-extra-{n}", "v" * 50) for n in range(60)]
    ),
    "names in upper case": lambda events: Reply(
        headers=[("CONTENT-TYPE", "text/event-stream"), ("X-REQUEST-ID", "R")],
        body=events,
        framing="chunked",
    ),
    "gzip although not asked for": lambda events: Reply(
        headers=[EVENT_STREAM, ("content-encoding", "gzip")],
        body=gzip.compress(b"".join(events)),
        framing="chunked",
    ),
    "early hints first": lambda events: Reply(
        headers=[EVENT_STREAM],
        body=events,
        framing="chunked",
        informational=[b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"],
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_however_the_bytes_travel(
    tollkeeper: Harness, sdk: Sdk, override: Any, variant: str
) -> None:
    expected = events_of(sdk, tollkeeper.provider.url)
    override(lambda _: True, lambda _: VARIANTS[variant](sdk.events()))
    through = events_of(sdk, tollkeeper.url)
    if variant != "gzip although not asked for" or sdk.wraps_reply != "chat":
        assert through == expected
    else:  # the usage chunk cannot be withheld from an encoded stream
        assert through[: len(expected)] == expected
    (row,) = tollkeeper.rows()
    assert (row["ending"], row["usage_source"]) == ("complete", "reported")
    assert row["output_tokens"] == replies.OUTPUT_TOKENS


def test_a_gzip_answer_is_metered_too(tollkeeper: Harness, sdk: Sdk, override: Any) -> None:
    whole = json_reply(sdk.whole(), headers=[("content-encoding", "gzip")])
    assert isinstance(whole.body, bytes)
    whole.body = gzip.compress(whole.body)
    override(lambda _: True, whole)
    assert sdk.ask(sdk.base(tollkeeper.url), KEY) == replies.TEXT
    (row,) = tollkeeper.rows()
    assert row["output_tokens"] == replies.OUTPUT_TOKENS


# --- ends that are not clean ---------------------------------------------------------------


@pytest.mark.parametrize("fault", ["close_after", "reset_after"])
def test_a_stream_cut_after_its_first_byte(
    tollkeeper: Harness, sdk: Sdk, override: Any, fault: str
) -> None:
    events = sdk.events()
    kept = sum(map(len, events[:3]))
    override(lambda _: True, sse_reply(events, **{fault: kept}))
    seen: list[Any] = []
    with pytest.raises(CUT):
        sdk.stream(sdk.base(tollkeeper.url), KEY, seen)
    assert len(tollkeeper.received) == 1
    assert len(tollkeeper.provider.requests) == 1
    (row,) = tollkeeper.rows()
    assert (row["ending"], row["usage_source"]) == ("upstream_broken", "estimated")
    assert 0 < float(row["cost_usd"]) <= float(row["hold_usd"])


def test_a_stream_that_ends_early_but_cleanly_is_passed_on_as_it_is(
    tollkeeper: Harness, sdk: Sdk, override: Any
) -> None:
    override(lambda _: True, sse_reply(sdk.events()[:3]))
    direct = events_of(sdk, tollkeeper.provider.url)
    assert events_of(sdk, tollkeeper.url) == direct
    (row,) = tollkeeper.rows()
    assert row["usage_source"] == "estimated"


ERROR_EVENTS = {
    "chat": sse(
        {"error": {"message": "it broke", "type": "server_error", "param": None, "code": "x"}}
    ),
    "responses": sse(
        {
            "type": "error",
            "sequence_number": 3,
            "code": "x",
            "message": "it broke",
            "param": None,
            "error": {"type": "server_error", "code": "x", "message": "it broke"},
        },
        "error",
    ),
    "messages": sse(
        {"type": "error", "error": {"type": "overloaded_error", "message": "it broke"}}, "error"
    ),
    "generate": sse({"error": {"code": 503, "message": "it broke", "status": "UNAVAILABLE"}}),
}


@pytest.mark.parametrize("dropped", [False, True])
def test_an_error_event_of_the_provider(
    tollkeeper: Harness, sdk: Sdk, override: Any, dropped: bool
) -> None:
    events = [*sdk.events()[:2], ERROR_EVENTS[sdk.wraps_reply]]
    fault = {"reset_after": sum(map(len, events))} if dropped else {}
    override(lambda _: True, sse_reply(events, **fault))
    seen: list[Any] = []
    # With the connection dropped right behind it, the SDK may see either of the two.
    expected = (sdk.errors["event"], *CUT) if dropped else (sdk.errors["event"],)
    with pytest.raises(expected) as caught:
        sdk.stream(sdk.base(tollkeeper.url), KEY, seen)
    if not dropped:
        assert "it broke" in str(caught.value)
        assert len(seen) >= 1
    assert len(tollkeeper.received) == 1
    assert len(tollkeeper.rows()) == 1


def test_a_short_json_answer_is_an_error(tollkeeper: Harness, sdk: Sdk, override: Any) -> None:
    override(lambda _: True, json_reply(sdk.whole(), close_after=40))
    with pytest.raises((sdk.errors["server"], *CUT)):
        sdk.ask(sdk.base(tollkeeper.url), KEY, max_retries=0)
    (row,) = tollkeeper.rows()
    assert row["ending"] == "upstream_broken"
    assert row["usage_source"] == "estimated"


# --- we end it -----------------------------------------------------------------------------


def test_an_idle_stream_gets_an_error_event(impatient: Harness, sdk: Sdk, override: Any) -> None:
    events = sdk.events()
    override(lambda _: True, sse_reply(events, stall_after=sum(map(len, events[:2]))))
    seen: list[Any] = []
    with pytest.raises(sdk.errors["event"]) as caught:
        sdk.stream(sdk.base(impatient.url), KEY, seen)
    assert "timeout" in str(caught.value)
    assert len(seen) >= 1
    assert len(impatient.received) == 1
    impatient.provider.wait(lambda server: server.requests[0].hung_up)
    (row,) = impatient.rows()
    assert row["usage_source"] == "estimated"


def test_an_answer_that_never_begins(impatient: Harness, sdk: Sdk, override: Any) -> None:
    override(lambda _: True, Reply(on_request="never"))
    with pytest.raises(sdk.errors["server"]) as caught:
        sdk.ask(sdk.base(impatient.url), KEY, max_retries=0)
    assert getattr(caught.value, "status_code", getattr(caught.value, "code", 0)) == 504
    impatient.provider.wait(lambda server: server.requests[0].hung_up)
    (row,) = impatient.rows()
    assert float(row["cost_usd"]) == 0


def test_an_sdk_that_hangs_up_ends_the_provider_call(tollkeeper: Harness, override: Any) -> None:
    events = replies.chat_events(include_usage=True)
    kept = sum(map(len, events[:2]))
    override("/chat/completions", sse_reply(events, stall_after=kept))
    with openai.OpenAI(base_url=f"{tollkeeper.url}/v1", api_key=KEY) as client:
        stream = client.chat.completions.create(
            model=replies.CHAT_MODEL, messages=CONVERSATION, stream=True
        )
        next(stream)
        stream.close()
    tollkeeper.provider.wait(lambda server: server.requests[0].hung_up)
    (row,) = tollkeeper.rows()
    assert (row["ending"], row["usage_source"]) == ("client_gone", "estimated")
    assert 0 < float(row["cost_usd"]) <= float(row["hold_usd"])
