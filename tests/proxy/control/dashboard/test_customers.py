"""A budget for each customer: a line among the budgets, its customers on its own page."""

import re

import pytest

from db.customers import meet

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_customers_are_listed_escaped_and_for_those_who_may_see_them(scene):
    admin = await scene.admin()
    made = {"scope": "team/acme/search", "limit": "5", "unit": "usd", "period": "month"}
    await admin.post("/budgets", {**made, "each": "customer"}, "/budgets")
    number = _number(await admin.get("/budgets"))
    asked = [(number, customer) for customer in ("c-1", "<b>x</b>")]
    await scene.control.parts.transactions.run(lambda connection: meet(connection, asked, 0))
    page = (await admin.get(f"/budgets/{number}")).text
    assert "for each customer, per month" in page
    assert "named in a header; beyond 10,000 they are refused" in page
    assert f"/budgets/{number}/customers" in page
    fields = {"customer": "c-1", "by": "2", "until": "2031-01-31", "reason": "a <b>launch</b>"}
    place = f"/budgets/{number}"
    assert (await admin.post(f"{place}/raises", fields, at=place)).status_code == 303
    page = (await admin.get(place)).text
    assert '<span class="name">c-1</span> <strong>+$2.00</strong>' in page
    assert "a &lt;b&gt;launch&lt;/b&gt;" in page
    wrong = await admin.post(f"{place}/raises", fields | {"customer": "<b>"}, at=place)
    assert (wrong.status_code, 'value="&lt;b&gt;"' in wrong.text) == (400, True)
    viewer = await scene.viewer()
    part = (await viewer.get(f"/budgets/{number}/customers")).text
    assert "2 of at most 10,000 are tracked" in part
    assert part.count("+$2.00 for a while") == 1
    assert re.findall(r'<th scope="row">(.*?)</th>', part) == ["&lt;b&gt;x&lt;/b&gt;", "c-1"]
    budgets = scene.control.snapshot.budgets
    plain = next(b.id for b in budgets if b.scope == "team/acme/search" and not b.each)
    assert (await viewer.get(f"/budgets/{plain}/customers")).status_code == 200
    others = next(b.id for b in budgets if b.scope == "team/acme/ads")
    assert (await viewer.get(f"/budgets/{others}/customers")).status_code == 404


def _number(answer) -> int:
    rows = re.findall(r"<tr>.*?</tr>", answer.text, re.DOTALL)
    (row,) = [row for row in rows if "for each customer" in row]
    return int(re.search(r"/budgets/(\d+)", row)[1])
