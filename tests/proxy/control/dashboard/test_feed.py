"""Calls as they end: what a stream says, and when it ends."""

import asyncio

import pytest
from starlette.requests import Request

from proxy.control.dashboard import feed as feed_module
from proxy.control.dashboard.feed import Feed, event_of
from proxy.control.dashboard.site import COOKIE, Visit
from tests.proxy.control.dashboard.conftest import HOSTILE, a_refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def visit_of(scene, browser, query: bytes = b"") -> Visit:
    cookie = f"{COOKIE}={browser.http.cookies[COOKIE]}".encode()
    head = {"type": "http", "method": "GET", "path": "/dashboard/calls/feed", "scheme": "http",
            "headers": [(b"cookie", cookie)], "query_string": query, "client": None}  # fmt: skip
    request = Request(head)
    site = scene.site
    ticket = site.ticket(request)
    return Visit(site, request, site.sessions.identity(ticket), ticket)


async def read(events, until: str) -> str:
    text = ""
    async with asyncio.timeout(10):
        async for event in events:
            text += event
            if until in event:
                return text
    return text


async def test_new_calls_come_as_rows_once_and_escaped(scene):
    visit = await visit_of(scene, await scene.admin())
    answer = await Feed(look_s=0).answer(visit)
    text = await read(answer.body_iterator, scene.call_id)
    assert "event: call" in text
    assert HOSTILE[:9] not in text
    refused = a_refusal("late", "gpt-5")
    scene.control.refusals.add([refused])
    more = await read(answer.body_iterator, refused.request_id)
    assert scene.call_id not in more
    visit.site.sessions.end(visit.ticket)  # logged out
    assert "event: over" in await read(answer.body_iterator, "never")


async def test_a_viewers_stream_has_the_teams_calls_alone(scene):
    visit = await visit_of(scene, await scene.viewer())
    answer = await Feed(look_s=0).answer(visit)
    text = await read(answer.body_iterator, scene.call_id)
    assert scene.others_call_id not in text
    assert "ads-prod" not in text
    await answer.body_iterator.aclose()


async def test_there_are_not_more_streams_than_agreed(scene, monkeypatch):
    monkeypatch.setattr(feed_module, "STREAMS_MAX", 1)
    feed, visit = Feed(look_s=0), await visit_of(scene, await scene.admin())
    first = await feed.answer(visit)
    assert (await feed.answer(visit)).status_code == 503
    await anext(first.body_iterator)
    await first.body_iterator.aclose()
    assert (await feed.answer(visit)).status_code == 200


async def test_an_outage_is_an_event(scene, monkeypatch):
    visit = await visit_of(scene, await scene.admin())
    answer = await Feed(look_s=0).answer(visit)

    def unreachable(*_, **__):
        raise OSError("gone")

    with monkeypatch.context() as patch:
        patch.setattr("proxy.control.readers.open_engine", unreachable)
        await scene.control.parts.readers.close()
        assert "event: outage" in await read(answer.body_iterator, "outage")
    assert "event: call" in await read(answer.body_iterator, "event: call")
    await answer.body_iterator.aclose()


async def test_text_of_many_lines_stays_one_event():
    assert event_of("call", "<tr>\n\n</tr>") == "event: call\ndata: <tr>\ndata: \ndata: </tr>\n\n"
