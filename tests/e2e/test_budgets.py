"""Budgets through the whole proxy: holds, refusals, clamps, windows, changes while it runs.

Each test has budgets of its own: their filters differ, so none finds what another has spent.
"""

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

import httpx
import pytest

from tests.e2e.shapes import (
    CHAT,
    CHAT_STREAM,
    DOCUMENTS,
    GENERATE,
    MESSAGES,
    SHAPES,
    Shape,
)
from tests.e2e.stage import Stage, error_of, eventually
from tests.harness import KEY
from tests.replay import Gate, Reply, Request, json_reply, sse_reply

DEAREST_IN, DEAREST_OUT = 250, 1000  # nano-USD per token of gpt-4o-mini, in the priority tier
ADDED_TOKENS = 2048  # what providers add to a request
_numbers = itertools.count(1)


def a_key(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "key_sha256": sha256(f"tk-{name}".encode()).hexdigest()} | more


def organizations(*keys: dict[str, Any]) -> dict[str, Any]:
    prod = a_key("search-prod", key_sha256=sha256(KEY.encode()).hexdigest())
    team = {"keys": [prod, *keys], "projects": {"ranking": {}}}
    return {"acme": {"teams": {"search": team}, "users": {"jane": {}}}}


def a_budget(**fields: Any) -> dict[str, Any]:
    """A budget nobody had before, on the team that calls."""
    own = {"models": ["*", f"unused-{next(_numbers)}"]}
    return {"scope": "team/acme/search", "period": "total", "clamp": False} | own | fields


class Hands:
    """A clock that tests set. It goes on at a minute's start, never by itself."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s

    def to_next_minute(self) -> None:
        self.now_s += 60 - self.now_s % 60


@pytest.fixture(scope="module")
def clock() -> Hands:
    return Hands()


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory, clock: Hands) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("budgets")
    with Stage(directory, now_s=clock, organizations=organizations()) as stage:
        yield stage


@pytest.fixture
def stage(hall: Stage, clock: Hands) -> Iterator[Stage]:
    clock.to_next_minute()
    hall.begin()
    yield hall
    hall.reload(budgets=[], organizations=organizations())


def hold_of(shape: Shape, **changes: Any) -> Decimal:
    """The hold of a call to gpt-4o-mini with an output limit of 200."""
    size = len(shape.request(**changes))
    return Decimal((size + ADDED_TOKENS) * DEAREST_IN + 200 * DEAREST_OUT) / 10**9


def hold_nano(stage: Stage, shape: Shape) -> int:
    """The hold of any shape, as a call without a budget tells it."""
    hold = Decimal(stage.paid(shape).headers["x-tollkeeper-hold-usd"])
    stage.begin()
    return int(hold * 10**9)


def usd(nano: int) -> str:
    return f"{Decimal(nano) / 10**9:f}"


def assert_refused(answer: httpx.Response, code: str = "budget_exceeded") -> dict[str, Any]:
    assert answer.status_code == 429, answer.text
    error = error_of(answer)
    assert error["code"] == code
    final = code != "budget_busy"
    assert answer.headers.get("x-should-retry") == ("false" if final else None)
    assert ("retry-after" in answer.headers) is not final
    return error


# --- the last cent -------------------------------------------------------------------------


class Biller:
    """A provider that bills a part of what a call may cost at most: all of it, if `share` is 1."""

    def __init__(self, share: Decimal, all_here: int) -> None:
        self.billed = Decimal(0)
        self.served = 0
        self._share = share
        self._gate = Gate()
        self._all_here = all_here

    def __call__(self, request: Request) -> Reply:
        given = int((len(request.body) + ADDED_TOKENS) * self._share)
        usage = {"prompt_tokens": given, "completion_tokens": int(200 * self._share)}
        self.billed += Decimal(given * DEAREST_IN + usage["completion_tokens"] * DEAREST_OUT)
        self.served += 1
        if self.served == self._all_here:
            self._gate.open()
        told = {"id": f"c{self.served}", "model": "gpt-4o-mini", "service_tier": "priority"}
        if not request.json().get("stream"):
            return json_reply(told | {"choices": [], "usage": usage}, before=self._gate)
        chunk = json.dumps(told | {"choices": [], "usage": usage})
        return sse_reply([f"data: {chunk}\n\n".encode(), b"data: [DONE]\n\n"], before=self._gate)


@pytest.mark.parametrize("shape", [CHAT, CHAT_STREAM], ids=str)
@pytest.mark.parametrize("share", ["1", "0.5"])
def test_sixty_four_calls_at_once_on_a_budget_for_twenty(
    stage: Stage, shape: Shape, share: str
) -> None:
    hold = hold_of(shape)
    limit = 20 * hold + hold / 2
    stage.reload(budgets=[a_budget(limit_usd=f"{limit:f}", hold_wait_ms=5000)])
    biller = Biller(Decimal(share), all_here=20)
    stage.provider.on(shape.path, biller)

    answers = asyncio.run(at_once(stage, shape, 64))

    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(answers) - len(refused) == biller.served >= 20
    for answer in refused:
        assert_refused(answer)
    while (answer := stage.call(shape)).status_code == 200:
        pass
    assert_refused(answer)
    billed = biller.billed / 10**9
    assert limit - hold < billed <= limit
    assert biller.served == stage.seen() == len(stage.rows())
    assert stage.billed() - stage.billed_before == billed
    assert Decimal(stage.nothing_held()["spent"]) == billed
    assert stage.app.findings() == []


async def at_once(stage: Stage, shape: Shape, count: int) -> list[httpx.Response]:
    async with httpx.AsyncClient(base_url=stage.app.url, timeout=20) as http:
        call = {"content": shape.request(), "headers": stage.headers(shape)}
        return await asyncio.gather(*(http.post(shape.path, **call) for _ in range(count)))


# --- who refuses ---------------------------------------------------------------------------

LEVELS = (
    "organization/acme",
    "team/acme/search",
    "project/acme/search/ranking",
    "user/acme/jane",
    "key/search-prod",
)


@pytest.mark.parametrize("tight", LEVELS)
def test_every_level_refuses_for_all(stage: Stage, tight: str) -> None:
    small = usd(hold_nano(stage, CHAT) - 1)
    budgets = [
        a_budget(scope=scope, limit_usd=small if scope == tight else 100) for scope in LEVELS
    ]
    stage.reload(budgets=budgets)
    who = {"x-tollkeeper-user": "jane", "x-tollkeeper-project": "ranking"}

    error = assert_refused(stage.call(CHAT, headers=who))

    assert (error["scope"], error["spent"], error["held"]) == (tight, "0", "0")
    assert stage.seen() == 0
    assert stage.rows() == []
    # nothing was taken from the others either
    stage.reload(budgets=[budget for budget in budgets if budget["scope"] != tight])
    error = stage.standing(headers=who)
    assert (error["spent"], error["held"]) == ("0", "0")
    stage.provider.reply(CHAT.reply())
    assert stage.call(CHAT, headers=who).status_code == 200
    for budget in budgets:
        if budget["scope"] != tight:
            stage.reload(budgets=[budget])
            error = stage.standing(headers=who)
            assert (error["scope"], error["spent"]) == (budget["scope"], CHAT.cost)


def test_a_budget_that_does_not_apply_does_not_refuse(stage: Stage) -> None:
    none = {"limit_usd": 0}
    stage.reload(
        budgets=[
            a_budget(models=["gpt-4o", "gpt-4.*"], **none),
            a_budget(providers=["anthropic", "openai-*"], **none),
            a_budget(scope="user/acme/jane", **none),
            a_budget(scope="project/acme/search/ranking", **none),
        ]
    )

    assert stage.paid(CHAT).status_code == 200
    assert_refused(stage.call(CHAT, model="gpt-4o"))
    assert_refused(stage.call(CHAT, model="gpt-4.1-mini"))
    assert_refused(stage.call(MESSAGES))
    assert_refused(stage.call(CHAT, headers={"x-tollkeeper-user": "jane"}))
    assert_refused(stage.call(CHAT, headers={"x-tollkeeper-project": "ranking"}))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_spent_budget_says_all_it_knows(stage: Stage, shape: Shape, clock: Hands) -> None:
    hold = hold_nano(stage, shape)
    stage.reload(budgets=[a_budget(limit_usd=usd(hold), period="day", timezone="Europe/Berlin")])
    stage.paid(shape)

    answer = stage.call(shape)

    error = assert_refused(answer)
    midnight = datetime(2027, 1, 15, 23, tzinfo=UTC)  # in Berlin
    assert clock.now_s < midnight.timestamp() < clock.now_s + 86_400
    assert error == {
        "code": "budget_exceeded",
        "scope": "team/acme/search",
        "period": "day",
        "unit": "usd",
        "limit": usd(hold),
        "spent": shape.cost,
        "held": "0",
        "needed": usd(hold),
        "resets_at": "2027-01-15T23:00:00Z",
    }
    assert answer.headers["x-tollkeeper-resets-at"] == "2027-01-15T23:00:00Z"
    assert answer.headers["content-type"] == "application/json"
    assert "day budget of team/acme/search" in answer.json()["error"]["message"]
    assert stage.seen() == 1
    assert len(stage.rows()) == 1


@pytest.mark.parametrize("shape", [CHAT, MESSAGES, GENERATE], ids=str)
def test_what_sdks_read_off_a_refusal(stage: Stage, shape: Shape) -> None:
    stage.reload(budgets=[a_budget(limit_usd=0)])

    body = stage.call(shape).json()

    error = body["error"]
    if shape is CHAT:
        assert (error["type"], error["code"], error["param"]) == (
            "insufficient_quota",
            "budget_exceeded",
            None,
        )
    elif shape is MESSAGES:
        assert (body["type"], error["type"]) == ("error", "rate_limit_error")
    else:
        assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
        retry = [detail for detail in error["details"] if detail["@type"].endswith("RetryInfo")]
        assert int(retry[0]["retryDelay"].removesuffix("s")) > 300


def test_the_status_of_a_refusal_can_be_402(stage: Stage) -> None:
    paying = {
        name: {
            "dialect": name,
            "base_url": stage.provider.url,
            "api_key": "k",
            "prices": name,
            "refusal_status": 402,
        }
        for name in ("openai",)
    }
    with stage.configured(
        budgets=[a_budget(limit_usd=0)],
        providers=paying,
        organizations=organizations(a_key("pays", refusal_status=402), a_key("tries")),
    ):
        assert stage.call(CHAT).status_code == 402
        assert stage.call(CHAT).headers["x-should-retry"] == "false"
        assert stage.call(MESSAGES).status_code == 429
        assert stage.call(MESSAGES, key="tk-pays").status_code == 402
        assert stage.call(MESSAGES, key="tk-tries").status_code == 429
    assert stage.seen() == 0


# --- other units, caps ---------------------------------------------------------------------


def test_tokens(stage: Stage) -> None:
    needed = len(CHAT.request()) + ADDED_TOKENS + 200
    stage.reload(budgets=[a_budget(limit_tokens=needed + 119)])

    stage.paid(CHAT)
    error = assert_refused(stage.call(CHAT))

    assert (error["unit"], error["limit"], error["spent"]) == ("tokens", needed + 119, 120)
    assert (error["held"], error["needed"]) == (0, needed)
    stage.reload(budgets=[a_budget(limit_tokens=needed + 120)])
    stage.paid(CHAT)
    assert stage.paid(CHAT).status_code == 200


def test_requests(stage: Stage) -> None:
    stage.reload(budgets=[a_budget(limit_requests=3)])
    for reply in (CHAT.reply(), Reply(500), Reply(on_request="close"), Reply(on_request="close")):
        stage.provider.reply(reply)

    statuses = [stage.call(CHAT).status_code for _ in range(3)]
    stage.provider.reset()  # what did not reach the provider is no request
    stage.paid(CHAT)
    error = assert_refused(stage.call(CHAT))

    assert statuses == [200, 500, 502]
    assert (error["unit"], error["limit"], error["spent"], error["held"]) == ("requests", 3, 3, 0)


@pytest.mark.parametrize("unit", ["usd", "tokens", "requests"])
def test_a_cap_per_request(stage: Stage, unit: str) -> None:
    tokens = len(CHAT.request()) + ADDED_TOKENS + 200
    needed: Any = {"usd": hold_of(CHAT), "tokens": tokens, "requests": 1}[unit]
    least: Any = Decimal("0.000000001") if unit == "usd" else 1
    limit = f"limit_{unit}"

    def cap(value: Any) -> dict[str, Any]:
        value = f"{value:f}" if unit == "usd" else value
        return a_budget(period="request", **{limit: value})

    stage.reload(budgets=[cap(needed - least)])
    error = assert_refused(stage.call(CHAT))
    assert (error["period"], str(error["needed"])) == ("request", str(needed))
    assert "resets_at" not in error
    assert stage.seen() == 0
    stage.reload(budgets=[cap(needed)])
    for _ in range(3):
        assert stage.paid(CHAT).status_code == 200


def test_a_free_provider_spends_tokens_but_no_money(stage: Stage) -> None:
    local = {"local": {"dialect": "openai", "base_url": stage.provider.url, "prices": "free"}}
    tokens = len(CHAT.request()) + ADDED_TOKENS + 200
    budgets = [a_budget(limit_usd=0), a_budget(limit_tokens=tokens)]
    local_chat = Shape(**vars(CHAT) | {"path": "/local/v1/chat/completions"})
    with stage.configured(providers=local, budgets=budgets):
        stage.provider.reply(local_chat.reply())
        assert stage.row(stage.call(local_chat))["cost_usd"] == "0"
        error = assert_refused(stage.call(local_chat))
        assert (error["unit"], error["spent"]) == ("tokens", 120)
    assert stage.app.findings() == []


# --- busy ----------------------------------------------------------------------------------


def test_waiting_for_a_call_in_flight(stage: Stage) -> None:
    limit = hold_of(CHAT) * 3 / 2
    stage.reload(budgets=[a_budget(limit_usd=f"{limit:f}", hold_wait_ms=8000)])
    gate = Gate()
    stage.provider.reply(CHAT.reply(before=gate), CHAT.reply())
    answers: list[httpx.Response] = []

    with stage.raw_call(CHAT) as first:
        stage.provider.wait(lambda provider: len(provider.requests) == 1)
        second = threading.Thread(target=lambda: answers.append(stage.call(CHAT)))
        second.start()
        two_in_flight(stage)
        assert stage.seen() == 1
        gate.open()
        first.read_until(b"HTTP/1.1 200")
        second.join(10)

    assert [answer.status_code for answer in answers] == [200]
    assert stage.seen() == 2


def two_in_flight(stage: Stage) -> None:
    gateway = stage.app.app.gateway
    assert gateway is not None
    eventually(lambda: len([c for c in list(gateway.in_flight) if c.facts is not None]) == 2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_busy_after_the_wait(stage: Stage, shape: Shape) -> None:
    hold = hold_nano(stage, shape)
    limit = hold * 3 // 2
    stage.reload(budgets=[a_budget(limit_usd=usd(limit), hold_wait_ms=30)])
    gate = Gate()
    stage.provider.reply(shape.reply(before=gate))

    with stage.raw_call(shape) as first:
        stage.provider.wait(lambda provider: len(provider.requests) == 1)
        answer = stage.call(shape)
        gate.open()
        first.read_until(shape.parts[0])

    error = assert_refused(answer, "budget_busy")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert (error["scope"], error["limit"]) == ("team/acme/search", usd(limit))
    assert (error["spent"], error["held"], error["needed"]) == ("0", usd(hold), usd(hold))
    assert stage.seen() == 1
    eventually(stage.rows)
    assert stage.paid(shape).status_code == 200


def test_a_client_that_hangs_up_while_it_waits(stage: Stage) -> None:
    limit = hold_of(CHAT) * 3 / 2
    stage.reload(budgets=[a_budget(limit_usd=f"{limit:f}", hold_wait_ms=8000)])
    gate = Gate()
    stage.provider.reply(CHAT.reply(before=gate), CHAT.reply())

    with stage.raw_call(CHAT) as first:
        stage.provider.wait(lambda provider: len(provider.requests) == 1)
        with stage.raw_call(CHAT):
            two_in_flight(stage)
        gateway = stage.app.app.gateway
        assert gateway is not None
        eventually(lambda: len(gateway.in_flight) == 1)
        gate.open()
        first.read_until(b"HTTP/1.1 200")

    assert stage.seen() == 1
    eventually(stage.rows)
    assert stage.nothing_held()["spent"] == CHAT.cost
    assert len(stage.rows()) == 1
    assert stage.call(CHAT).status_code == 200


# --- clamp ---------------------------------------------------------------------------------

LIMITS = {
    "openai/chat": ("max_completion_tokens",),
    "openai/responses": ("max_output_tokens",),
    "anthropic": ("max_tokens",),
    "gemini": ("generationConfig", "maxOutputTokens"),
}


def limit_field(shape: Shape) -> tuple[str, ...]:
    kind = shape.dialect
    if kind == "openai":
        kind += "/responses" if shape.route == "responses" else "/chat"
    return LIMITS[kind]


def limit_sent(shape: Shape, body: Any) -> Any:
    for name in limit_field(shape):
        body = body.get(name, {})
    return body


def unlimited(shape: Shape) -> Shape:
    body = {name: value for name, value in shape.body.items() if name != limit_field(shape)[0]}
    return Shape(**vars(shape) | {"body": body})


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_call_without_a_limit_takes_its_share(stage: Stage, shape: Shape) -> None:
    call = unlimited(shape)
    free = hold_nano(stage, call) * 4  # an eighth of it is half of what the call could take
    stage.reload(budgets=[a_budget(limit_usd=usd(free), clamp=True)])

    answer = stage.paid(call)

    clamped = int(answer.headers["x-tollkeeper-clamped-max-tokens"])
    sent = json.loads(stage.provider.requests[0].body)
    assert limit_sent(shape, sent) == clamped
    field = limit_field(shape)[0]
    assert {name: value for name, value in sent.items() if name != field} == call.body
    hold = Decimal(answer.headers["x-tollkeeper-hold-usd"]) * 10**9
    assert free / 8 - 20_000 < hold <= free / 8
    assert stage.row(answer)["hold_usd"] == answer.headers["x-tollkeeper-hold-usd"]


@pytest.mark.parametrize("shape", DOCUMENTS, ids=str)
def test_a_call_that_takes_less_than_its_share_is_left_alone(stage: Stage, shape: Shape) -> None:
    call = unlimited(shape)
    free = hold_nano(stage, call) * 8
    stage.reload(budgets=[a_budget(limit_usd=usd(free), clamp=True)])

    answer = stage.paid(call)

    assert "x-tollkeeper-clamped-max-tokens" not in answer.headers
    assert stage.provider.requests[0].body == call.request()


def with_limit(shape: Shape, limit: int) -> Shape:
    name, *below = limit_field(shape)
    value: Any = {below[0]: limit} if below else limit
    return Shape(**vars(shape) | {"body": shape.body | {name: value}})


@pytest.mark.parametrize("shape", DOCUMENTS, ids=str)
def test_a_limit_of_ones_own_is_lowered_only_if_need_be(stage: Stage, shape: Shape) -> None:
    call = with_limit(shape, 10_000)
    hold = hold_nano(stage, call)
    stage.reload(budgets=[a_budget(limit_usd=usd(hold), clamp=True)])
    answer = stage.paid(call)
    assert "x-tollkeeper-clamped-max-tokens" not in answer.headers
    assert stage.provider.requests[0].body == call.request()

    free = hold - int(Decimal(shape.cost) * 10**9)
    answer = stage.paid(call)

    clamped = int(answer.headers["x-tollkeeper-clamped-max-tokens"])
    assert 9000 < clamped < 10_000
    assert limit_sent(shape, json.loads(stage.provider.requests[1].body)) == clamped
    now_held = Decimal(answer.headers["x-tollkeeper-hold-usd"]) * 10**9
    assert free - 20_000 < now_held <= free


@pytest.mark.parametrize("names", [["max_tokens"], ["max_tokens", "max_completion_tokens"]])
def test_the_field_the_request_uses_is_lowered(stage: Stage, names: list[str]) -> None:
    body = {name: value for name, value in CHAT.body.items() if "max" not in name}
    call = Shape(**vars(CHAT) | {"body": body | dict.fromkeys(names, 10_000)})
    stage.reload(budgets=[a_budget(limit_usd=usd(hold_nano(stage, call) - 1), clamp=True)])

    clamped = int(stage.paid(call).headers["x-tollkeeper-clamped-max-tokens"])

    sent = json.loads(stage.provider.requests[0].body)
    assert {name: sent[name] for name in sent if "max" in name} == dict.fromkeys(names, clamped)


@pytest.mark.parametrize(("shape", "least"), [(CHAT, 1024), (MESSAGES, 1024), (GENERATE, 4096)])
def test_nothing_is_clamped_below_the_minimum(stage: Stage, shape: Shape, least: int) -> None:
    exact = hold_nano(stage, with_limit(shape, least))
    call = with_limit(shape, 10_000)
    call = Shape(**vars(call) | {"path": call.path})
    larger = len(call.request()) - len(with_limit(shape, least).request())
    room = exact + larger * 10_000  # more bytes, at any rate
    stage.reload(budgets=[a_budget(limit_usd=usd(room), clamp=True, clamp_min_tokens=1024)])
    clamped = int(stage.paid(call).headers["x-tollkeeper-clamped-max-tokens"])
    assert least <= clamped < least + 100

    stage.begin()
    stage.reload(budgets=[a_budget(limit_usd=usd(exact * 9 // 10), clamp=True)])
    error = assert_refused(stage.call(call))
    assert Decimal(error["needed"]) >= Decimal(exact) / 10**9
    assert stage.seen() == 0
    assert_refused(stage.call(unlimited(shape)))


def test_without_clamp_a_call_is_refused_instead(stage: Stage) -> None:
    call = unlimited(CHAT)
    stage.reload(budgets=[a_budget(limit_usd=usd(hold_nano(stage, call) - 1))])

    assert_refused(stage.call(call))
    assert stage.seen() == 0


def test_the_tightest_budget_clamps(stage: Stage) -> None:
    hold = hold_nano(stage, unlimited(CHAT))
    tokens = 8 * (len(unlimited(CHAT).request()) + ADDED_TOKENS + 3000)
    stage.reload(
        budgets=[
            a_budget(limit_usd=usd(hold * 4), clamp=True),
            a_budget(limit_tokens=tokens, clamp=True),
            a_budget(limit_requests=1, clamp=True),
        ]
    )

    answer = stage.paid(unlimited(CHAT))

    assert answer.headers["x-tollkeeper-clamped-max-tokens"] == "3000"


def test_a_cap_per_request_may_be_taken_whole(stage: Stage) -> None:
    size = len(unlimited(CHAT).request()) + ADDED_TOKENS
    cap = size * DEAREST_IN + 5000 * DEAREST_OUT
    stage.reload(budgets=[a_budget(period="request", limit_usd=usd(cap), clamp=True)])

    answer = stage.paid(unlimited(CHAT))

    assert answer.headers["x-tollkeeper-clamped-max-tokens"] == "5000"
    assert answer.headers["x-tollkeeper-hold-usd"] == usd(cap).rstrip("0")


def test_an_embedding_has_no_output_to_clamp(stage: Stage) -> None:
    body = {"model": "text-embedding-3-small", "input": ["one", "two"]}
    shape = Shape(**vars(CHAT) | {"path": "/v1/embeddings", "body": body})
    stage.reload(budgets=[a_budget(limit_usd="0.00005", clamp=True)])
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    stage.provider.reply(json_reply({"model": body["model"], "data": [], "usage": usage}))

    answer = stage.call(shape)

    assert stage.provider.requests[0].body == shape.request()
    assert stage.row(answer)["cost_usd"] == "0.00000008"


# --- windows -------------------------------------------------------------------------------


def test_a_minute_ends(stage: Stage, clock: Hands) -> None:
    stage.reload(budgets=[a_budget(limit_usd=f"{hold_of(CHAT):f}", period="minute")])
    stage.paid(CHAT)
    clock.now_s += 59
    error = assert_refused(stage.call(CHAT))
    resets = datetime.fromtimestamp(clock.now_s + 1, UTC)
    assert error["resets_at"] == f"{resets:%Y-%m-%dT%H:%M:%SZ}"

    clock.now_s += 1
    answer = stage.paid(CHAT)

    assert stage.row(answer)["at"].startswith(f"{resets:%Y-%m-%dT%H:%M:%S}")
    error = assert_refused(stage.call(CHAT))
    assert (error["spent"], error["held"]) == (CHAT.cost, "0")
    assert stage.app.findings() == []


def test_a_call_is_charged_to_the_minute_it_began_in(stage: Stage, clock: Hands) -> None:
    stage.reload(budgets=[a_budget(limit_usd=f"{hold_of(CHAT):f}", period="minute")])
    began_s = clock.now_s
    gate = Gate()
    stage.provider.reply(CHAT.reply(before=gate))
    with stage.raw_call(CHAT) as first:
        stage.provider.wait(lambda provider: len(provider.requests) == 1)
        clock.now_s += 60
        assert (found := stage.standing())["held"] == found["spent"] == "0"
        gate.open()
        first.read_until(b"HTTP/1.1 200")
    eventually(lambda: stage.app.rows(int(began_s * 1000)))

    assert stage.standing()["spent"] == "0"
    assert stage.paid(CHAT).status_code == 200
    clock.now_s -= 60
    error = assert_refused(stage.call(CHAT))
    assert (error["spent"], error["held"]) == (CHAT.cost, "0")


def test_a_key_expires(stage: Stage, clock: Hands) -> None:
    end = datetime.fromtimestamp(clock.now_s + 10, UTC).isoformat()
    stage.reload(organizations=organizations(a_key("short", expires=end)))
    assert stage.paid(CHAT, key="tk-short").status_code == 200

    clock.now_s += 10
    answer = stage.call(CHAT, key="tk-short")

    assert (answer.status_code, error_of(answer)["code"]) == (401, "key_expired")


# --- changes while it runs -----------------------------------------------------------------


def test_a_limit_is_lowered_and_raised(stage: Stage) -> None:
    hold = hold_of(CHAT)
    budget = a_budget()

    def limited(usd_: Decimal) -> None:
        stage.reload(budgets=[budget | {"limit_usd": f"{usd_:f}"}])

    limited(hold * 10)
    stage.paid(CHAT)
    limited(hold)
    error = assert_refused(stage.call(CHAT))
    assert (Decimal(error["limit"]), error["spent"]) == (hold, CHAT.cost)
    limited(hold + Decimal(CHAT.cost))
    stage.paid(CHAT)
    assert_refused(stage.call(CHAT))
    limited(Decimal(0))
    assert_refused(stage.call(CHAT))
    limited(hold * 10)
    assert stage.paid(CHAT).status_code == 200
    assert stage.app.findings() == []


def test_a_limit_lowered_below_what_is_held(stage: Stage) -> None:
    hold = hold_of(CHAT)
    budget = a_budget(hold_wait_ms=30)
    stage.reload(budgets=[budget | {"limit_usd": f"{hold * 10:f}"}])
    gate = Gate()
    stage.provider.reply(CHAT.reply(before=gate))
    with stage.raw_call(CHAT) as first:
        stage.provider.wait(lambda provider: len(provider.requests) == 1)
        stage.reload(budgets=[budget | {"limit_usd": f"{hold / 2:f}"}])
        assert_refused(stage.call(CHAT))
        gate.open()
        first.read_until(b"HTTP/1.1 200")
    eventually(stage.rows)

    assert stage.nothing_held()["spent"] == CHAT.cost
    assert_refused(stage.call(CHAT))
    assert stage.app.findings() == []


def test_a_budget_is_deleted_and_comes_back(stage: Stage) -> None:
    budget = a_budget(limit_usd=f"{hold_of(CHAT):f}")
    stage.reload(budgets=[budget])
    stage.paid(CHAT)
    assert_refused(stage.call(CHAT))

    stage.reload(budgets=[])
    answer = stage.paid(CHAT)
    assert "x-tollkeeper-remaining-usd" not in answer.headers
    stage.reload(budgets=[budget])

    error = assert_refused(stage.call(CHAT))
    assert error["spent"] == CHAT.cost
    assert stage.app.findings() == []


def test_a_budget_is_deleted_under_a_call(stage: Stage) -> None:
    budget = a_budget(limit_usd=1)
    stage.reload(budgets=[budget])
    gate = Gate()
    stage.provider.reply(CHAT.reply(before=gate))
    with stage.raw_call(CHAT) as first:
        stage.provider.wait(lambda provider: len(provider.requests) == 1)
        stage.reload(budgets=[])
        gate.open()
        first.read_until(b"HTTP/1.1 200")
    eventually(stage.rows)

    stage.reload(budgets=[budget])
    assert stage.nothing_held()["spent"] == CHAT.cost


def test_a_key_is_revoked_and_comes_back(stage: Stage) -> None:
    new = a_key("new")
    assert stage.call(CHAT, key="tk-new").status_code == 401
    stage.reload(organizations=organizations(new))
    stage.paid(CHAT, key="tk-new")

    stage.reload(organizations=organizations())
    answer = stage.call(CHAT, key="tk-new")
    assert (answer.status_code, error_of(answer)["code"]) == (401, "key_revoked")
    assert answer.headers["x-should-retry"] == "false"
    assert stage.paid(CHAT).status_code == 200
    stage.reload(organizations=organizations(new))
    assert stage.row(stage.paid(CHAT, key="tk-new"))["key"] == "new"


def test_what_is_left_is_told(stage: Stage) -> None:
    stage.reload(budgets=[a_budget(limit_usd=1), a_budget(limit_usd="0.5", period="day")])
    for number in range(1, 4):
        remaining = Decimal(stage.paid(CHAT).headers["x-tollkeeper-remaining-usd"])
        assert remaining == Decimal("0.5") - number * Decimal(CHAT.cost)


def test_the_books_are_right(hall: Stage) -> None:
    assert hall.app.findings() == []
