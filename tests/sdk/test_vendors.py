"""Groq, Mistral and Cohere with their own SDKs: only the base URL and the key are changed."""

from typing import Any

import pytest

from tests.replay import json_reply, sse_reply
from tests.sdk import replies
from tests.sdk.conftest import KEYS, Harness
from tests.sdk.vendors import DROPPED, VENDORS, Vendor

KEY = KEYS["rich"]


@pytest.fixture(params=VENDORS, ids=lambda vendor: vendor.provider)
def vendor(request: pytest.FixtureRequest, tollkeeper: Harness) -> Vendor:
    chosen: Vendor = request.param
    chosen.play(tollkeeper.provider)
    return chosen


def base_of(vendor: Vendor, tollkeeper: Harness) -> str:
    return f"{tollkeeper.url}/{vendor.provider}"


def test_a_call(tollkeeper: Harness, vendor: Vendor) -> None:
    assert vendor.ask(base_of(vendor, tollkeeper), KEY) == replies.TEXT
    (request,) = tollkeeper.provider.requests
    assert request.target == vendor.path
    assert request.header("authorization") == f"Bearer sk-upstream-{vendor.provider}"
    assert KEY not in request.raw_head.decode()
    (row,) = tollkeeper.rows()
    assert (row["provider"], row["model"]) == (vendor.provider, vendor.model)
    assert (row["ending"], row["usage_source"]) == ("complete", "reported")
    assert (row["input_tokens"], row["output_tokens"]) == (
        replies.INPUT_TOKENS,
        replies.OUTPUT_TOKENS,
    )
    assert float(row["cost_usd"]) > 0


def test_a_stream(tollkeeper: Harness, vendor: Vendor) -> None:
    direct: list[Any] = []
    through: list[Any] = []
    vendor.stream(tollkeeper.provider.url, KEY, direct)
    vendor.stream(base_of(vendor, tollkeeper), KEY, through)
    assert through == direct
    assert len(direct) >= len(replies.PIECES)
    assert tollkeeper.provider.requests[1].body == tollkeeper.provider.requests[0].body
    (row,) = tollkeeper.rows()
    assert (row["stream"], row["ending"], row["usage_source"]) == (True, "complete", "reported")
    assert row["output_tokens"] == replies.OUTPUT_TOKENS


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("key", "kind"), [(KEYS["spent"], "spent"), ("tk-wrong", "key")])
def test_a_refusal_is_final_at_once(
    tollkeeper: Harness, vendor: Vendor, key: str, kind: str, streamed: bool
) -> None:
    base, seen = base_of(vendor, tollkeeper), list[Any]()
    with pytest.raises(vendor.errors[kind]) as caught:
        vendor.stream(base, key, seen) if streamed else vendor.ask(base, key)
    error: Any = caught.value
    assert error.status_code == (vendor.spent_status if kind == "spent" else 401)
    assert ("budget" if kind == "spent" else "Tollkeeper key") in str(error)
    assert len(tollkeeper.received) == 1
    assert not seen
    assert not tollkeeper.provider.requests
    assert not tollkeeper.rows()


def test_a_stream_that_breaks(tollkeeper: Harness, vendor: Vendor, override: Any) -> None:
    events = vendor.events()
    override(vendor.path, sse_reply(events, reset_after=sum(map(len, events[:3]))))
    seen: list[Any] = []
    with pytest.raises(DROPPED):
        vendor.stream(base_of(vendor, tollkeeper), KEY, seen)
    assert len(tollkeeper.received) == len(tollkeeper.provider.requests) == 1
    (row,) = tollkeeper.rows()
    assert (row["ending"], row["usage_source"]) == ("upstream_broken", "estimated")
    assert 0 < float(row["cost_usd"]) <= float(row["hold_usd"])


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.provider)
def test_a_stream_we_end_is_an_error(impatient: Harness, override: Any, vendor: Vendor) -> None:
    events = vendor.events()
    override(vendor.path, sse_reply(events, stall_after=sum(map(len, events[:3]))))
    seen: list[Any] = []
    with pytest.raises(vendor.errors["ours"]) as caught:
        vendor.stream(f"{impatient.url}/{vendor.provider}", KEY, seen)
    assert ("timeout" in str(caught.value)) is (vendor.errors["ours"] is not DROPPED)
    assert len(seen) >= 1
    assert len(impatient.received) == 1
    impatient.provider.wait(lambda server: server.requests[0].hung_up)
    (row,) = impatient.rows()
    assert row["usage_source"] == "estimated"


def test_an_error_of_the_provider(tollkeeper: Harness, vendor: Vendor, override: Any) -> None:
    override(vendor.path, json_reply({"message": "no such voice"}, status=422))
    with pytest.raises(Exception, match="no such voice"):
        vendor.ask(base_of(vendor, tollkeeper), KEY)
    (row,) = tollkeeper.rows()
    assert (row["http_status"], float(row["cost_usd"])) == (422, 0)
