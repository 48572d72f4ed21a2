"""Spend as the FinOps Open Cost and Usage Specification (FOCUS) has it, version 1.2.

https://focus.finops.org/focus-specification/v1-2/ - a charge is what one key spent on one model of
one provider in one period; columns that only this ledger has come last and begin with `x_`.
Amounts are the ledger's net costs: it knows the one price that was paid, so the list, contracted,
effective and billed costs are the same.
"""

import json
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from db.errors import ReportError
from db.report_dimensions import TAG, TOKENS
from db.report_periods import Period
from db.report_sums import COST
from pricing.money import usd_from_nano
from proxy.control.reporting import Answer, Question, iso, period_sums
from proxy.windows import current_window

WHO = ("organization", "team", "project", "user", "key")
WHAT = ("provider", "model")
# Weeks lie in two billing periods.
GRANULARITIES = ("hour", "day", "month")
COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency",
    "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost",
    "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingCategory", "PricingQuantity",
    "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
    "ServiceSubcategory", "SkuId", "SubAccountId", "SubAccountName", "Tags", "x_Calls",
    "x_InputTokens", "x_CacheReadTokens", "x_CacheWriteTokens", "x_OutputTokens",
    "x_ReasoningTokens",
)  # fmt: skip


async def focus(connection: AsyncConnection, question: Question, now_ms: int) -> Answer:
    """Per day unless the question says otherwise. `by` may name tags, which are then in Tags.

    Raises ReportError.
    """
    if any(not name.startswith(TAG) for name in question.by):
        raise ReportError("FOCUS has its own dimensions: only tag:NAME can be added to them")
    if question.compare or question.trend:
        raise ReportError("FOCUS has charges, neither comparisons nor trends")
    granularity = question.granularity or "day"
    if granularity not in GRANULARITIES:
        raise ReportError(f"FOCUS has charges per {', '.join(GRANULARITIES)}, not {granularity}")
    asked = replace(question, by=(*WHO, *WHAT, *question.by), granularity=granularity)
    found = await period_sums(connection, asked, now_ms)
    rows = []
    for number, *names in sorted(found.sums, key=lambda key: (key[0], _text(key[1:]))):
        named = dict(zip(asked.by, names, strict=True))
        values = found.sums[number, *names]
        rows.append(_charge(found.periods[number], named, values, question.timezone))
    return Answer(list(COLUMNS), rows)


def _text(names: Any) -> tuple[str, ...]:
    return tuple(name or "" for name in names)


def _charge(
    period: Period, named: dict[str, Any], values: list[int], timezone: str
) -> dict[str, Any]:
    cost = usd_from_nano(values[COST])
    tokens = dict(zip(TOKENS, values[1:COST], strict=True))
    quantity, unit = tokens["input_tokens"] + tokens["output_tokens"], "Tokens"
    if not quantity:  # billed by images, pages, seconds: the ledger sums no such units
        quantity, unit = values[0], "Requests"
    month = current_window("month", timezone, 0, 1, period.start_s)
    provider, model = named["provider"], named["model"]
    charge = {
        "BillingAccountId": named["organization"],
        "BillingAccountName": named["organization"],
        "BillingCurrency": "USD",
        "BillingPeriodStart": iso(month[0]),
        "BillingPeriodEnd": iso(month[1]),
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": f"{model} at {provider}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": iso(period.start_s),
        "ChargePeriodEnd": iso(period.end_s),
        "PricingCategory": "Standard",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "SkuId": f"{provider}/{model}",
        "SubAccountId": named["team"],
        "SubAccountName": named["team"],
        "Tags": _tags(named),
        "x_Calls": values[0],
    }
    costs = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
    charge |= dict.fromkeys(costs, cost)
    sellers = ("InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceName")
    charge |= dict.fromkeys(sellers, provider)
    charge |= dict.fromkeys(("ConsumedQuantity", "PricingQuantity"), quantity)
    charge |= dict.fromkeys(("ConsumedUnit", "PricingUnit"), unit)
    charge |= {f"x_{name.title().replace('_', '')}": count for name, count in tokens.items()}
    return {name: charge[name] for name in COLUMNS}


def _tags(named: dict[str, Any]) -> str:
    tags = {
        name.removeprefix(TAG): value
        for name, value in named.items()
        if value is not None and name not in (*WHAT, "organization", "team")
    }
    return json.dumps(tags, sort_keys=True, ensure_ascii=False)
