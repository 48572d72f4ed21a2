"""What a caller is told when budgets, or its own cap, refuse a call."""

from datetime import UTC, datetime

from pricing.money import usd_from_nano
from proxy.errors import Refusal
from proxy.holds import HoldResult
from proxy.wire import BudgetEntry


def cost_cap_refusal(nano: int, cap_nano: int) -> Refusal:
    """`x-tollkeeper-max-cost-usd`: the call might cost more."""
    return Refusal(
        "cost_cap_exceeded",
        f"This call can cost up to {usd_from_nano(nano)} USD, above its own cap of "
        f"{usd_from_nano(cap_nano)} USD (x-tollkeeper-max-cost-usd). Lower its output limit.",
        {"ceiling_usd": usd_from_nano(nano), "cap_usd": usd_from_nano(cap_nano)},
    )


def refusal(result: HoldResult) -> Refusal:
    """Why the call was not admitted, for its caller."""
    budget = result.budget
    if result.kind == "spent" and budget is not None:
        return spent_refusal(
            budget,
            spent=result.spent,
            held=result.held_amount,
            needed=result.needed,
            resets_at_s=result.resets_at_s,
        )
    if result.kind == "busy" and budget is not None:
        return busy_refusal(budget, result)
    reason = "the journal's disk is full" if result.kind == "full" else "it cannot be reached"
    return Refusal(
        "ledger_unavailable",
        f"Budgets cannot be checked now: {reason}. Try again in a moment.",
        retry_after_s=5,
    )


def spent_refusal(
    budget: BudgetEntry, *, spent: int, held: int, needed: int, resets_at_s: int | None
) -> Refusal:
    """The budget cannot pay for this call, now or until its window ends."""
    details = _figures(budget, spent, held, needed)
    when = ""
    if resets_at_s is not None:
        resets_at = datetime.fromtimestamp(resets_at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        details["resets_at"] = resets_at
        when = f" It resets at {resets_at}."
    return Refusal(
        "budget_exceeded",
        f"The {budget.period} budget of {budget.scope} cannot pay for this call: limit "
        f"{amount(budget, budget.limit)}, spent {amount(budget, spent)}, held by calls in flight "
        f"{amount(budget, held)}; this call can take up to {amount(budget, needed)}.{when}",
        details,
    )


def busy_refusal(budget: BudgetEntry, result: HoldResult) -> Refusal:
    """Only calls in flight stand in the way: try again soon."""
    return Refusal(
        "budget_busy",
        f"The {budget.period} budget of {budget.scope} is held by calls in flight: "
        f"{amount(budget, result.held_amount)} of {amount(budget, budget.limit)}. "
        "Try again in a moment.",
        _figures(budget, result.spent, result.held_amount, result.needed),
        retry_after_s=result.retry_after_s,
    )


def _figures(budget: BudgetEntry, spent: int, held: int, needed: int) -> dict[str, object]:
    customer = {"customer": budget.customer} if budget.customer else {}
    return {
        "scope": budget.scope,
        **customer,
        "period": budget.period,
        "unit": budget.unit,
        "limit": number(budget, budget.limit),
        "spent": number(budget, spent),
        "held": number(budget, held),
        "needed": number(budget, needed),
    }


def number(budget: BudgetEntry, value: int) -> str | int:
    """A budget's figure for a body: exact USD as text, counts as integers."""
    return usd_from_nano(value) if budget.unit == "usd" else value


def amount(budget: BudgetEntry, value: int) -> str:
    """The same for a sentence."""
    unit = "USD" if budget.unit == "usd" else budget.unit
    return f"{number(budget, value)} {unit}"
