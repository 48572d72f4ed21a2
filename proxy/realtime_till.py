"""Where the turns of a session get their money: each is held and settled like any other call."""

import time
from typing import TYPE_CHECKING

from proxy.admission import admit, find_plan, find_terms, hold_record
from proxy.arrival import Arrival
from proxy.budgets import Budgets
from proxy.call import Call, authenticate, check_metered, find_route
from proxy.errors import Refusal
from proxy.ids import CallIds
from proxy.learned import Learned
from proxy.providers.base import Facts
from proxy.providers.openai_realtime import TurnMeter
from proxy.telemetry import Telemetry

if TYPE_CHECKING:
    from proxy.gateway import Gateway

TURN_FAILED = 500  # a turn has no status of its own


class SessionTill:
    """The till of one session's lanes. `visit` is the handshake's call, made anew for every
    snapshot: a key that is revoked pays for no further turn."""

    def __init__(
        self,
        visit: Call,
        gateway: "Gateway",
        budgets: Budgets,
        learned: Learned,
        telemetry: Telemetry,
        ids: CallIds,
    ) -> None:
        self.visit = visit
        self._gateway = gateway
        self._budgets = budgets
        self._learned = learned
        self._telemetry = telemetry
        self._ids = ids

    @property
    def closed(self) -> Refusal | None:
        """Why no further turn is held for, whoever asks."""
        return self._gateway.closed

    def renew(self) -> Call:
        """The visit under the snapshot in force. Raises Refusal: the key counts no more."""
        visit, state, now_s = self.visit, self._gateway.state, self._gateway.now_s()
        assert state is not None
        if visit.arrival is not None and visit.arrival.holds(state, now_s):
            return visit
        fresh = Call(visit.client, state, visit.call_id, visit.at_ms)
        find_route(fresh)
        authenticate(fresh, now_s)
        check_metered(fresh)
        fresh.arrival = Arrival(fresh)
        self.visit = fresh
        return fresh

    async def hold(self, facts: Facts) -> Call:
        if self.closed is not None:
            raise self.closed
        call = self._turn(self.renew(), facts)
        try:
            await admit(call, self._budgets, self._learned, self._gateway.now_s())
        except Refusal:
            raise
        except Exception as exc:
            raise self._failed(call, exc) from exc
        return call

    def charge_unheld(self, facts: Facts) -> Call | None:
        try:
            call = self._turn(self.visit, facts)
            terms = find_terms(call, self._budgets)
            now_s = self._gateway.now_s()
            _, plan = find_plan(call, terms, self._budgets, self._learned, now_s)
            if plan is None or call.hold is None:
                return None
            call.held = self._budgets.hold_begun(hold_record(call, call.hold), plan).held
        except Exception as exc:  # nothing else can be done for this turn
            self._failed(self.visit, exc)
            return None
        return call if call.held is not None else None

    def _turn(self, visit: Call, facts: Facts) -> Call:
        """A call of its own. Raises Refusal `model_not_allowed`."""
        arrival = visit.arrival
        assert arrival is not None
        at_ms = int(self._gateway.now_s() * 1000)
        call = Call(visit.client, visit.state, self._ids.new(at_ms), at_ms, arrival)
        call.route, call.facts = facts.route, facts
        if not arrival.principal.allows_model(facts.model):
            raise Refusal(
                "model_not_allowed", f"The key '{visit.key_name}' may not use '{facts.model}'."
            )
        return call

    def _failed(self, call: Call, exc: Exception) -> Refusal:
        self._telemetry.problem("internal error", call.request_id, exc)
        message = f"Tollkeeper failed on a turn; the operator finds it under id {call.request_id}."
        return Refusal("internal_error", message)

    def begin(self, call: Call, meter: TurnMeter) -> None:
        call.meter = meter
        call.began_ns = call.forwarded_ns = call.first_byte_ns = time.perf_counter_ns()
        call.status = 101

    def end(self, call: Call, ending: str) -> None:
        if ending == "upstream_error":  # of this turn alone, or of the handshake
            call.status = TURN_FAILED if call.meter is not None else self.visit.status
        self._gateway.settle(call, ending)
        if call.meter is not None:
            self._telemetry.ended(call)
