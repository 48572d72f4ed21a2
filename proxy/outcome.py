"""The charge of every ending (docs/design.md, "Charge rules"): one function decides it."""

from collections.abc import Callable

from msgspec import Struct

from pricing.calculator import Ceiling, Cost, cost, reported_cost
from pricing.price import Price
from pricing.usage import Usage
from proxy.estimates import cut_to, estimated_usage
from proxy.providers.base import Facts, Reading

NOTHING = Cost(0, [])


class Outcome(Struct):
    """How a call ended and what it is charged."""

    ending: str
    usage: Usage | None
    usage_source: str
    cost: Cost
    price: Price
    reading: Reading | None
    flags: int = 0
    priced_nano: int | None = None  # our price's cost, where the provider's figure is charged


def outcome(
    *,
    ending: str,
    sent: bool,
    status: int,
    facts: Facts,
    ceiling: Ceiling,
    price: Price,
    reading: Reading | None,
    find_price: Callable[..., Price | None],
    at_s: float,
    charge_reported: bool = False,
    geo: str = "",
) -> Outcome:
    """Decide usage, its source and the cost.

    `reading` is None when no head of an answer came; `find_price` looks a model up under the
    call's provider; `at_s` is the time of the call. An estimate is cut to the ceiling's usage and
    priced as the ceiling was, so it never exceeds the hold. `charge_reported`: the provider's own
    figure is the cost, where the reply has one and the price is not a declared one anyway. `geo`:
    where the provider's host processes calls, unless the reply tells.
    """
    if facts.later and _goes_on(sent, status, reading):
        bound = Cost(ceiling.nano, [])
        return Outcome("open", ceiling.usage, "estimated", bound, price, reading)
    usage: Usage | None = None
    source = "none"
    if reading is None:
        if sent and ending != "unreachable":  # the provider may be working on it
            usage, source = estimated_usage(facts, None), "estimated"
    elif reading.usage is not None and not reading.partial:
        usage, source = reading.usage, "reported"
    elif status < 400:
        usage, source = estimated_usage(facts, reading), "estimated"
    if usage is None:
        return Outcome(ending, None, source, NOTHING, price, reading)
    if source == "estimated":
        usage = cut_to(usage, ceiling.usage)
    elif reading is not None and reading.model:
        price = find_price(reading.model, facts.model) or price
    if geo and not usage.inference_geo:
        usage.inference_geo = geo
    done = Outcome(ending, usage, source, NOTHING, price, reading)
    done.cost = cost(usage, price, find_price, at_s=at_s)
    if charge_reported and source == "reported" and not price.unpriced:
        figure = usage.provider_cost_nano
        if figure is not None:
            done.priced_nano = done.cost.nano
            done.cost = reported_cost(figure, done.cost, ceiling.nano)
    return done


def _goes_on(sent: bool, status: int, reading: Reading | None) -> bool:
    """Whether the provider has, or may have, taken work whose usage comes later: it is charged
    its whole hold until then."""
    if reading is None:
        return sent
    if status >= 400:
        return False
    return bool(reading.opened) or not reading.complete


def at_the_hold(
    ending: str, hold: Ceiling, price: Price, find_price: Callable[..., Price | None]
) -> Outcome:
    """The outcome when metering itself failed: the whole hold, as an estimate."""
    charged = cost(hold.usage, price, find_price)
    return Outcome(ending, hold.usage, "estimated", charged, price, None)
