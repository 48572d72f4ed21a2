"""Holds and settlements of one worker, message by message."""

import asyncio

import pytest
from msgspec.structs import replace

from db.journal_records import Hold, Settle
from proxy.admission import Terms, exceeded_cap
from proxy.budgets import REPEAT_TICKS
from proxy.holds import HoldResult
from proxy.line import ANSWER_WAIT_S
from proxy.scopes import Principal
from proxy.wire import Room, Slices, SliceStatus, Status, Unwant, Want
from tests.factories import a_bound, a_budget, a_call_id, a_hold, a_key, a_price, a_settle
from tests.proxy.money import ListJournal, ManualClock, a_snapshot, a_worker, hold

CALLER = Principal(a_key(), "", "", 0)
WAIT_S = 2.0
IDLE_TICKS = 4  # here


@pytest.fixture(autouse=True)
def soon_idle(monkeypatch):
    monkeypatch.setattr("proxy.slices.IDLE_TICKS", IDLE_TICKS)


class Bench:
    """A worker with one budget of $0.000001 (1000 nano-USD) in total, and what it sends."""

    def __init__(self, *budgets, **settings):
        self.clock, self.journal, self.sent = ManualClock(), ListJournal(), []
        self.worker = a_worker(self.clock, self.sent.append, self.journal)
        self.budgets = budgets or (a_budget(limit=1000, period="total"),)
        self.worker.apply(a_snapshot(*self.budgets, **settings))
        self.window = (self.budgets[0].id, 0)
        self.calls = {}
        self.spent = 0

    def begin(self, name, amount, tokens=1, client_gone=None, learned=None):
        """Start a call; it is held, refused or waiting once the loop has run."""
        applicable = self.worker.for_call(CALLER, "openai", "gpt-5")
        call_id = name.encode().ljust(16)
        attempt = hold(
            self.worker,
            a_hold(call_id, ceiling_nano=amount),
            applicable,
            a_bound(amount, tokens, learned),
            self.clock.now,
            client_gone,
        )
        self.calls[name] = asyncio.ensure_future(attempt)

    async def result(self, name) -> HoldResult | None:
        """None: the call waits."""
        await self.run()
        task = self.calls[name]
        return task.result() if task.done() else None

    async def run(self):
        for _ in range(5):
            await asyncio.sleep(0)

    def grant(self, total, *, window=None, answered=(), **room):
        window = window or self.window
        room = {"limit": 1000, "spent": self.spent, "committed": total, "free": 0} | room
        self.worker.on_slices(
            Slices(
                [(window, total)], [Room(window, **room)], [n.encode().ljust(16) for n in answered]
            )
        )

    def outage(self, total, *, answered=()):
        ids = [name.encode().ljust(16) for name in answered]
        self.worker.on_slices(Slices([(self.window, total)], [], ids, outage=True))

    def settle(self, name, charge):
        held = self.calls[name].result().held
        record = a_settle(a_hold(held.call_id, held.amounts), charge)
        self.worker.settle(held, record)

    @property
    def slice(self):
        return self.worker._slices[self.window]

    def take_sent(self, kind):
        found = [message for message in self.sent if isinstance(message, kind)]
        self.sent.clear()
        return found

    def deadline_ms(self):
        """Of a call that begins to wait now."""
        return int((self.clock.now + max(WAIT_S, ANSWER_WAIT_S)) * 1000)

    def messages(self):
        sent, self.sent[:] = list(self.sent), []
        return sent


async def kind(bench, name):
    result = await bench.result(name)
    return "waits" if result is None else result.kind


@pytest.mark.parametrize(
    "script",
    [
        # what happens, and then: free, held and used of the slice
        pytest.param(
            "grant 100 -> 100 0 0; hold a 60 held -> 40 60 0; settle a 10 -> 90 0 10;"
            "hold b 90 held -> 0 90 10; settle b 90 -> 0 0 100",
            id="what a call does not need is free at once",
        ),
        pytest.param(
            "grant 100 -> 100 0 0; hold a 60 held -> 40 60 0; hold b 60 waits -> 40 60 0;"
            "settle a 10 -> 30 60 10; is b held -> 30 60 10",
            id="a settlement lets the next one in",
        ),
        pytest.param(
            "hold a 60 waits; grant 60 -> 0 60 0; is a held; grant 60 -> 0 60 0",
            id="the first call of a window waits for its money; a repeat does no harm",
        ),
        pytest.param(
            "grant 100 -> 100 0 0; grant 60 -> 100 0 0; grant 150 -> 150 0 0",
            id="grants are totals",
        ),
        pytest.param(
            "grant 100 -> 100 0 0; hold a 60 held -> 40 60 0; settle a 75 -> 40 0 60",
            id="a cost above its hold takes nothing else from the slice",
        ),
        pytest.param(
            "grant 100 -> 100 0 0; hold a 0 held -> 100 0 0; settle a 0 -> 100 0 0",
            id="a call that is free holds nothing",
        ),
        pytest.param("hold a 0 held -> 0 0 0", id="and asks nobody"),
        pytest.param(
            "grant 100 spent 950 -> 100 0 0; hold a 60 held -> 40 60 0; hold b 51 spent",
            id="money that is granted is good, whatever is left",
        ),
        pytest.param(
            "grant 100 spent 950 -> 100 0 0; hold a 101 spent; hold b 1001 spent",
            id="above what is left: spent at once",
        ),
        pytest.param(
            "grant 100 spent 900 -> 100 0 0; hold a 80 held; settle a 80 -> 20 0 80;"
            "hold b 21 spent; hold c 20 held -> 0 20 80",
            id="what was spent here counts before it is drained",
        ),
        pytest.param(
            "grant 100 spent 800 -> 100 0 0; hold a 80 held; settle a 80 -> 20 0 80;"
            "grant 100 spent 880 drained 80 -> 20 0 80; hold b 120 waits; hold c 121 spent",
            id="and not twice afterwards",
        ),
        pytest.param(
            "grant 0 spent 0; hold a 600 waits; hold b 500 waits; grant 0 spent 401; is a spent;"
            "is b waits; grant 0 spent 501; is b spent",
            id="waiting calls learn that the money is spent",
        ),
        pytest.param(
            "grant 1000; hold a 900 held; hold b 200 waits; settle a 900; is b spent -> 100 0 900",
            id="so does one whose money was spent here",
        ),
        pytest.param(
            "grant 100; hold a 60 held; hold b 90 waits; hold c 10 waits -> 40 60 0;"
            "settle a 0; is b held; is c held -> 0 100 0",
            id="nobody overtakes",
        ),
        pytest.param(
            "grant 100; hold a 60 held; hold b 90 waits; hold c 10 waits; cancel b; is c held",
            id="those behind one who leaves move up",
        ),
    ],
)
async def test_the_accounts_of_a_slice(script):
    bench = Bench()
    for step in script.split(";"):
        action, _, expected = step.partition("->")
        op, *words = action.split()
        if op == "grant":
            room = dict(zip(words[1::2], map(int, words[2::2]), strict=True))
            bench.grant(int(words[0]), **room)
            await bench.run()
        elif op == "hold":
            bench.begin(words[0], int(words[1]))
            assert await kind(bench, words[0]) == words[2], step
        elif op == "settle":
            bench.settle(words[0], int(words[1]))
            await bench.run()
        elif op == "cancel":
            bench.calls[words[0]].cancel()
            await bench.run()
        else:
            assert await kind(bench, words[0]) == words[1], step
        if expected:
            s = bench.slice
            assert (s.free, s.held, s.used) == tuple(map(int, expected.split())), step
            assert s.free == s.granted - s.returned - s.used - s.held


async def test_all_windows_or_none():
    team, key = (
        a_budget(limit=1000, period="total"),
        a_budget(scope="key/search-prod", unit="tokens", limit=500, period="total"),
    )
    bench = Bench(team, key)
    bench.grant(100)
    bench.begin("a", 60, tokens=50)
    assert await bench.result("a") is None
    assert bench.slice.held == 0
    assert bench.messages() == [
        Want(
            b"a".ljust(16),
            [((key.id, 0), 50)],
            bench.deadline_ms(),
        )
    ]
    bench.grant(50, window=(key.id, 0), limit=500)
    result = await bench.result("a")
    assert result.held.amounts == [((team.id, 0), 60), ((key.id, 0), 50)]
    assert result.held.charges(cost_nano=7, tokens=8, requests=1) == [
        ((team.id, 0), 7),
        ((key.id, 0), 8),
    ]


async def test_budgets_in_requests_hold_one():
    bench = Bench(a_budget(unit="requests", limit=2, period="total"))
    bench.grant(2, limit=2)
    for name in "ab":
        bench.begin(name, 10**9)
        assert await kind(bench, name) == "held"
    assert bench.slice.held == 2


async def test_a_hold_is_journaled_with_windows_and_amounts():
    bench = Bench()
    bench.grant(100)
    bench.begin("a", 60)
    result = await bench.result("a")
    assert [type(r) for r in bench.journal.records] == [Hold]
    assert bench.journal.records[0].amounts == result.held.amounts == [(bench.window, 60)]
    assert bench.journal.records[0].backed
    bench.settle("a", 5)
    assert [type(r) for r in bench.journal.records] == [Hold, Settle]


async def test_calls_without_budget_are_journaled_too():
    bench = Bench(a_budget(scope="team/acme/other"))
    bench.begin("a", 60)
    result = await bench.result("a")
    assert result.kind == "held"
    assert result.held.amounts == []
    assert result.held.remaining_nano is None
    assert len(bench.journal.records) == 1


async def test_a_settlement_is_appended_before_its_money_is_free():
    bench = Bench()
    bench.grant(100)
    bench.begin("a", 60)
    await bench.run()
    seen = []
    bench.journal.append_settle = lambda record: seen.append(bench.slice.held)
    bench.settle("a", 5)
    assert seen == [60]
    assert bench.slice.held == 0


async def test_a_settlement_that_cannot_be_appended_frees_nothing():
    bench = Bench()
    bench.grant(100)
    bench.begin("a", 60)
    await bench.run()

    def fail(record):
        raise OSError("broken")

    bench.journal.append_settle = fail
    with pytest.raises(OSError, match="broken"):
        bench.settle("a", 5)
    assert bench.slice.held == 60


async def test_a_full_journal_refuses_and_holds_nothing():
    bench = Bench()
    bench.grant(100)
    bench.journal.full = True
    bench.begin("a", 60)
    assert (await bench.result("a")).kind == "full"
    assert (bench.slice.free, bench.slice.held) == (100, 0)


# --- refusals ---------------------------------------------------------------------------------


async def test_a_refusal_for_spent_money_names_the_figures():
    budget = a_budget(limit=1000, period="day", timezone="Asia/Tokyo")
    bench = Bench(budget)
    bench.begin("a", 100)
    await bench.run()
    window = bench.take_sent(Want)[0].amounts[0][0]
    bench.grant(100, window=window, spent=850)
    bench.begin("b", 200)
    result = await bench.result("b")
    assert result.kind == "spent"
    assert result.budget is budget
    assert (result.spent, result.held_amount, result.needed) == (850, 100, 200)
    assert result.resets_at_s == window[1] + 86400


async def test_a_total_never_resets():
    bench = Bench()
    bench.grant(0, spent=1000)
    bench.begin("a", 1)
    assert (await bench.result("a")).resets_at_s is None


async def test_waiting_ends_busy_when_others_hold_the_money():
    bench = Bench()
    bench.grant(1000)
    bench.begin("a", 900)
    bench.begin("b", 300)
    assert await bench.result("b") is None
    bench.grant(1000, answered=["b"], scarce=True)
    bench.clock.advance(WAIT_S - 0.01)
    assert await bench.result("b") is None
    bench.clock.advance(0.02)
    result = await bench.result("b")
    assert result.kind == "busy"
    assert result.budget is bench.budgets[0]
    assert (result.spent, result.held_amount, result.needed) == (0, 900, 300)
    assert 1 <= result.retry_after_s <= 60
    assert bench.messages()[-1] == Unwant(b"b".ljust(16))


async def test_the_shortest_wait_of_the_budgets_in_the_way_counts():
    patient = a_budget(limit=1000, period="total", hold_wait_ms=5000)
    hasty = a_budget(limit=1000, period="total", hold_wait_ms=2500)
    unconcerned = a_budget(unit="requests", limit=1000, period="total", hold_wait_ms=0)
    bench = Bench(patient, hasty, unconcerned)
    bench.grant(0)
    bench.grant(0, window=(hasty.id, 0))
    bench.grant(9, window=(unconcerned.id, 0))
    bench.begin("a", 10)
    await bench.run()
    bench.grant(0, answered=["a"])
    bench.clock.advance(2.4)
    assert await bench.result("a") is None
    bench.clock.advance(0.2)
    assert (await bench.result("a")).kind == "busy"


async def test_without_patience_a_call_still_waits_for_controls_answer():
    bench = Bench(a_budget(limit=1000, period="total", hold_wait_ms=0))
    bench.begin("a", 10)
    bench.begin("b", 995)
    await bench.run()
    bench.clock.advance(0.5)
    assert await bench.result("a") is None
    bench.grant(10, answered=["a", "b"], free=0)
    assert (await bench.result("a")).kind == "held"
    assert (await bench.result("b")).kind == "busy"


async def test_an_answer_about_a_call_that_has_ended_ends_it_in_control_too():
    """Its want was repeated on the way; the calls behind it would wait for nobody."""
    bench = Bench()
    bench.grant(1000, answered=["a"])
    assert bench.messages() == [Unwant(b"a".ljust(16))]


async def test_no_answer_means_an_outage():
    bench = Bench(a_budget(limit=1000, period="total", hold_wait_ms=0))
    bench.begin("a", 10)
    await bench.run()
    bench.clock.advance(ANSWER_WAIT_S + 0.1)
    assert (await bench.result("a")).kind == "outage"
    assert bench.messages()[-1] == Unwant(b"a".ljust(16))


async def test_in_an_outage_calls_go_on_while_the_lease_lasts():
    """The slice first, then what control has in its pool: it is asked as ever."""
    bench = Bench()
    bench.begin("w", 70)
    await bench.run()
    bench.outage(60, answered=["w"])
    assert (await bench.result("w")).kind == "outage"
    for name in "ab":
        bench.begin(name, 50)
    assert [await kind(bench, name) for name in "ab"] == ["held", "waits"]
    assert bench.take_sent(Want)[-1].amounts == [(bench.window, 40)]
    bench.outage(60)  # says nothing about b
    assert await kind(bench, "b") == "waits"
    bench.outage(100, answered=["b"])
    assert (await bench.result("b")).kind == "held"


async def test_an_outage_ends_the_wait_for_what_others_hold():
    bench = Bench()
    bench.grant(100)
    for name in "ab":
        bench.begin(name, 60)
    await bench.run()
    bench.grant(100, answered=["b"])
    assert await kind(bench, "b") == "waits"
    bench.outage(100)
    assert (await bench.result("b")).kind == "outage"


async def test_allowed_in_an_outage_means_flagged_and_off_the_slice():
    bench = Bench(on_ledger_outage="allow")
    bench.outage(60)
    bench.begin("a", 100)
    await bench.run()
    bench.outage(60, answered=["a"])
    result = await bench.result("a")
    assert result.kind == "held"
    assert not result.held.backed
    assert not bench.journal.records[0].backed
    assert bench.journal.records[0].amounts == [(bench.window, 100)]
    assert (bench.slice.free, bench.slice.held) == (60, 0)
    bench.settle("a", 90)
    assert (bench.slice.free, bench.slice.used) == (60, 0)


async def test_spent_money_is_refused_in_an_outage_too():
    bench = Bench(on_ledger_outage="allow")
    bench.grant(0, spent=950)
    bench.outage(0)
    bench.begin("a", 100)
    assert (await bench.result("a")).kind == "spent"


@pytest.mark.parametrize("policy", ["block", "allow"])
async def test_without_control_nothing_is_admitted_and_all_is_settled(policy):
    bench = Bench(on_ledger_outage=policy)
    bench.grant(100)
    bench.begin("a", 60)
    bench.begin("b", 60)
    assert [await kind(bench, n) for n in "ab"] == ["held", "waits"]
    bench.worker.control_gone()
    assert (await bench.result("b")).kind == "outage"
    bench.begin("c", 10)
    assert (await bench.result("c")).kind == "outage"
    bench.settle("a", 1)
    assert bench.slice.used == 1


# --- the line ----------------------------------------------------------------------------------


async def test_wants_tell_what_is_lacking_behind_older_calls():
    bench = Bench()
    bench.grant(100)
    deadline = bench.deadline_ms()
    for name, amount in (("a", 80), ("b", 50), ("c", 30)):
        bench.begin(name, amount)
        await bench.run()
    assert bench.messages() == [
        Want(b"b".ljust(16), [(bench.window, 30)], deadline),
        Want(b"c".ljust(16), [(bench.window, 30)], deadline),
    ]
    bench.settle("a", 60)  # 40 are free now
    assert bench.messages() == [Want(b"b".ljust(16), [(bench.window, 10)], deadline)]
    bench.grant(110)
    assert await kind(bench, "b") == "held"
    assert bench.messages() == [
        Unwant(b"b".ljust(16)),
        Want(b"c".ljust(16), [(bench.window, 30)], deadline),
    ]
    bench.grant(140)
    assert await kind(bench, "c") == "held"


async def test_the_line_is_kept_in_every_window():
    """b waits for two windows; c, behind it in one of them, does not take that one's money."""
    team, key = (
        a_budget(limit=1000, period="total"),
        a_budget(scope="key/search-prod", limit=1000, period="total", models=("gpt-5",)),
    )
    bench = Bench(team, key)
    bench.grant(100)
    bench.grant(0, window=(key.id, 0))
    bench.begin("b", 80)
    assert await bench.result("b") is None
    other = bench.worker.for_call(CALLER, "openai", "gpt-4o")
    c = asyncio.ensure_future(hold(bench.worker, a_hold(), other, a_bound(10), bench.clock.now))
    await bench.run()
    assert not c.done()
    bench.grant(80, window=(key.id, 0))
    assert await kind(bench, "b") == "held"
    assert (await c).kind == "held"


@pytest.mark.parametrize("how", ["cancelled", "client gone"])
async def test_a_client_that_leaves_gives_up_its_place(how):
    bench = Bench()
    bench.grant(10)
    gone = asyncio.get_running_loop().create_future()
    bench.begin("a", 60, client_gone=gone)
    assert await bench.result("a") is None
    bench.messages()
    if how == "cancelled":
        bench.calls["a"].cancel()
        await bench.run()
        assert bench.calls["a"].cancelled()
    else:
        gone.set_result(None)
        assert (await bench.result("a")).kind == "gone"
    assert bench.messages() == [Unwant(b"a".ljust(16))]
    assert not bench.slice.queue
    assert bench.slice.queued == 0
    assert (bench.slice.free, bench.slice.held) == (10, 0)
    assert bench.journal.records == []


async def test_cancelled_in_the_moment_of_admission_holds_nothing():
    bench = Bench()
    bench.begin("a", 60)
    bench.begin("b", 30)
    await bench.run()
    bench.grant(60)  # a has its money, and has not run yet
    bench.calls["a"].cancel()
    await bench.run()
    assert bench.calls["a"].cancelled()
    assert await kind(bench, "b") == "held"
    assert (bench.slice.free, bench.slice.held) == (30, 30)
    assert [r.call_id for r in bench.journal.records] == [b"b".ljust(16)]


async def test_cancelled_before_the_loop_runs_it_is_passed_over():
    bench = Bench()
    bench.begin("a", 60)
    bench.begin("b", 30)
    await bench.run()
    bench.calls["a"].cancel()
    bench.grant(60)
    await bench.run()
    assert await kind(bench, "b") == "held"
    assert (bench.slice.free, bench.slice.held) == (30, 30)


async def test_a_client_that_was_gone_before_does_not_wait():
    bench = Bench()
    gone = asyncio.get_running_loop().create_future()
    gone.set_result(None)
    bench.begin("a", 60, client_gone=gone)
    assert (await bench.result("a")).kind == "gone"


async def test_many_refused_at_once_ask_for_nothing_more():
    bench = Bench()
    bench.grant(0)
    for number in range(50):
        bench.begin(f"n{number}", 500)
    await bench.run()
    bench.messages()
    bench.grant(0, spent=600)
    await bench.run()
    assert {type(m) for m in bench.messages()} == {Unwant}
    assert [await kind(bench, f"n{n}") for n in range(50)] == ["spent"] * 50


# --- giving back --------------------------------------------------------------------------------


def returned(bench):
    statuses = [s for m in bench.take_sent(Status) for s in m.slices]
    return [s.returned_total for s in statuses]


async def test_scarce_money_goes_back_at_once():
    bench = Bench()
    bench.grant(100)
    bench.begin("a", 60)
    await bench.run()
    bench.grant(100, scarce=True)
    assert returned(bench) == [40]
    bench.settle("a", 10)
    assert returned(bench) == [90]
    assert bench.slice.free == 0


async def test_scarce_money_stays_where_the_oldest_call_waits():
    bench = Bench()
    bench.grant(100)
    bench.begin("a", 150)
    bench.begin("b", 30)
    await bench.run()
    bench.messages()
    bench.grant(100, scarce=True, oldest=b"a".ljust(16))
    assert returned(bench) == []
    bench.grant(190, scarce=True, oldest=b"a".ljust(16))
    assert await kind(bench, "a") == "held"
    assert await kind(bench, "b") == "held"
    assert returned(bench) == [10]


async def test_what_a_younger_call_gathered_goes_to_the_oldest_elsewhere():
    bench = Bench()
    bench.grant(100)
    bench.begin("a", 90)
    bench.begin("b", 50)
    await bench.run()
    assert [await kind(bench, n) for n in "ab"] == ["held", "waits"]
    bench.messages()
    bench.grant(100, scarce=True, oldest=a_call_id())
    deadline = bench.deadline_ms()
    assert bench.messages() == [
        Want(b"b".ljust(16), [(bench.window, 50)], deadline),
        Status([SliceStatus(bench.window, 10, 0, 90, 0)]),
    ]
    bench.settle("a", 0)  # would be enough for b
    assert await kind(bench, "b") == "waits"
    assert returned(bench) == [100]


async def test_idle_money_goes_back_after_a_while():
    bench = Bench()
    bench.grant(100)
    reports = []
    for tick in range(2 * IDLE_TICKS):
        reports += bench.worker.status().slices
        if tick == IDLE_TICKS - 1:
            assert bench.slice.returned == 0  # not idle for all of them yet
    assert [report.returned_total for report in reports] == [0, 100]  # only what is new
    assert bench.worker.status().slices == []  # nothing left to tell


async def test_a_status_is_told_again_in_case_it_was_lost(monkeypatch):
    monkeypatch.setattr("proxy.slices.IDLE_TICKS", 10 * REPEAT_TICKS)
    bench = Bench()
    bench.grant(100)
    told = [bool(bench.worker.status().slices) for _ in range(3 * REPEAT_TICKS)]
    assert [tick for tick, each in enumerate(told) if each] == [
        0, REPEAT_TICKS - 1, 2 * REPEAT_TICKS - 1, 3 * REPEAT_TICKS - 1,
    ]  # fmt: skip


async def test_what_a_budget_uses_is_not_idle():
    bench = Bench()
    bench.grant(500)
    for number in range(6 * IDLE_TICKS):
        bench.begin(str(number), 100)
        assert await kind(bench, str(number)) == "held"
        bench.settle(str(number), 5)
        (report,) = bench.worker.status().slices
        bench.grant(bench.slice.granted + report.burn)
    # Calls need 100 at once; of the rest, what the next intervals will burn stays.
    assert bench.slice.used == 6 * IDLE_TICKS * 5
    assert 100 + IDLE_TICKS * 5 <= bench.slice.free <= 100 + 2 * IDLE_TICKS * 5
    assert 350 <= bench.slice.returned <= 400


async def test_as_much_as_is_held_stays():
    bench = Bench()
    bench.grant(500)
    bench.begin("a", 100)
    await bench.run()
    for _ in range(3 * IDLE_TICKS):
        bench.worker.status()
    assert bench.slice.free == 100
    assert bench.slice.returned == 300


async def test_a_status_tells_totals_and_what_was_burnt_since():
    bench = Bench()
    bench.grant(100)
    bench.begin("a", 60)
    bench.begin("b", 30)
    await bench.run()
    bench.settle("a", 10)
    assert bench.worker.status() == Status([SliceStatus(bench.window, 0, 10, 30, 10)])
    bench.settle("b", 20)
    assert bench.worker.status() == Status([SliceStatus(bench.window, 0, 30, 0, 20)])


async def test_a_lowered_limit_recalls_what_is_not_held():
    bench = Bench()
    bench.grant(500)
    bench.begin("a", 100)
    await bench.run()
    budget = bench.budgets[0]
    same = a_snapshot(budget)
    bench.worker.apply(same)
    assert bench.messages() == []
    lower = a_budget(id=budget.id, limit=300, period="total")
    bench.worker.apply(a_snapshot(lower))
    assert returned(bench) == [400]
    bench.settle("a", 40)
    assert bench.slice.used == 40


async def test_holds_of_a_deleted_budget_settle_where_they_were_held():
    bench = Bench()
    bench.grant(500)
    bench.begin("a", 100)
    await bench.run()
    bench.worker.apply(a_snapshot())
    assert returned(bench) == [400]
    bench.begin("b", 700)
    result = await bench.result("b")
    assert result.held.amounts == []
    bench.settle("a", 40)
    assert bench.slice.used == 40
    assert returned(bench) == [460]


# --- windows -----------------------------------------------------------------------------------


async def test_a_call_settles_into_the_window_of_its_hold():
    bench = Bench(a_budget(limit=1000, period="minute"))
    bench.begin("a", 100)
    await bench.run()
    first = bench.take_sent(Want)[0].amounts[0][0]
    bench.grant(100, window=first)
    await bench.run()
    bench.clock.advance(60)
    bench.settle("a", 30)
    assert bench.worker._slices[first].used == 30
    bench.begin("b", 100)
    await bench.run()
    second = bench.take_sent(Want)[0].amounts[0][0]
    assert second == (first[0], first[1] + 60)


async def test_windows_of_the_past_are_forgotten_for_good():
    bench = Bench(a_budget(limit=1000, period="minute"))
    then = bench.clock.now
    bench.begin("a", 100)
    await bench.run()
    first = bench.take_sent(Want)[0].amounts[0][0]
    bench.grant(100, window=first)
    await bench.run()
    bench.settle("a", 100)
    for _ in range(1200):
        bench.clock.advance(10)
        bench.worker.status()
    assert bench.worker._slices == {}
    # A late message, or a clock that goes back, must not bring back money that is spent.
    bench.grant(100, window=first)
    assert bench.worker._slices == {}
    bench.clock.now = then
    bench.begin("b", 50)
    assert (await bench.result("b")).kind == "outage"


async def test_free_is_our_own_and_what_control_could_still_grant():
    bench = Bench()
    budget = bench.budgets[0]
    assert bench.worker.free(budget, bench.clock.now) == 1000
    bench.grant(100, free=350)
    assert bench.worker.free(budget, bench.clock.now) == 450
    bench.begin("a", 60)
    assert (await bench.result("a")).held.remaining_nano == 390
    assert bench.worker.free(a_budget(limit=77, period="request"), bench.clock.now) == 77


def test_caps_per_request():
    usd = a_budget(scope="key/search-prod", limit=500, period="request")
    tokens = a_budget(unit="tokens", limit=1000, period="request", learned=True)
    bench = Bench(usd, tokens, a_budget(limit=1, period="day"))
    caps = Terms.of(a_price(), bench.worker.for_call(CALLER, "openai", "gpt-5")).caps
    assert exceeded_cap(caps, a_bound(500, 1000)) is None
    assert exceeded_cap(caps, a_bound(501, 1)) is usd
    assert exceeded_cap(caps, a_bound(1, 1001)) is tokens
    assert exceeded_cap(caps, a_bound(1, 9999, (1, 1000))) is None
    assert exceeded_cap(caps, a_bound(501, 1, (1, 1))) is usd


async def test_soft_budgets_hold_what_was_learned_in_the_same_call():
    strict = a_budget(limit=1000, period="total")
    soft = a_budget(limit=1000, period="total", learned=True, scope="key/search-prod")
    counted = a_budget(unit="tokens", limit=1000, period="total", learned=True)
    bench = Bench(strict, soft, counted)
    for budget in (soft, counted):
        bench.grant(20, window=(budget.id, 0))
    bench.grant(100)
    bench.begin("a", 60, tokens=50, learned=(15, 10))
    held = (await bench.result("a")).held
    assert held.amounts == [((strict.id, 0), 60), ((soft.id, 0), 15), ((counted.id, 0), 10)]
    assert not held.exceeded([((strict.id, 0), 60), ((soft.id, 0), 15), ((counted.id, 0), 10)])
    assert held.exceeded([((strict.id, 0), 16), ((soft.id, 0), 16), ((counted.id, 0), 1)])
    bench.settle("a", 40)
    slices = [bench.worker._slices[(b.id, 0)] for b in (strict, soft, counted)]
    assert [(s.free, s.held, s.used) for s in slices] == [(60, 0, 40), (5, 0, 15), (10, 0, 10)]


async def test_a_soft_budget_holds_the_ceiling_until_something_is_learned():
    bench = Bench(a_budget(limit=1000, period="total", learned=True))
    bench.grant(100)
    bench.begin("a", 60)
    assert (await bench.result("a")).held.amounts == [(bench.window, 60)]


def test_an_impossible_budget_is_an_error_and_changes_nothing():
    bench = Bench()
    with pytest.raises(ValueError, match="team/acme"):
        bench.worker.apply(a_snapshot(a_budget(scope="team/acme")))
    assert bench.worker.for_call(CALLER, "openai", "gpt-5") == bench.budgets


async def test_a_limit_just_raised_is_not_spent_because_control_has_not_said_so_yet():
    budget = a_budget(limit=100, period="total")
    bench = Bench(budget)
    bench.grant(100, limit=100)
    bench.begin("a", 100)
    assert await kind(bench, "a") == "held"
    bench.settle("a", 100)
    bench.begin("b", 50)
    assert await kind(bench, "b") == "spent"
    bench.worker.apply(a_snapshot(replace(budget, limit=200)))
    bench.begin("c", 50)
    assert await bench.result("c") is None
    bench.grant(150, limit=200)
    assert await kind(bench, "c") == "held"


async def test_a_full_journal_refuses_calls_until_control_says_otherwise():
    bench = Bench()
    bench.grant(100)
    bench.begin("a", 60)
    assert await kind(bench, "a") == "held"
    bench.worker.on_slices(Slices([], [], full=True))
    bench.begin("b", 10)
    assert await kind(bench, "b") == "full"
    bench.settle("a", 10)
    bench.worker.on_slices(Slices([], []))
    bench.begin("c", 10)
    assert await kind(bench, "c") == "held"
    bench.worker.control_gone()
    bench.worker.on_slices(Slices([], [], full=True))
    bench.begin("d", 10)
    assert await kind(bench, "d") == "outage"


# --- budgets that are not enforced ----------------------------------------------------------


def counting(**fields):
    return a_budget(limit=1000, period="total", enforce=False, **fields)


async def spare_call(bench, name, amount, *, room=None):
    """A call that such a budget may refuse; control answers what it is asked."""
    bench.begin(name, amount)
    await bench.run()
    bench.clock.advance(0)
    if room is not None:
        bench.grant(**room, answered=[name])
    return await bench.result(name)


def planned(bench):
    """Calls of admission know which of their budgets only count."""
    plan = bench.worker.plan

    def of_call(*arguments, **options):
        found = plan(*arguments, **options)
        found.spared = []
        return found

    bench.worker.plan = of_call
    return bench


async def test_what_an_unenforced_budget_can_pay_it_holds():
    bench = planned(Bench(counting()))
    result = await spare_call(bench, "a", 60, room={"total": 100})
    assert (result.kind, result.held.spared) == ("held", [])
    assert (bench.slice.free, bench.slice.held) == (40, 60)
    bench.settle("a", 10)
    assert (bench.slice.free, bench.slice.used) == (90, 10)


@pytest.mark.parametrize(
    "room", [{"total": 0, "spent": 990}, {"total": 0, "free": 5, "committed": 1000}]
)
async def test_what_it_would_refuse_goes_on_with_nothing_held_there(room):
    bench = planned(Bench(counting()))
    result = await spare_call(bench, "a", 60, room=room)
    assert result.kind == "held"
    assert result.held.amounts == [(bench.window, 0)]
    assert [window for window, _ in result.held.spared] == [bench.window]
    (record,) = bench.journal.records
    assert (record.amounts, record.spared, record.backed) == (
        [(bench.window, 0)],
        [bench.window],
        True,
    )
    bench.settle("a", 50)
    assert (bench.slice.held, bench.slice.used, bench.slice.free) == (0, 0, 0)


async def test_it_waits_for_the_answer_and_for_nothing_else():
    bench = planned(Bench(counting(hold_wait_ms=60_000)))
    bench.grant(100)
    bench.begin("a", 80)
    assert (await bench.result("a")).kind == "held"
    bench.begin("b", 80)
    await bench.run()
    bench.clock.advance(0)
    assert await kind(bench, "b") == "waits"
    bench.grant(100, answered=["b"])
    result = await bench.result("b")
    assert (result.kind, result.held.amounts) == ("held", [(bench.window, 0)])


async def test_a_control_that_stalls_delays_it_for_a_moment_only():
    bench = planned(Bench(counting()))
    bench.begin("a", 80)
    await bench.run()
    bench.clock.advance(0)
    bench.clock.advance(ANSWER_WAIT_S)
    assert (await bench.result("a")).kind == "held"


async def test_enforced_budgets_of_the_same_call_hold_and_refuse():
    strict = a_budget(id=2, limit=1000, period="total")
    bench = planned(Bench(counting(id=1), strict))
    bench.grant(0, spent=1000)
    bench.grant(100, window=(2, 0))
    result = await spare_call(bench, "a", 60)
    assert result.held.amounts == [((1, 0), 0), ((2, 0), 60)]
    bench.grant(100, window=(2, 0), spent=960)
    result = await spare_call(bench, "b", 60)
    assert (result.kind, result.budget) == ("spent", strict)
    assert bench.worker._slices[2, 0].held == 60
