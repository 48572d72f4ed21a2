"""The journal's record of how a call ended."""

import time

from db.journal_records import (
    FLAG_CEILING_VIOLATION,
    FLAG_CLAMPED,
    FLAG_LEARNED,
    FLAG_REPORTED_COST,
    FLAG_UNBACKED,
    FLAG_UNPRICED,
    NO_REQUEST,
    Amounts,
    Opens,
    Settle,
)
from proxy.call import Call
from proxy.estimates import cut_to, estimated_usage
from proxy.holds import HeldCall
from proxy.objects import account_of
from proxy.outcome import Outcome

OBJECT_ID_CHARS_MAX = 128


def _flags(call: Call, held: HeldCall, done: Outcome, charges: Amounts) -> int:
    assert call.bounds is not None
    flags = 0 if held.backed else FLAG_UNBACKED
    if call.clamped is not None:
        flags |= FLAG_CLAMPED
    if done.price.unpriced:
        flags |= FLAG_UNPRICED
    if done.priced_nano is not None:
        flags |= FLAG_REPORTED_COST
    if done.cost.nano > call.bounds.ceiling.nano:
        flags |= FLAG_CEILING_VIOLATION
    if call.bounds.learned is not None and (
        done.cost.nano > held.ceiling_nano or held.exceeded(charges)
    ):
        flags |= FLAG_LEARNED
    return flags


def settlement(call: Call, done: Outcome) -> Settle:
    """The journal record of an outcome; charges follow the units of the held budgets."""
    held = call.held
    assert held is not None
    charges = held.charges(
        cost_nano=done.cost.nano,
        tokens=done.usage.total_tokens if done.usage else 0,
        requests=0 if done.ending in NO_REQUEST else 1,
    )
    done.flags = _flags(call, held, done, charges)
    reading = done.reading
    return Settle(
        call_id=call.call_id,
        held=held.amounts,
        charges=charges,
        ending=done.ending,
        http_status=call.status,
        usage=done.usage.as_dict() if done.usage else None,
        usage_source=done.usage_source,
        price_version=call.state.prices.version,
        cost_nano=done.cost.nano,
        cost_items=done.cost.items,
        model=done.price.key,
        response_id=reading.response_id if reading else "",
        duration_ms=(time.perf_counter_ns() - call.began_ns) // 1_000_000,
        first_byte_ms=(call.first_byte_ns - call.began_ns) // 1_000_000
        if call.first_byte_ns
        else 0,
        error=call.error or (reading.error if reading else ""),
        flags=done.flags,
        priced_nano=done.priced_nano,
        opens=_opens(call, done) if done.ending == "open" else None,
    )


def _opens(call: Call, done: Outcome) -> Opens | None:
    """What the provider made of an open call; None: nobody knows, so it stays at its hold."""
    reading, facts, bounds = done.reading, call.facts, call.bounds
    if reading is None or not reading.opened:
        return None
    assert facts is not None
    assert bounds is not None
    assert call.provider is not None
    estimate: dict[str, object] = {}
    if facts.later == "response":
        estimate = cut_to(estimated_usage(facts, None), bounds.ceiling.usage).as_dict()
    account = account_of(call.provider, call.credential)
    return Opens(facts.later, account, reading.opened[:OBJECT_ID_CHARS_MAX], estimate)
