"""End customers through the whole proxy: a budget each, made when they are first met."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from db.errors import DatabaseUnusable
from db.models import RefusalCount
from proxy.control import customers
from tests.e2e.shapes import CHAT, CHAT_STREAM, MESSAGES, MESSAGES_STREAM, RESPONSES
from tests.e2e.stage import Stage, error_of, eventually
from tests.e2e.test_budgets import Biller, a_budget, hold_of

ME = "/tollkeeper/v1/me"
HEADER = "x-tollkeeper-customer"


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("customers")) as stage:
        yield stage


@pytest.fixture
def stage(hall: Stage) -> Iterator[Stage]:
    hall.begin()
    yield hall
    hall.reload(budgets=[])


def each(**fields: Any) -> dict[str, Any]:
    return a_budget(each="customer", **fields)


def of(customer: str) -> dict[str, str]:
    return {HEADER: customer}


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    return error


def test_what_one_customer_has_spent_is_no_business_of_another(stage: Stage) -> None:
    limit = hold_of(CHAT) + Decimal("0.000001")
    stage.reload(budgets=[each(limit_usd=f"{limit:f}"), a_budget(limit_usd=100)])
    stage.provider.on(CHAT.path, Biller(Decimal(1), all_here=1))
    assert stage.call(CHAT, headers=of("c-1")).status_code == 200
    error = refused(stage.call(CHAT, headers=of("c-1")), 429, "budget_exceeded")
    assert (error["scope"], error["customer"]) == ("customer/team/acme/search/c-1", "c-1")
    answer = stage.call(CHAT, headers=of("c-2"))
    assert answer.status_code == 200
    assert stage.call(CHAT).status_code == 200  # of no customer: the template is not for it
    tags = [row["tags"] for row in stage.rows()]
    assert tags.count({"tollkeeper.customer": "c-1"}) == 1
    assert tags.count({}) == 1
    assert stage.row(answer)["tags"] == {"tollkeeper.customer": "c-2"}
    assert stage.app.findings() == []


def test_sixty_four_calls_at_once_of_a_new_customer_with_room_for_twenty(stage: Stage) -> None:
    hold = hold_of(CHAT)
    limit = 20 * hold + hold / 2
    stage.reload(budgets=[each(limit_usd=f"{limit:f}", hold_wait_ms=5000)])
    biller = Biller(Decimal(1), all_here=20)
    stage.provider.on(CHAT.path, biller)

    async def at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=stage.app.url, timeout=20) as http:
            headers = stage.headers(CHAT) | of("new")
            call: dict[str, Any] = {"content": CHAT.request(), "headers": headers}
            return await asyncio.gather(*(http.post(CHAT.path, **call) for _ in range(64)))

    answers = asyncio.run(at_once())
    assert [answer.status_code for answer in answers].count(200) == biller.served == 20
    assert biller.billed / 10**9 <= limit
    assert stage.billed() - stage.billed_before == biller.billed / 10**9
    assert stage.app.findings() == []


def test_a_new_limit_is_one_of_all_customers_spent_money_included(stage: Stage) -> None:
    budget = each(limit_usd=1)
    stage.reload(budgets=[budget])
    stage.paid(CHAT, headers=of("c-1"))
    stage.reload(budgets=[budget | {"limit_usd": "0.000001"}])
    error = refused(stage.call(CHAT, headers=of("c-1")), 429, "budget_exceeded")
    assert (error["limit"], error["spent"]) == ("0.000001", CHAT.cost)
    stage.reload(budgets=[])
    stage.paid(CHAT, headers=of("c-1"))
    stage.reload(budgets=[budget])
    me = stage.http.get(ME, headers=stage.headers(CHAT) | of("c-1")).json()
    (standing,) = me["budgets"]
    assert (me["customer"], standing["customer"]) == ("c-1", "c-1")
    assert (standing["limit"], standing["spent"]) == ("1", CHAT.cost)


def test_those_beyond_the_cap_are_refused_or_share(stage: Stage) -> None:
    budget = each(limit_usd=1, customers={"tracked_max": 2})
    stage.reload(budgets=[budget])
    for customer in ("c-1", "c-2", "c-1"):
        stage.paid(CHAT, headers=of(customer))
    error = refused(stage.call(CHAT, headers=of("c-3")), 403, "too_many_customers")
    assert (error["customer"], error["tracked_max"]) == ("c-3", 2)
    stage.reload(budgets=[budget | {"customers": {"tracked_max": 2, "beyond": "share"}}])
    for customer in ("c-3", "c-4", "c-3"):
        stage.paid(CHAT, headers=of(customer))
    me = stage.http.get(ME, headers=stage.headers(CHAT) | of("c-4")).json()
    assert Decimal(me["budgets"][0]["spent"]) == 3 * Decimal(CHAT.cost)


def test_a_customer_that_has_to_be_named(stage: Stage) -> None:
    budget = each(limit_usd=1, customers={"required": True})
    stage.reload(budgets=[budget])
    refused(stage.call(CHAT), 400, "customer_required")
    refused(stage.call(MESSAGES), 400, "customer_required")
    stage.paid(CHAT, headers=of("c-1"))
    stage.reload(budgets=[budget | {"enforce": False}])
    stage.paid(CHAT)


def test_hostile_ids_are_refused_and_leave_nothing(stage: Stage) -> None:
    stage.reload(budgets=[each(limit_usd=1)])
    for customer in ("", "a b", "x" * 129, "a,b", "<b>", "*", "a'b"):
        refused(stage.call(CHAT, headers=of(customer)), 400, "invalid_tollkeeper_header")
    assert stage.rows() == []


def test_an_outage_lets_nobody_new_in_unless_it_is_allowed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.reload(budgets=[each(limit_usd=1)])
    stage.paid(CHAT, headers=of("known"))

    def away(*_: Any, **__: Any) -> None:
        raise DatabaseUnusable("away")

    with monkeypatch.context() as patch:
        patch.setattr(customers, "meet", away)
        stage.paid(CHAT, headers=of("known"))
        refused(stage.call(CHAT, headers=of("new")), 503, "ledger_unavailable")
    with stage.configured(on_ledger_outage="allow"), monkeypatch.context() as patch:
        patch.setattr(customers, "meet", away)
        stage.provider.reply(CHAT.reply())
        answer = stage.call(CHAT, headers=of("newer"))
        assert answer.status_code == 200
        assert stage.row(answer)["tags"] == {"tollkeeper.customer": "newer"}
    stage.paid(CHAT, headers=of("new"))


# --- named in the body -----------------------------------------------------------------------


FROM_BODY = {"from_body": True, "required": True}


@pytest.mark.parametrize(
    ("shape", "fields", "customer"),
    [
        (CHAT, {"user": "c-1"}, "c-1"),
        (CHAT, {"user": "c-1", "safety_identifier": "c-2"}, "c-2"),
        (CHAT, {"user": "c-1", "safety_identifier": None}, "c-1"),
        (CHAT_STREAM, {"user": "c-1"}, "c-1"),
        (RESPONSES, {"safety_identifier": "ann@example.com"}, "ann@example.com"),
        (MESSAGES, {"metadata": {"user_id": "c-1"}}, "c-1"),
        (MESSAGES_STREAM, {"metadata": {"user_id": "c-1"}}, "c-1"),
        (CHAT, {"user": "<b>x</b>"}, f"sha256:{sha256(b'<b>x</b>').hexdigest()}"),
        (CHAT, {"user": "*"}, f"sha256:{sha256(b'*').hexdigest()}"),
        (CHAT, {"user": "c" * 4096}, f"sha256:{sha256(b'c' * 4096).hexdigest()}"),
    ],
    ids=str,
)
def test_the_apis_own_field_names_the_customer(
    stage: Stage, shape: Any, fields: dict[str, Any], customer: str
) -> None:
    stage.reload(budgets=[each(limit_usd=1, customers=FROM_BODY)])
    stage.paid(shape, **fields)
    assert [row["tags"] for row in stage.rows()] == [{"tollkeeper.customer": customer}]
    me = stage.http.get(ME, headers=stage.headers(shape) | of(customer)).json()
    assert Decimal(me["budgets"][0]["spent"]) == Decimal(shape.cost)


def test_calls_of_a_connection_name_one_customer_after_the_other(stage: Stage) -> None:
    """Heads are alike, so what is remembered of them must not be of one customer."""
    limit = hold_of(CHAT) * Decimal("1.5")
    stage.reload(budgets=[each(limit_usd=f"{limit:f}", customers=FROM_BODY)])
    stage.provider.on(CHAT.path, Biller(Decimal(1), all_here=1))
    assert [stage.call(CHAT, user=user).status_code for user in ("a", "b", "a", "c", "b")] == [
        200, 200, 429, 200, 429,
    ]  # fmt: skip
    error = refused(stage.call(CHAT, user="b"), 429, "budget_exceeded")
    assert error["customer"] == "b"
    header = stage.call(CHAT, headers=of("d"), user="a")
    assert (header.status_code, stage.row(header)["tags"]["tollkeeper.customer"]) == (200, "d")
    nobody = stage.call(CHAT)
    refused(nobody, 400, "customer_required")
    assert "or in the request's own field" in nobody.text
    assert stage.app.findings() == []


def test_bodies_that_name_nobody_or_make_no_sense(stage: Stage) -> None:
    stage.reload(budgets=[each(limit_usd=1, customers=FROM_BODY)])
    for value in (7, True, ["c-1"], {"id": "c-1"}):
        refused(stage.call(CHAT, user=value), 400, "bad_request")
    for nobody in (None, ""):
        refused(stage.call(CHAT, user=nobody), 400, "customer_required")
    for metadata in (None, "c-1", ["c-1"], {"user_id": None}, {"user": "c-1"}):
        refused(stage.call(MESSAGES, metadata=metadata), 400, "customer_required")
    stage.reload(budgets=[each(limit_usd=1)])  # as long as nobody asks for it, it is just text
    stage.paid(CHAT, user="c-1")
    assert [row["tags"] for row in stage.rows()] == [{}]


def test_what_was_refused_is_counted_in_the_ledger(stage: Stage) -> None:
    stage.reload(budgets=[each(limit_usd="0.000001")])
    for customer in ("r-1", "r-1", "r-2"):
        refused(stage.call(CHAT, headers=of(customer)), 429, "budget_exceeded")
    assert stage.call(CHAT, key="nobody-knows-it").status_code == 401
    control = stage.app.app.control
    assert control.parts is not None
    transactions = control.parts.transactions
    names = ("code", "team", "model", "scope", "calls")
    query = select(*(getattr(RefusalCount, name) for name in names))
    scope = "customer/team/acme/search"
    expected = {
        ("budget_exceeded", "search", CHAT.model, f"{scope}/r-1", 2),
        ("budget_exceeded", "search", CHAT.model, f"{scope}/r-2", 1),
        ("invalid_api_key", "", "", "", 1),
    }

    def counted() -> bool:
        stage.app.run(control.flush())
        rows = stage.app.run(transactions.run(lambda c: list(c.execute(query))))
        return expected <= {tuple(row) for row in rows}

    assert eventually(counted)
