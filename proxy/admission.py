"""From the price to the journaled hold: ceiling, clamp, wait, refuse, in this order."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import NamedTuple

from db.journal_records import Hold
from pricing.batch import Part, batch_ceiling, is_batch_priced
from pricing.ceiling import SERVER_TOOL_PASSES, Ceiling, Tool, ceiling, output_limit_for
from pricing.ceiling import with_tools as ceiling_with_tools
from pricing.errors import MissingMaximum
from pricing.price import Price
from proxy.budget_refusals import cost_cap_refusal, refusal
from proxy.budgets import Budgets
from proxy.call import Call
from proxy.customers import check_customer, name_customer
from proxy.downgrade import Downgrade, cheaper
from proxy.errors import Refusal
from proxy.holds import Bounds, HeldCall, HoldResult
from proxy.learned import Learned
from proxy.providers.base import Facts
from proxy.wire import BudgetEntry

CLAMP_MIN_REASONING = 4096  # below it reasoning models return nothing but thoughts


class Terms(NamedTuple):
    """What a model costs a caller, and the budgets that pay: the same for call after call."""

    price: Price
    applicable: tuple[BudgetEntry, ...]
    caps: tuple[BudgetEntry, ...]  # those of them that are caps per request, and enforced
    soft: bool  # some of them hold what has been learned
    passes: int  # held for a server-side tool without a bound of its own
    fallbacks: tuple[Price, ...] = ()  # of the models that may answer instead; none is dearer
    parts: tuple[Part, ...] = ()  # of a batch
    tools: tuple[Tool, ...] = ()  # billed at models of their own
    counting: tuple[BudgetEntry, ...] = ()  # those of the budgets that are not enforced

    @classmethod
    def of(cls, price: Price, applicable: tuple[BudgetEntry, ...]) -> "Terms":
        return cls(
            price,
            applicable,
            tuple(b for b in applicable if b.period == "request" and b.enforce),
            any(budget.learned and budget.unit != "requests" for budget in applicable),
            max((b.server_tool_passes for b in applicable), default=SERVER_TOOL_PASSES),
            counting=tuple(budget for budget in applicable if not budget.enforce),
        )


async def admit(call: Call, budgets: Budgets, learned: Learned, now_s: float) -> None:
    """Hold what the call may need in every budget it belongs to, or refuse it."""
    if budgets.index.templated:
        if budgets.index.reads_body:
            name_customer(call, budgets.index)
        assert call.arrival is not None
        call.unmet = await budgets.meet(call.arrival.principal)
    terms = find_terms(call, budgets)
    assert call.facts is not None
    size = call.facts.size
    asked = size.output_limit
    result = attempt(call, terms, budgets, learned, now_s)
    if not isinstance(result, HoldResult):
        result = await result
    if result.kind == "spent" and call.clamped is not None:
        # Part of what it was clamped to has been spent while it waited: clamp it anew.
        size.output_limit, call.clamped = asked, None
        result = await attempted(call, terms, budgets, learned, now_s)
    if result.held is not None:
        call.held = result.held
        return
    budget = result.budget
    if result.kind == "spent" and budget is not None and budget.downgrade:
        result = await admit_cheaper(call, budget, result, budgets, learned, now_s)
    if result.held is None:
        raise refusal(result)
    call.held = result.held


async def admit_cheaper(
    call: Call,
    budget: BudgetEntry,
    refused: HoldResult,
    budgets: Budgets,
    learned: Learned,
    now_s: float,
) -> HoldResult:
    """Once more, at the model that an exhausted budget names for this case. Where that is not to
    be had the call stays as it was, and refused."""
    rewritten = cheaper(call, budget)
    if rewritten is None:
        return refused
    change, result = Downgrade(call, rewritten), refused
    try:
        result = await attempted(call, find_terms(call, budgets), budgets, learned, now_s)
    except Refusal:  # what bounds the cheaper model's cost does not let it pass either
        pass
    finally:
        if result.held is None:
            change.undo()
    return result if result.kind != "spent" else refused


async def attempted(
    call: Call, terms: Terms, budgets: Budgets, learned: Learned, now_s: float
) -> HoldResult:
    """`attempt`, waited for."""
    result = attempt(call, terms, budgets, learned, now_s)
    return result if isinstance(result, HoldResult) else await result


def attempt(
    call: Call, terms: Terms, budgets: Budgets, learned: Learned, now_s: float
) -> HoldResult | Awaitable[HoldResult]:
    """Plan, clamp and hold; most calls need not wait. Raises Refusal for what no waiting can
    change."""
    if budgets.index.templated:
        check_customer(call, budgets.index)
    bounds, plan = find_plan(call, terms, budgets, learned, now_s)
    assert call.own is not None
    own_cap = call.own.max_cost_nano
    if own_cap is not None and bounds.ceiling.nano > own_cap:
        raise cost_cap_refusal(bounds.ceiling.nano, own_cap)
    cap = exceeded_cap(terms.caps, bounds) if terms.caps else None
    if cap is not None:
        return HoldResult("spent", budget=cap, needed=bounds.needed(cap))
    if plan is None:
        return HoldResult("outage")
    if terms.counting:
        caps = tuple(budget for budget in terms.counting if budget.period == "request")
        plan.spared = [((cap.id, 0), cap) for cap in caps if bounds.needed(cap) > cap.limit]
    assert call.hold is not None
    record = hold_record(call, call.hold)
    return budgets.hold_at_once(record, plan) or budgets.hold(record, plan, now_s)


def find_terms(call: Call, budgets: Budgets) -> Terms:
    """Price and budgets of the call's model. Raises Refusal `model_not_priced`."""
    arrival, facts = call.arrival, call.facts
    assert arrival is not None
    assert facts is not None
    terms = arrival.terms(facts.model)
    if terms is None or budgets.index.templated:
        terms = terms_of(call, facts.model, budgets, terms)
    if facts.fallbacks:
        terms = with_fallbacks(call, facts, terms)
    if facts.parts:
        terms = with_parts(call, facts, terms, budgets)
    if facts.tool_models:
        terms = with_tools(facts, terms, lambda model: quoted(call, model))
    call.price = terms.price
    return terms


def terms_of(call: Call, model: str, budgets: Budgets, known: Terms | None) -> Terms:
    """Those that are known, unless budgets of a customer were learned or forgotten since."""
    arrival = call.arrival
    assert arrival is not None
    applicable = budgets.for_call(arrival.principal, arrival.provider.name, model)
    if known is not None and known.applicable is applicable:
        return known
    terms = Terms.of(quoted(call, model), applicable)
    arrival.keep(model, terms)
    return terms


def quoted(call: Call, model: str) -> Price:
    """What a model costs this caller here. Raises Refusal `model_not_priced`."""
    arrival = call.arrival
    assert arrival is not None
    provider, prices = arrival.provider, call.state.prices.for_key(arrival.principal.key)
    return prices.quote(provider.prices, *provider.price_names(model))


def with_fallbacks(call: Call, facts: Facts, terms: Terms) -> Terms:
    """The terms of a call that one of several models answers: those of the dearest for it."""
    prices = (terms.price, *(quoted(call, model) for model in facts.fallbacks))
    dearest = max(prices, key=lambda price: find_ceiling(facts, terms._replace(price=price)).nano)
    return terms._replace(price=dearest, fallbacks=prices)


def with_parts(call: Call, facts: Facts, terms: Terms, budgets: Budgets) -> Terms:
    """The terms of a batch. Raises Refusal where a model has no price for batches, or where other
    budgets pay for it than for the rest: a batch is one call, charged as a whole."""
    arrival, parts = call.arrival, []
    assert arrival is not None
    provider = arrival.provider
    prices = call.state.prices.for_key(arrival.principal.key)
    for model, size in facts.parts:
        price = prices.quote(provider.prices, *provider.price_names(model))
        if not is_batch_priced(price):
            raise Refusal(
                "model_not_priced",
                f"The model '{model}' has no price for batches under provider "
                f"'{provider.prices}': declare `input_cost_per_token_batches` and "
                "`output_cost_per_token_batches` under pricing.overlays.",
                {"model": model},
            )
        if budgets.for_call(arrival.principal, provider.name, model) != terms.applicable:
            raise Refusal(
                "bad_request",
                f"'{facts.model}' and '{model}' are paid from different budgets: send a batch for "
                "each.",
            )
        parts.append((size, price))
    return terms._replace(parts=tuple(parts), soft=False)


def with_tools(facts: Facts, terms: Terms, quote: Callable[[str], Price]) -> Terms:
    """The terms of a call whose tools are billed at models of their own, each at the dearest that
    it may be. Raises Refusal `model_not_priced`."""
    tools = []
    for tool in facts.tool_models:
        bounds = []
        for model in tool.models:
            price = quote(model)
            bound = find_ceiling(replace(facts, size=tool.size), Terms.of(price, terms.applicable))
            bounds.append((bound.nano, (model, bound.usage, price)))
        tools.append(max(bounds, key=itemgetter(0))[1])
    return terms._replace(tools=tuple(tools))


def find_plan(
    call: Call, terms: Terms, budgets: Budgets, learned: Learned, now_s: float
) -> tuple[Bounds, HeldCall | None]:
    """What the call may need, in all and in each window, after clamping. Sets `bounds`, `hold`
    and `clamped`. Raises Refusal `model_not_priced`."""
    facts, applicable = call.facts, terms.applicable
    assert facts is not None
    bounds = find_bounds(facts, terms, learned)
    hold = bounds.whole(applicable)
    whole = facts.size.output_limit is not None
    plan = budgets.plan(call.call_id, hold.nano, applicable, bounds, now_s, whole=whole)
    assert call.own is not None
    own_cap = call.own.max_cost_nano
    if terms.caps or own_cap is not None or plan is None or plan.crowded:
        clamping = applicable
        if own_cap is not None and not whole:
            clamping += own_cap_budget(own_cap, terms)
        limit = find_clamp(facts, terms.price, clamping, budgets, bounds, now_s)
        if limit is not None:
            call.clamped = facts.size.output_limit = limit
            bounds = find_bounds(facts, terms, learned)
            hold = bounds.whole(applicable)
            plan = budgets.plan(call.call_id, hold.nano, applicable, bounds, now_s)
    call.bounds, call.hold = bounds, hold
    return bounds, plan


def find_bounds(facts: Facts, terms: Terms, learned: Learned) -> Bounds:
    """The ceiling, and what soft budgets hold instead. Raises Refusal `model_not_priced`."""
    bound = find_ceiling(facts, terms)
    return Bounds(bound, learned.hold(facts.size, terms.price, bound) if terms.soft else None)


def find_ceiling(facts: Facts, terms: Terms) -> Ceiling:
    """The most the call can cost. Raises Refusal `model_not_priced` when nothing bounds it."""
    try:
        if terms.parts:
            return batch_ceiling(terms.parts, terms.passes)
        bound = ceiling(facts.size, terms.price, server_tool_passes=terms.passes)
        for price in terms.fallbacks:  # another one may read or write more
            other = ceiling(facts.size, price, server_tool_passes=terms.passes)
            bound = bound._replace(tokens=max(bound.tokens, other.tokens))
    except MissingMaximum as exc:
        raise Refusal("model_not_priced", str(exc)) from exc
    return ceiling_with_tools(bound, terms.price, terms.tools) if terms.tools else bound


def find_clamp(
    facts: Facts,
    price: Price,
    applicable: Sequence[BudgetEntry],
    budgets: Budgets,
    bounds: Bounds,
    now_s: float,
) -> int | None:
    """The lowest output limit that a clamping budget asks for; None: the request stays as it is."""
    lowest: int | None = None
    if not facts.size.generates:
        return None
    for budget in applicable:
        if budget.clamp:
            free = budgets.free(budget, now_s)
            limit = clamped_limit(facts, price, budget, free, bounds.of(budget))
            if limit is not None and (lowest is None or limit < lowest):
                lowest = limit
    return lowest


def clamped_limit(
    facts: Facts, price: Price, budget: BudgetEntry, free: int, bound: Ceiling
) -> int | None:
    """The output limit that `budget` asks for with `free` units left, where it holds `bound`;
    None: none is needed, or none would make the hold smaller.

    A call without a limit of its own may take `clamp_share` of what is free; one with a limit is
    lowered only if it does not fit otherwise. Never below the budget's `clamp_min_tokens`. A cap
    per request is nobody else's: all of it may be taken.
    """
    own_limit, unit = facts.size.output_limit, budget.unit
    if not facts.clampable:
        return None
    whole = own_limit is not None or budget.period == "request"
    share = free if whole else int(free * budget.clamp_share)
    if (bound.nano if unit == "usd" else bound.tokens) <= share or unit == "requests":
        return None
    if unit == "usd":
        passes = budget.server_tool_passes
        share -= bound.tools_nano
        limit = output_limit_for(facts.size, price, share, server_tool_passes=passes) or 0
    else:
        fixed = bound.usage.total_tokens - bound.usage.output_tokens
        limit = (share - fixed) // max(facts.size.choices, 1)
    least = budget.clamp_min_tokens
    limit = max(limit, CLAMP_MIN_REASONING if facts.reasoning else least, least)
    most = bound.usage.output_tokens // max(facts.size.choices, 1)
    return None if limit >= most else limit


def own_cap_budget(cap_nano: int, terms: Terms) -> tuple[BudgetEntry, ...]:
    """`x-tollkeeper-max-cost-usd` as a cap that clamps a call without a limit of its own; none
    where one of the call's budgets does not clamp."""
    if not all(budget.clamp or not budget.enforce for budget in terms.applicable):
        return ()
    passes = terms.passes
    return (BudgetEntry(0, "call", "usd", cap_nano, "request", server_tool_passes=passes),)


def exceeded_cap(caps: tuple[BudgetEntry, ...], bounds: Bounds) -> BudgetEntry | None:
    """The first cap per request that a call may exceed."""
    for entry in caps:
        if bounds.needed(entry) > entry.limit:
            return entry
    return None


def hold_record(call: Call, bound: Ceiling) -> Hold:
    """The journal's record of the admission; the budgets fill in windows and amounts."""
    arrival, facts, own = call.arrival, call.facts, call.own
    assert arrival is not None
    assert facts is not None
    assert own is not None
    assert call.price is not None
    principal = arrival.principal
    key = principal.key
    return Hold(
        call_id=call.call_id,
        at_ms=call.at_ms,
        amounts=[],
        key_id=key.id,
        organization_id=key.organization_id,
        team_id=key.team_id,
        project_id=principal.project_id,
        user=principal.user,
        provider=arrival.provider.name,
        model=facts.model,
        route=facts.route.name,
        stream=facts.stream,
        price_version=call.state.prices.version,
        ceiling_nano=bound.nano,
        ceiling_usage=bound.usage.as_dict(),
        tags=own.tags,
        client_retry=own.client_retry,
        priced_model=call.price.key,
    )
