"""What the budgets would say to a call, worked out from the ledger as admission does it.

Holds of calls in flight are in the memory of workers; the ledger knows them as leased money. What
an open lease has left counts as usable: a call may have to wait for it, but not be refused.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pricing.ceiling import Ceiling
from pricing.money import nano_ceil_from_atto
from pricing.price import Price
from proxy.admission import Terms, clamped_limit, find_ceiling, with_tools
from proxy.providers.base import Facts
from proxy.wire import BudgetEntry


class Standing(NamedTuple):
    """A budget that applies to the call, in its unit."""

    entry: BudgetEntry
    limit: int  # a temporary raise included; of a cap per call, the cap
    spent: int  # of a cap per call: 0
    free: int  # not granted to anybody, and what open leases have left

    @property
    def capped(self) -> bool:
        return self.entry.period == "request"


class Verdict(NamedTuple):
    """passes | clamped | waits | refused, with the budget that says so."""

    word: str
    blocking: Standing | None
    clamped_to: int | None
    ceiling: Ceiling


def explain(
    facts: Facts, price: Price, standings: Sequence[Standing], quote: Callable[[str], Price]
) -> Verdict:
    """Ceiling, clamp, wait, refuse, in this order. Raises Refusal if nothing bounds the call, and
    what `quote` raises for a model of the call's tools.

    `facts` is changed where the output is clamped.
    """
    terms = Terms.of(price, tuple(standing.entry for standing in standings))
    terms = with_tools(facts, terms, quote)
    bound = find_ceiling(facts, terms)
    limits = [
        limit
        for standing in standings
        if standing.entry.clamp
        and facts.size.generates
        and (limit := clamped_limit(facts, price, standing.entry, standing.free, bound))
    ]
    clamped_to = min(limits, default=None)
    if clamped_to is not None:
        facts.size.output_limit = clamped_to
        bound = find_ceiling(facts, terms)
    standings = [standing for standing in standings if standing.entry.enforce]
    for standing in sorted(standings, key=lambda standing: not standing.capped):
        if needs(standing.entry, bound) > standing.limit - standing.spent:
            return Verdict("refused", standing, clamped_to, bound)
    for standing in standings:
        if not standing.capped and needs(standing.entry, bound) > standing.free:
            return Verdict("waits", standing, clamped_to, bound)
    return Verdict("passes" if clamped_to is None else "clamped", None, clamped_to, bound)


def needs(entry: BudgetEntry, bound: Ceiling) -> int:
    """What a call of this ceiling holds in a budget, in the budget's unit."""
    return {"usd": bound.nano, "tokens": bound.tokens, "requests": 1}[entry.unit]


def items(bound: Ceiling, price: Price) -> list[tuple[str, int, int]]:
    """A hold's parts as (name, count, nano-USD), each rounded up."""
    usage = bound.usage
    dear_in, dear_out = price.dearest(usage)
    parts = [
        ("input tokens", usage.input_tokens, dear_in),
        ("output tokens", usage.output_tokens, dear_out),
        ("request", 1 if price.request_atto else 0, price.request_atto),
    ]
    for name, count in usage.units.items():
        rate = price.dearest_unit(name, usage.service_tier)
        parts.append((name.replace("_", " "), price.billable(name, count), rate))
    found = [
        (name, count, nano_ceil_from_atto(count * atto)) for name, count, atto in parts if count
    ]
    tokens = sum(part.total_tokens for _, part in usage.passes)
    return [*found, ("tokens of tools", tokens, bound.tools_nano)] if tokens else found
