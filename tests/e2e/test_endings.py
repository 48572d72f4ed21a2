"""Every row of the charge table (docs/design.md, "Charge rules"), in every wire format.

After each test nothing is held any more, and the budget has spent what the rows cost.
"""

import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

import proxy.gateway
from tests.e2e.shapes import (
    CHAT,
    CHAT_STREAM,
    DOCUMENTS,
    GENERATE_ARRAY,
    SHAPES,
    STREAMS,
    Shape,
)
from tests.e2e.stage import RawCall, Stage, error_of, eventually
from tests.replay import Gate, Reply, Request, json_reply

BUDGET = {"scope": "organization/acme", "limit_usd": 1, "period": "total", "clamp": False}
QUICK = {"idle_timeout_s": 0.1, "first_byte_timeout_s": 0.1}
DEAD = "http://127.0.0.1:1"

# A stream, and how many of its parts come before something happens.
PREFIXES = [(shape, count) for shape in STREAMS for count in range(1, len(shape.parts) + 1)]
PREFIX_IDS = [f"{shape}-{count}" for shape, count in PREFIXES]


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("endings"), budgets=[BUDGET]) as stage:
        stage.reload(
            providers={
                f"dead-{name}": {"dialect": name, "base_url": DEAD, "api_key": "k", "prices": name}
                for name in ("openai", "anthropic", "gemini")
            }
        )
        yield stage


@pytest.fixture
def stage(hall: Stage) -> Iterator[Stage]:
    hall.begin()
    yield hall
    assert Decimal(hall.nothing_held()["spent"]) == hall.billed()


@pytest.fixture
def draining(stage: Stage) -> Iterator[Stage]:
    with stage.configured(on_disconnect="drain"):
        yield stage


@pytest.fixture
def quick(stage: Stage) -> Iterator[Stage]:
    with stage.configured(server=QUICK):
        yield stage


def assert_estimated(row: dict[str, Any]) -> None:
    assert row["usage_source"] == "estimated"
    assert 0 < Decimal(row["cost_usd"]) <= Decimal(row["hold_usd"])
    assert row["input_tokens"] > 0


def assert_nothing_charged(row: dict[str, Any]) -> None:
    assert (row["usage_source"], row["cost_usd"], row["cost_items"]) == ("none", "0", [])
    assert (row["input_tokens"], row["output_tokens"]) == (0, 0)


def assert_charged_after(row: dict[str, Any], shape: Shape, parts: int) -> None:
    """The charge of a stream of which the provider sent so many parts."""
    if parts >= shape.known_after:
        assert (row["usage_source"], row["cost_usd"]) == ("reported", shape.cost)
        assert {name: row[name] for name in shape.usage} == shape.usage
        return
    assert_estimated(row)
    starts_with_text = shape.name in ("chat-stream", "generate-sse", "generate-array")
    assert (row["output_tokens"] > 0) is (
        parts > 1 or starts_with_text or shape.dialect != "openai"
    )
    if shape.dialect != "openai":  # told at the start
        assert row["input_tokens"] == shape.usage["input_tokens"]


def assert_cut(received: bytes, *parts: bytes) -> None:
    """All of the parts, in a chunked body that never ends."""
    assert received.startswith(b"HTTP/1.1 200 ")
    at = 0
    for part in parts:
        at = received.index(part, at) + len(part)
    assert not received.endswith(b"0\r\n\r\n")


def ending_after(shape: Shape, parts: int, ending: str) -> str:
    """A stream that has named its end is complete, whatever comes then."""
    return "complete" if shape.names_its_end and parts == len(shape.parts) else ending


def last_request(stage: Stage) -> Request:
    stage.provider.wait(lambda provider: bool(provider.requests))
    return stage.provider.requests[-1]


# --- nothing came --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_provider_that_cannot_be_reached(stage: Stage, shape: Shape) -> None:
    answer = stage.http.post(
        f"/dead-{shape.dialect}{shape.path}", content=shape.request(), headers=stage.headers(shape)
    )

    assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_unreachable")
    assert answer.headers["retry-after"] == "1"
    row = stage.row(answer)
    assert (row["ending"], row["http_status"]) == ("unreachable", 0)
    assert_nothing_charged(row)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_provider_that_hangs_up_on_the_request(stage: Stage, shape: Shape, how: Any) -> None:
    stage.provider.on(lambda _: True, Reply(on_request=how))

    answer = stage.call(shape)

    assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_unreachable")
    row = stage.row(answer)
    assert (row["ending"], row["http_status"]) == ("unreachable", 0)
    assert_nothing_charged(row)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_provider_that_never_answers(quick: Stage, shape: Shape) -> None:
    quick.provider.reply(Reply(on_request="never"))

    answer = quick.call(shape)

    assert (answer.status_code, error_of(answer)["code"]) == (504, "upstream_timeout")
    assert answer.headers["retry-after"] == "1"
    row = quick.row(answer)
    assert row["ending"] == "unreachable"
    assert_nothing_charged(row)
    eventually(lambda: last_request(quick).hung_up)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_half_a_head_is_an_answer(stage: Stage, shape: Shape) -> None:
    stage.provider.reply(Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-", then_close=True))

    answer = stage.call(shape)

    assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_unreachable")
    row = stage.row(answer)
    assert row["ending"] == "upstream_broken"
    assert_estimated(row)


# --- errors of the provider ----------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
def test_an_error_costs_nothing(stage: Stage, shape: Shape, status: int) -> None:
    body = {"error": {"message": "no", "type": "some_error", "code": status}}
    stage.provider.reply(json_reply(body, status=status, headers=[("retry-after", "7")]))

    answer = stage.call(shape)

    assert (answer.status_code, answer.json()) == (status, body)
    assert answer.headers["retry-after"] == "7"
    row = stage.row(answer)
    assert (row["ending"], row["http_status"]) == ("upstream_error", status)
    assert_nothing_charged(row)


@pytest.mark.parametrize("shape", DOCUMENTS, ids=str)
def test_an_error_with_usage_costs_that(stage: Stage, shape: Shape) -> None:
    body = json.loads(shape.reply_body) | {"error": {"message": "no", "type": "x"}}
    stage.provider.reply(json_reply(body, status=500))

    row = stage.row(stage.call(shape))

    assert (row["ending"], row["usage_source"]) == ("upstream_error", "reported")
    assert row["cost_usd"] == shape.cost


@pytest.mark.parametrize(("shape", "count"), PREFIXES, ids=PREFIX_IDS)
def test_an_error_event_inside_a_stream(stage: Stage, shape: Shape, count: int) -> None:
    parts = (*shape.parts[:count], shape.error_part)
    stage.provider.reply(shape.reply(parts))

    answer = stage.call(shape)

    assert answer.content == b"".join(parts)
    row = stage.row(answer)
    assert (row["ending"], row["http_status"]) == ("complete", 200)
    assert_charged_after(row, shape, count)


# --- the client hangs up -------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_client_that_hangs_up_before_the_first_byte(stage: Stage, shape: Shape) -> None:
    mark, row_of = stage.tagged()
    stage.provider.reply(shape.reply(before=Gate()))

    with stage.raw_call(shape, headers=mark):
        request = last_request(stage)

    row = row_of()
    assert (row["ending"], row["http_status"]) == ("client_gone", 0)
    assert_estimated(row)
    assert row["output_tokens"] == 0
    eventually(lambda: request.hung_up)


@pytest.mark.parametrize(("shape", "count"), PREFIXES, ids=PREFIX_IDS)
def test_a_client_that_hangs_up_in_a_stream(stage: Stage, shape: Shape, count: int) -> None:
    mark, row_of = stage.tagged()
    passed = b"".join(shape.parts[:count])
    stage.provider.reply(shape.reply(stall_after=len(passed)))

    with stage.raw_call(shape, headers=mark) as call:
        call.read_until(*shape.parts[:count])

    row = row_of()
    assert row["ending"] == ending_after(shape, count, "client_gone")
    assert_charged_after(row, shape, count)
    eventually(lambda: last_request(stage).hung_up)


@pytest.mark.parametrize("shape", DOCUMENTS, ids=str)
def test_a_client_that_hangs_up_in_a_document(stage: Stage, shape: Shape) -> None:
    mark, row_of = stage.tagged()
    half = len(shape.reply_body) // 2
    stage.provider.reply(shape.reply(stall_after=half))

    with stage.raw_call(shape, headers=mark):
        request = last_request(stage)
        eventually(lambda: request.sent_bytes == half)

    row = row_of()
    assert row["ending"] == "client_gone"
    assert_estimated(row)
    eventually(lambda: request.hung_up)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_client_that_hangs_up_in_its_request(stage: Stage, shape: Shape) -> None:
    before = len(stage.rows())
    with stage.raw_call(shape, length=1000):
        pass

    assert stage.paid(shape).status_code == 200
    assert stage.seen() == 1
    assert len(stage.rows()) == before + 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_reply_nobody_waits_for_can_be_drained(draining: Stage, shape: Shape) -> None:
    mark, row_of = draining.tagged()
    gate = Gate()
    draining.provider.reply(shape.reply(before=gate))

    with draining.raw_call(shape, headers=mark):
        request = last_request(draining)
    draining.hang_up_is_noticed()
    gate.open()

    row = row_of()
    assert (row["ending"], row["http_status"]) == ("client_gone", 200)
    assert (row["usage_source"], row["cost_usd"]) == ("reported", shape.cost)
    assert not request.hung_up


@pytest.mark.parametrize(("shape", "count"), PREFIXES, ids=PREFIX_IDS)
def test_a_stream_nobody_reads_can_be_drained(draining: Stage, shape: Shape, count: int) -> None:
    mark, row_of = draining.tagged()
    passed = b"".join(shape.parts[:count])
    gate = Gate()
    draining.provider.reply(shape.reply(stall_after=len(passed), until=gate))

    with draining.raw_call(shape, headers=mark) as call:
        call.read_until(*shape.parts[:count])
    draining.hang_up_is_noticed()
    gate.open()

    row = row_of()
    assert row["ending"] == ending_after(shape, count, "client_gone")
    assert (row["usage_source"], row["cost_usd"]) == ("reported", shape.cost)
    assert not last_request(draining).hung_up


def test_a_client_that_stops_reading_stops_the_provider(stage: Stage) -> None:
    mark, row_of = stage.tagged()
    delta = CHAT_STREAM.parts[0] + b": " + b"x" * 100_000 + b"\n\n"
    stage.provider.reply(CHAT_STREAM.reply([delta] * 500))  # 50 MB

    with stage.raw_call(CHAT_STREAM, headers=mark) as call:
        call.read_until(CHAT_STREAM.parts[0])
        request = last_request(stage)
        sent = [-1]

        def stalled() -> bool:
            sent.append(request.sent_bytes)
            return sent[-1] == sent[-2]

        eventually(lambda: all(stalled() for _ in range(3)))
        assert request.sent_bytes < 20_000_000

    row = row_of()
    assert row["ending"] == "client_gone"
    assert_estimated(row)
    eventually(lambda: request.hung_up)


# --- the provider breaks off ---------------------------------------------------------------


@pytest.mark.parametrize(("shape", "count"), PREFIXES, ids=PREFIX_IDS)
@pytest.mark.parametrize("how", ["close_after", "reset_after"])
def test_a_stream_that_breaks(stage: Stage, shape: Shape, count: int, how: str) -> None:
    mark, row_of = stage.tagged()
    passed = b"".join(shape.parts[:count])
    stage.provider.reply(shape.reply(**{how: len(passed)}))

    with stage.raw_call(shape, headers=mark) as call:
        received = call.read_all()

    if how == "close_after":  # a reset may overtake what came before it
        assert_cut(received, *shape.parts[:count])
    else:
        assert not received.endswith(b"0\r\n\r\n")
    row = row_of()
    assert row["ending"] == ending_after(shape, count, "upstream_broken")
    if how == "close_after":
        assert_charged_after(row, shape, count)


@pytest.mark.parametrize("shape", DOCUMENTS, ids=str)
@pytest.mark.parametrize("how", ["close_after", "reset_after"])
def test_a_document_shorter_than_announced(stage: Stage, shape: Shape, how: str) -> None:
    stage.provider.reply(shape.reply(**{how: len(shape.reply_body) // 2}))

    answer = stage.call(shape)

    assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_unreachable")
    row = stage.row(answer)
    assert row["ending"] == "upstream_broken"
    assert_estimated(row)


def test_a_large_document_that_breaks(stage: Stage) -> None:
    mark, row_of = stage.tagged()
    stage.provider.reply(CHAT.reply((b" " * 400_000 + CHAT.reply_body,), close_after=399_000))

    with stage.raw_call(CHAT, headers=mark) as call:
        received = call.read_all()

    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-length: 400" in head
    assert len(body) == 399_000
    row = row_of()
    assert row["ending"] == "upstream_broken"
    assert_estimated(row)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_reply_without_usage(stage: Stage, shape: Shape) -> None:
    stage.provider.reply(shape.reply(shape.silent_parts))

    answer = stage.call(shape)

    assert answer.content == b"".join(shape.silent_parts)
    row = stage.row(answer)
    assert (row["ending"], row["http_status"]) == ("complete", 200)
    assert_estimated(row)
    assert row["output_tokens"] > 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("body", [b"", b"\xff\x00", b'{"usage": []}', b"[" * 10_000])
def test_a_reply_that_makes_no_sense(stage: Stage, shape: Shape, body: bytes) -> None:
    stage.provider.reply(shape.reply((body,)))

    answer = stage.call(shape)

    assert (answer.status_code, answer.content) == (200, body)
    assert_estimated(stage.row(answer))


# --- we end it -----------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "count"), PREFIXES, ids=PREFIX_IDS)
def test_a_stream_that_stalls(quick: Stage, shape: Shape, count: int) -> None:
    mark, row_of = quick.tagged()
    passed = b"".join(shape.parts[:count])
    quick.provider.reply(shape.reply(stall_after=len(passed)))

    with quick.raw_call(shape, headers=mark) as call:
        received = call.read_all()

    assert_cut(received, *shape.parts[:count])
    assert_told(shape, received, "upstream_timeout")
    row = row_of()
    assert row["ending"] == ending_after(shape, count, "cut")
    assert_charged_after(row, shape, count)
    eventually(lambda: last_request(quick).hung_up)


def assert_told(shape: Shape, received: bytes, code: str) -> None:
    """The one error event that makes the API's SDK raise; a JSON array has none."""
    if shape is GENERATE_ARRAY:
        assert code.encode() not in received.lower()
        return
    event = received[received.rindex(b"data: ") :]
    data = json.loads(event.partition(b"\n\n")[0].removeprefix(b"data: "))
    assert error_of(httpx.Response(504, json=data))["code"] == code
    lines = received[: received.rindex(b"data: ")].splitlines()
    named = shape.name in ("messages-stream", "responses-stream")
    assert (lines[-1] == b"event: error") is named


@pytest.mark.parametrize("shape", DOCUMENTS, ids=str)
def test_a_document_that_stalls(quick: Stage, shape: Shape) -> None:
    quick.provider.reply(shape.reply(stall_after=len(shape.reply_body) // 2))

    answer = quick.call(shape)

    assert (answer.status_code, error_of(answer)["code"]) == (504, "upstream_timeout")
    row = quick.row(answer)
    assert row["ending"] == "cut"
    assert_estimated(row)


@pytest.mark.parametrize("shape", [CHAT, CHAT_STREAM], ids=str)
def test_a_meter_that_fails_charges_the_hold_and_breaks_nothing(
    stage: Stage, shape: Shape, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(proxy.gateway, "outcome", fails)
        answer = stage.paid(shape)

    assert answer.content == shape.reply_body
    row = stage.row(answer)
    assert_estimated(row)
    assert row["output_tokens"] == 200


@pytest.mark.parametrize("shape", STREAMS, ids=str)
def test_shutting_down_cuts_what_does_not_end(tmp_path: Path, shape: Shape) -> None:
    with Stage(tmp_path, budgets=[BUDGET], server={"drain_s": 0.05}) as stage:
        mark, _ = stage.tagged()
        stage.provider.reply(shape.reply(stall_after=len(shape.parts[0])))
        with stage.raw_call(shape, headers=mark) as call:
            call.read_until(shape.parts[0])
            stopping = threading.Thread(target=stage.app.stop)
            stopping.start()
            received = call.read_all()
            stopping.join(10)
        assert_cut(received, shape.parts[0])
        assert_told(shape, received, "draining")
    with Stage(tmp_path, budgets=[BUDGET]) as stage:
        [row] = stage.rows()
        assert row["ending"] == "cut"
        assert_charged_after(row, shape, 1)
        assert Decimal(stage.nothing_held()["spent"]) == stage.billed()
        assert stage.app.findings() == []


# --- the money is free again ---------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_same_money_admits_again(tmp_path: Path, shape: Shape) -> None:
    """A budget with room for one call at a time, through one bad ending after the other."""
    with Stage(tmp_path) as stage:
        hold = Decimal(stage.paid(shape).headers["x-tollkeeper-hold-usd"])
        room = float(hold * Decimal("1.9"))
        stage.reload(budgets=[BUDGET | {"limit_usd": f"{room:.9f}", "hold_wait_ms": 5000}])
        for reply in (
            Reply(503),
            Reply(on_request="never"),
            shape.reply(close_after=len(shape.reply_body) // 2),
            Reply(on_request="never"),
        ):
            stage.provider.reset()
            stage.provider.on(lambda _: True, reply)
            with stage.raw_call(shape) as call:
                last_request(stage)
                if reply.on_request == "answer":
                    read_head(call)
        stage.provider.reset()
        assert stage.paid(shape).status_code == 200
        assert stage.nothing_held()["held"] == "0"
        assert len(stage.rows()) == 6
        assert stage.app.findings() == []


def read_head(call: RawCall) -> None:
    assert call.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 ")


def test_the_books_are_right(hall: Stage) -> None:
    assert hall.app.findings() == []
