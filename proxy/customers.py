"""Budgets of end customers on a worker: asked of control when a customer is first met, before its
call is admitted. A customer whose budget is not known is never let in without one.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING

from proxy.errors import Refusal
from proxy.providers.base import CustomerDialect, Dialect
from proxy.scopes import NAME, BudgetIndex, applies
from proxy.wire import ANSWER_WAIT_MS, BudgetEntry, Meet, Message, Met

if TYPE_CHECKING:
    from proxy.call import Call

ANSWER_WAIT_S = ANSWER_WAIT_MS / 1000
HEADER = "x-tollkeeper-customer"

# Why there is no budget, by template: "beyond" (it tracks as many as it may), "gone" (it was
# deleted a moment ago) or "outage".
Unmet = Mapping[int, str]
NONE_UNMET: Unmet = MappingProxyType({})


class Introductions:
    """Questions to control, each asked once however many calls wait for the answer."""

    def __init__(
        self,
        send: Callable[[Message], None],
        learn: Callable[[str, tuple[BudgetEntry, ...]], None],
    ) -> None:
        self._send = send
        self._learn = learn
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[Meet, asyncio.Future[Met]]] = {}
        self._open: dict[tuple[str, tuple[int, ...]], asyncio.Future[Met]] = {}
        self._gone = False

    async def meet(self, customer: str, templates: tuple[int, ...]) -> Unmet:
        """Learn the budgets of a customer. May be cancelled: others go on waiting."""
        future = self._open.get((customer, templates)) or self._ask(customer, templates)
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                met = await asyncio.shield(future)
        except TimeoutError:
            return dict.fromkeys(templates, "outage")
        if met.outage:
            return dict.fromkeys(templates, "outage")
        found = {budget.template for budget in met.budgets}
        return {
            template: "beyond" if template in met.beyond else "gone"
            for template in templates
            if template not in found
        }

    def _ask(self, customer: str, templates: tuple[int, ...]) -> asyncio.Future[Met]:
        future: asyncio.Future[Met] = asyncio.get_running_loop().create_future()
        if self._gone:
            future.set_result(Met(0, outage=True))
            return future
        question = Meet(next(self._numbers), customer, templates)
        self._asked[question.ask_id] = question, future
        self._open[customer, templates] = future
        self._send(question)
        return future

    def on_met(self, met: Met) -> None:
        """The answer, also one that nobody waits for any more."""
        question, future = self._asked.pop(met.ask_id, (None, None))
        if question is None or future is None:
            return
        del self._open[question.customer, question.templates]
        if met.budgets:
            self._learn(question.customer, met.budgets)
        future.set_result(met)

    def control_gone(self) -> None:
        self._gone = True
        for number in list(self._asked):
            self.on_met(Met(number, outage=True))


def name_customer(call: "Call", index: BudgetIndex) -> None:
    """Take the customer that the request's body names, where a budget asks for it and no header
    has named one."""
    arrival, facts = call.arrival, call.facts
    assert arrival is not None
    assert facts is not None
    if arrival.principal.customer:
        return
    if any(template.customer_from_body for template in index.templates_of(arrival.principal)):
        customer = customer_in(arrival.dialect, facts.body)
        if customer:
            call.arrival = found = arrival.of_customer(customer)
            call.principal, call.own = found.principal, found.own


def customer_in(dialect: Dialect, body: Mapping[str, object]) -> str:
    """The customer a request names in its API's own field for end users; "": none. What is no name
    of a customer still is one: its digest, so that nobody slips through a budget by a value that
    does not fit. Raises Refusal `bad_request`."""
    for path in dialect.customer_fields if isinstance(dialect, CustomerDialect) else ():
        value: object = body
        for name in path:
            value = value.get(name) if type(value) is dict else None
        if value is None or value == "":
            continue
        if type(value) is not str:
            name = ".".join(path)
            raise Refusal("bad_request", f"`{name}` is for the call's end user: send a string.")
        return value if NAME.fullmatch(value) else f"sha256:{sha256(value.encode()).hexdigest()}"
    return ""


def check_customer(call: "Call", index: BudgetIndex) -> None:
    """Every template that is for this call has a budget for its customer, or need not have one.
    Raises Refusal."""
    arrival, facts = call.arrival, call.facts
    assert arrival is not None
    assert facts is not None
    principal = arrival.principal
    models = {facts.model, *(model for model, _ in facts.parts)}
    for template in index.templates_of(principal):
        wanted = any(applies(template, arrival.provider.name, model) for model in models)
        if not template.enforce or not wanted:
            continue
        if not principal.customer:
            if template.customer_required:
                raise unnamed(template)
        elif index.customer(template, principal.customer) is None:
            _check_unmet(call, template)


def _check_unmet(call: "Call", template: BudgetEntry) -> None:
    why = call.unmet.get(template.id, "outage")
    if why == "beyond":
        raise _too_many(call, template)
    if why == "outage" and call.state.settings.on_ledger_outage != "allow":
        raise Refusal(
            "ledger_unavailable",
            "The customer's budget cannot be looked up now: the ledger cannot be reached. Try "
            "again in a moment.",
            retry_after_s=5,
        )


def unnamed(template: BudgetEntry) -> Refusal:
    """Of a call that has to name its customer."""
    or_body = " or in the request's own field for it" if template.customer_from_body else ""
    return Refusal(
        "customer_required",
        f"Calls of {template.scope} must name the customer they are for in {HEADER}{or_body}.",
        {"header": HEADER, "scope": template.scope},
    )


def _too_many(call: "Call", template: BudgetEntry) -> Refusal:
    assert call.arrival is not None
    customer = call.arrival.principal.customer
    return Refusal(
        "too_many_customers",
        f"The customer '{customer}' is new, and the {template.period} budget for each customer of "
        f"{template.scope} tracks {template.customers_max} already "
        "(budgets[].customers.tracked_max).",
        {
            "scope": template.scope,
            "customer": customer,
            "tracked_max": template.customers_max,
        },
    )
