"""Refused calls on their way to control, where people read why. They have no row and cost nothing,
so some of a flood are left out; all are counted and logged."""

from typing import NamedTuple

from proxy.call import Call
from proxy.errors import Refusal
from proxy.wire import Refused, RefusedGroup

PER_STATUS_MAX = 100
TEXT_CHARS_MAX = 256  # names come from clients
MESSAGE_CHARS_MAX = 1_000
SCOPE_CHARS_MAX = 512
GROUPS_MAX = 100  # told apart between two reports to control
FOLDED = "*"  # for the others: by team, provider and reason alone


class _Group(NamedTuple):
    """What is alike: as `wire.RefusedGroup` has it."""

    organization: str
    team: str
    key: str
    provider: str
    model: str
    code: str
    scope: str


class RefusedCalls:
    def __init__(self) -> None:
        self._calls: list[Refused] = []
        self._groups: dict[_Group, list[int]] = {}  # [calls, time of the last one]

    def add(self, call: Call, refusal: Refusal) -> None:
        if len(self._calls) < PER_STATUS_MAX:
            self._calls.append(_refused(call, refusal))
        group = _group(call, refusal)
        if group not in self._groups and len(self._groups) >= GROUPS_MAX:
            group = group._replace(key=FOLDED, model=FOLDED, scope=FOLDED)
        counts = self._groups.setdefault(group, [0, 0])
        counts[0] += 1
        counts[1] = max(counts[1], call.at_ms)

    def take(self) -> tuple[list[Refused], list[RefusedGroup]]:
        """Since the last time: the calls, some of a flood, and counts of all of them."""
        calls, self._calls = self._calls, []
        groups = [RefusedGroup(*group, *counts) for group, counts in self._groups.items()]
        self._groups.clear()
        return calls, groups


def _group(call: Call, refusal: Refusal) -> _Group:
    principal, provider, facts = call.principal, call.provider, call.facts
    key = principal.key if principal is not None else None
    return _Group(
        key.organization if key is not None else "",
        key.team if key is not None else "",
        call.key_name,
        provider.name if provider is not None else "",
        facts.model[:TEXT_CHARS_MAX] if facts is not None else "",
        refusal.code,
        str(refusal.details.get("scope", ""))[:SCOPE_CHARS_MAX],
    )


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
