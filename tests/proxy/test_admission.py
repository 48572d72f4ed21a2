"""What a call holds in strict and in soft budgets, and what the clamp makes of it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from db.journal_records import Hold
from pricing.ceiling import Ceiling, ceiling
from pricing.usage import RequestSize, Usage
from proxy.admission import Terms, admit, clamped_limit, find_bounds
from proxy.errors import Refusal
from proxy.holds import Bounds, HeldCall, HoldResult
from proxy.learned import REPLIES_MIN, Learned
from proxy.principal import OwnHeaders
from proxy.providers.base import Facts, Route
from proxy.scopes import BudgetIndex
from proxy.wire import BudgetEntry
from tests.factories import a_bound, a_budget, a_key, a_price

PRICE = a_price()  # 1,000 and 10,000 nano-USD per token, at most 8,000 out
BODY_BYTES = 500
STRICT_NANO = (BODY_BYTES + 2_048) * 1_000 + 8_000 * 10_000
STRICT, SOFT = a_budget(), a_budget(learned=True)
SOFT_TOKENS = a_budget(unit="tokens", learned=True)
COUNT = a_budget(unit="requests")


def facts(**size: object) -> Facts:
    route = Route("chat.completions", "metered", "chat")
    values = {"body_bytes": BODY_BYTES} | size
    return Facts(route, "model-1", False, RequestSize(**values), {})


def learned(output_tokens: int = 100) -> Learned:
    """A model whose calls of this size take 300 tokens in."""
    found = Learned()
    for _ in range(REPLIES_MIN):
        usage = Usage(input_tokens=300, output_tokens=output_tokens)
        found.observe(PRICE.key, RequestSize(body_bytes=BODY_BYTES), usage)
    return found


def test_every_budget_holds_its_own() -> None:
    bounds = find_bounds(facts(), Terms.of(PRICE, (STRICT, SOFT)), learned())
    soft_nano = 600 * 1_000 + 200 * 10_000
    assert bounds.needed(STRICT) == STRICT_NANO
    assert bounds.needed(SOFT) == pytest.approx(soft_nano, rel=0.01)
    assert bounds.needed(SOFT_TOKENS) == pytest.approx(800, rel=0.01)
    assert bounds.needed(COUNT) == 1


@pytest.mark.parametrize(
    ("budgets", "size", "said"),
    [
        ((STRICT,), {}, False),
        ((), {}, False),
        ((STRICT, a_budget(unit="requests", learned=True)), {}, False),
        ((SOFT,), {"windowed": True}, False),
        ((SOFT,), {}, True),
        ((STRICT, SOFT), {}, True),
    ],
)
def test_learned_where_a_soft_budget_asks(
    budgets: tuple[BudgetEntry, ...], size: dict[str, object], said: bool
) -> None:
    bounds = find_bounds(facts(**size), Terms.of(PRICE, budgets), learned())
    assert (bounds.learned is not None) == said
    assert find_bounds(facts(**size), Terms.of(PRICE, budgets), Learned()).learned is None


@pytest.mark.parametrize(
    ("budgets", "nano"),
    [
        ((STRICT,), 900),
        ((SOFT,), 90),
        ((SOFT, SOFT_TOKENS, COUNT), 90),
        ((SOFT, STRICT), 900),
    ],
)
def test_the_row_names_the_most_that_is_held(budgets: tuple[BudgetEntry, ...], nano: int) -> None:
    assert a_bound(900, 9, (90, 1)).whole(budgets).nano == nano
    assert a_bound(900, 9).whole(budgets).nano == 900


def clamp(
    budget: BudgetEntry, bounds: Bounds, free: int, output_limit: int | None = None
) -> int | None:
    return clamped_limit(facts(output_limit=output_limit), PRICE, budget, free, bounds.of(budget))


def test_a_soft_budget_clamps_what_it_holds_not_the_ceiling() -> None:
    terms = Terms.of(PRICE, (STRICT, SOFT))
    bounds = find_bounds(facts(), terms, learned(1_000))  # 21 of 83 million
    free = 8 * 25_000_000
    assert clamp(STRICT, bounds, free) == (25_000_000 - 2_548_000) // 10_000
    assert clamp(SOFT, bounds, free) is None
    assert clamp(SOFT, bounds, 8 * 15_000_000) == (15_000_000 - 2_548_000) // 10_000


def test_a_clamp_that_would_not_make_the_hold_smaller_is_left_out() -> None:
    bounds = find_bounds(facts(), Terms.of(PRICE, (SOFT,)), learned(500))
    assert bounds.of(SOFT).usage.output_tokens == 1_000
    assert clamp(SOFT, bounds, 1) is None  # not below 1,024
    assert clamp(STRICT, bounds, 1) == 1_024


@pytest.mark.parametrize(
    ("output_limit", "free", "clamped"),
    [
        (None, 8 * STRICT_NANO, None),
        (None, 8 * STRICT_NANO - 8, 7_999),
        (None, 0, 1_024),
        (4_000, 42_548_000, None),
        (4_000, 42_547_999, 3_999),
        (4_000, 0, 1_024),
        (1_000, 0, None),
        (-5, 0, None),
    ],
)
def test_strict_clamps(output_limit: int | None, free: int, clamped: int | None) -> None:
    bound = ceiling(facts(output_limit=output_limit).size, PRICE)
    assert clamp(STRICT, Bounds(bound), free, output_limit) == clamped


def test_tokens_clamp_by_tokens() -> None:
    bound = Ceiling(10**9, 10_000, Usage(input_tokens=2_000, output_tokens=8_000))
    tokens = a_budget(unit="tokens")
    assert clamp(tokens, Bounds(bound), 8 * 5_000) == 3_000
    assert clamp(COUNT, Bounds(bound), 0) is None


class Crowd:
    """Budgets with little money left, of which some is spent while the first attempt waits."""

    def __init__(self, *free: int) -> None:
        self.index = BudgetIndex(())
        self.free_now = list(free)
        self.held: list[int] = []

    def free(self, budget: BudgetEntry, now_s: float) -> int:
        return self.free_now[0]

    def plan(self, call_id: bytes, nano: int, *_: object, **__: object) -> HeldCall:
        plan = HeldCall(call_id, nano)
        plan.crowded = True
        return plan

    def hold_at_once(self, record: Hold, plan: HeldCall) -> None:
        return None

    async def hold(self, record: Hold, plan: HeldCall, now_s: float) -> HoldResult:
        self.held.append(plan.ceiling_nano)
        if len(self.free_now) > 1:
            self.free_now.pop(0)
        if plan.ceiling_nano > self.free_now[0]:
            return HoldResult("spent", budget=STRICT)
        return HoldResult("held", plan)


def a_call(
    size: RequestSize,
    own: OwnHeaders | None = None,
    budgets: tuple[BudgetEntry, ...] = (a_budget(clamp=True, clamp_min_tokens=1),),
) -> Any:
    route = Route("chat.completions", "metered", "chat")
    terms = Terms.of(PRICE, budgets)
    key = a_key()
    principal = SimpleNamespace(key=key, project_id=0, user="")
    provider = SimpleNamespace(name="openai", prices="openai")
    arrival = SimpleNamespace(
        principal=principal, provider=provider, terms=lambda model: terms, keep=None
    )
    return SimpleNamespace(
        **{"arrival": arrival, "facts": Facts(route, "model-1", False, size, {})},
        **{"own": own or OwnHeaders(), "price": PRICE, "clamped": None},
        **{"call_id": b"c" * 16, "at_ms": 0},
        state=SimpleNamespace(prices=SimpleNamespace(version="v")),
    )


@pytest.mark.parametrize(("asked", "left"), [(None, 5_000_000), (7_000, 40_000_000)])
async def test_what_is_spent_meanwhile_is_clamped_away_again(asked: int | None, left: int) -> None:
    crowd = Crowd(50_000_000, left)
    call = a_call(RequestSize(body_bytes=BODY_BYTES, output_limit=asked))
    await admit(call, cast(Any, crowd), Learned(), 0.0)
    first, second = crowd.held
    assert second <= left < first
    assert call.held.ceiling_nano == crowd.held[-1]
    assert call.clamped == call.facts.size.output_limit


async def test_no_clamp_helps_a_budget_that_is_spent() -> None:
    crowd = Crowd(50_000_000, 1_000)
    call = a_call(RequestSize(body_bytes=BODY_BYTES, output_limit=7_000))
    with pytest.raises(Refusal) as caught:
        await admit(call, cast(Any, crowd), Learned(), 0.0)
    assert caught.value.code == "budget_exceeded"
    assert len(crowd.held) == 2


class Wealth(Crowd):
    """All the money there could be."""

    def __init__(self) -> None:
        super().__init__(10**15)

    def free(self, budget: BudgetEntry, now_s: float) -> int:
        return budget.limit if budget.period == "request" else super().free(budget, now_s)

    def plan(self, call_id: bytes, nano: int, *_: object, **__: object) -> HeldCall:
        return HeldCall(call_id, nano)


CAP_OF_2000 = 2_548_000 + 2_000 * 10_000  # the input's ceiling and 2,000 tokens out


@pytest.mark.parametrize(
    ("cap", "output_limit", "budgets", "clamped"),
    [
        (CAP_OF_2000, None, (), 2_000),
        (CAP_OF_2000, None, (a_budget(clamp=True),), 2_000),
        (CAP_OF_2000 - 1, None, (), 1_999),
        (STRICT_NANO, None, (), None),
        (CAP_OF_2000, 2_000, (), None),
    ],
)
async def test_a_cap_of_ones_own_clamps_to_fit(
    cap: int, output_limit: int | None, budgets: tuple[BudgetEntry, ...], clamped: int | None
) -> None:
    size = RequestSize(body_bytes=BODY_BYTES, output_limit=output_limit)
    call = a_call(size, OwnHeaders(max_cost_nano=cap), budgets)
    await admit(call, cast(Any, Wealth()), Learned(), 0.0)
    assert call.clamped == clamped
    assert call.held.ceiling_nano <= cap


@pytest.mark.parametrize(
    ("cap", "output_limit", "budgets"),
    [
        (CAP_OF_2000 - 1, 2_000, ()),  # the caller's own limit stays
        (CAP_OF_2000, None, (a_budget(clamp=False),)),
        (2_548_000 + 1_023 * 10_000, None, ()),  # not below 1,024
        (0, None, ()),
    ],
)
async def test_a_cap_that_no_clamp_can_keep_refuses(
    cap: int, output_limit: int | None, budgets: tuple[BudgetEntry, ...]
) -> None:
    size = RequestSize(body_bytes=BODY_BYTES, output_limit=output_limit)
    call = a_call(size, OwnHeaders(max_cost_nano=cap), budgets)
    with pytest.raises(Refusal) as caught:
        await admit(call, cast(Any, Wealth()), Learned(), 0.0)
    assert caught.value.code == "cost_cap_exceeded"
