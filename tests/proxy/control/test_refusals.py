"""The newest refused calls, for whoever may see them."""

from proxy.control.refusals import KEPT_MAX, Refusals
from tests.proxy.control.dashboard.conftest import a_refusal


def test_the_last_one_is_first_and_each_sees_its_own():
    refusals = Refusals()
    refusals.add([a_refusal("search", "a"), a_refusal("ads", "b")])
    everybody = refusals.newest(lambda *_: True)
    assert [each.team for each in everybody] == ["ads", "search"]
    (own,) = refusals.newest(lambda _, team: team == "ads")
    assert refusals.find(own.request_id, lambda *_: True) == own
    assert refusals.find(own.request_id, lambda _, team: team == "search") is None
    assert refusals.counts(lambda *_: True) == [("budget_exceeded", 2)]


def test_only_so_many_are_kept():
    refusals = Refusals()
    refusals.add(a_refusal("search", str(n)) for n in range(KEPT_MAX + 5))
    kept = refusals.newest(lambda *_: True)
    assert (len(kept), kept[0].model) == (KEPT_MAX, str(KEPT_MAX + 4))
