"""Refused calls on their way to control, where people read why. They have no row and cost nothing,
so some may be left out: all are counted and logged."""

from proxy.call import Call
from proxy.errors import Refusal
from proxy.wire import Refused

PER_STATUS_MAX = 100
TEXT_CHARS_MAX = 256  # names come from clients
MESSAGE_CHARS_MAX = 1_000


class RefusedCalls:
    def __init__(self) -> None:
        self._calls: list[Refused] = []

    def add(self, call: Call, refusal: Refusal) -> None:
        if len(self._calls) < PER_STATUS_MAX:
            self._calls.append(_refused(call, refusal))

    def take(self) -> list[Refused]:
        taken, self._calls = self._calls, []
        return taken


def _refused(call: Call, refusal: Refusal) -> Refused:
    principal, provider, facts = call.principal, call.provider, call.facts
    key = principal.key if principal is not None else None
    return Refused(
        at_ms=call.at_ms,
        request_id=call.request_id,
        code=refusal.code,
        status=call.refusal_status(refusal),
        message=refusal.message[:MESSAGE_CHARS_MAX],
        organization=key.organization if key is not None else "",
        team=key.team if key is not None else "",
        project=principal.project if principal is not None else "",
        user=principal.user[:TEXT_CHARS_MAX] if principal is not None else "",
        key=call.key_name,
        provider=provider.name if provider is not None else "",
        model=facts.model[:TEXT_CHARS_MAX] if facts is not None else "",
        details={name: str(value)[:TEXT_CHARS_MAX] for name, value in refusal.details.items()},
    )
