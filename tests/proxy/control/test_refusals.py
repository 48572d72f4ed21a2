"""Refused calls: the newest ones for whoever may see them, and counts that reach the ledger."""

import logging

import pytest

from db.refusals import FOLDED, HOUR_MS
from proxy.control import refusals as module
from proxy.control.clock import Clock, Due
from proxy.control.refusals import KEPT_MAX, STORE_S, Refusals
from proxy.wire import RefusedGroup
from tests.proxy.control.dashboard.conftest import a_refusal

HOUR = 500_000


def a_group(model="gpt-5", calls=1, hour=HOUR, scope="team/acme/search"):
    names = ("acme", "search", "prod", "openai", model, "budget_exceeded", scope)
    return RefusedGroup(*names, calls, hour * HOUR_MS + 5)


class Store:
    """Transactions that take what is counted, or fail."""

    def __init__(self):
        self.taken, self.fails, self.now_s = [], None, 0.0
        self.due = Due(Clock(lambda: 0, lambda: self.now_s))

    async def run(self, work):
        if "counts" not in work.keywords:
            return
        if self.fails is not None:
            raise self.fails
        self.taken.append(dict(work.keywords["counts"]))

    async def store(self, refusals):
        await refusals.store(self, "host", self.due, HOUR * HOUR_MS)


def test_the_last_one_is_first_and_each_sees_its_own():
    refusals = Refusals()
    refusals.add([a_refusal("search", "a"), a_refusal("ads", "b")])
    everybody = refusals.newest(lambda *_: True)
    assert [each.team for each in everybody] == ["ads", "search"]
    (own,) = refusals.newest(lambda _, team: team == "ads")
    assert refusals.find(own.request_id, lambda *_: True) == own
    assert refusals.find(own.request_id, lambda _, team: team == "search") is None


def test_only_so_many_are_kept():
    refusals = Refusals()
    refusals.add(a_refusal("search", str(n)) for n in range(KEPT_MAX + 5))
    kept = refusals.newest(lambda *_: True)
    assert (len(kept), kept[0].model) == (KEPT_MAX, str(KEPT_MAX + 4))


async def test_counts_are_stored_now_and_then_and_once():
    refusals, store = Refusals(), Store()
    await store.store(refusals)
    assert store.taken == []
    refusals.add([], [a_group(calls=2), a_group("o3"), a_group(calls=3)])
    await store.store(refusals)
    refusals.add([], [a_group()])
    await store.store(refusals)  # not yet
    assert [[(g.model, c.calls) for g, c in each.items()] for each in store.taken] == [
        [("gpt-5", 5), ("o3", 1)]
    ]
    store.now_s += STORE_S
    await store.store(refusals)
    assert len(store.taken) == 2


async def test_a_flood_of_names_is_folded_by_hour(monkeypatch):
    monkeypatch.setattr(module, "GROUPS_MAX", 2)
    refusals, store = Refusals(), Store()
    refusals.add([], [a_group(f"m-{n}", scope=f"s-{n}") for n in range(9)])
    refusals.add([], [a_group("m-1", scope="s-1"), a_group("m-7", hour=HOUR + 1)])
    for hour in range(HOUR + 2, HOUR + 9):
        refusals.add([], [a_group(hour=hour)])
    assert len(refusals._apart) == 2
    await store.store(refusals)
    (counts,) = store.taken
    first = {(g.model, g.scope): c.calls for g, c in counts.items() if g.hour == HOUR}
    assert first == {("m-0", "s-0"): 1, ("m-1", "s-1"): 2, (FOLDED, FOLDED): 7}
    assert [g.model for g in counts if g.hour == HOUR + 1] == ["m-7"]


async def test_an_outage_keeps_them_and_a_refusal_of_the_database_stops_nothing(caplog):
    refusals, store = Refusals(), Store()
    refusals.add([], [a_group()])
    store.fails = ConnectionError("away")
    with pytest.raises(ConnectionError):
        await store.store(refusals)
    refusals.add([], [a_group()])
    store.fails, store.now_s = None, STORE_S
    await store.store(refusals)
    assert [c.calls for c in store.taken[0].values()] == [2]
    refusals.add([], [a_group()])
    store.fails, store.now_s = ValueError("not that"), 2 * STORE_S
    with caplog.at_level(logging.ERROR):
        await store.store(refusals)
    assert "refused calls cannot be counted: not that" in caplog.text
