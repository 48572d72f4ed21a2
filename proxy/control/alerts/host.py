"""What this host sees by itself: models without a price, calls above their hold, records put aside.

Counts are of this life of control. What grew is told once a day and host; it counts as told only
once it is in the database.
"""

from collections.abc import Mapping

from db.alerts import NewAlert, identity_of
from proxy.alert_kinds import KINDS
from proxy.control.control import Control
from proxy.control.plain_rows import printable
from proxy.metrics import OTHER

UNPRICED, VIOLATION, DEAD_LETTER = "unpriced_model", "ceiling_violation", "dead_letter"
DAY_MS = 86_400_000
ALERTS_MAX = 20  # of one kind, a day and host: callers choose the names of models freely


class HostWatch:
    def __init__(self, control: Control, host_id: str) -> None:
        self._control = control
        self._host_id = host_id
        self._told: dict[tuple[str, str], int] = {}  # (kind, name) -> count
        self._today: dict[tuple[int, str], int] = {}  # (day, kind) -> alerts

    def grown(self, now_ms: int) -> list[tuple[NewAlert, tuple[str, str], int]]:
        """What has grown since it was told, with what `told` is to be called with."""
        day = now_ms // DAY_MS
        self._today = {key: count for key, count in self._today.items() if key[0] == day}
        found = []
        for kind in (UNPRICED, VIOLATION, DEAD_LETTER):
            new = [
                (self._alert(kind, name, count, day), (kind, name), count)
                for name, count in self._counts(kind).items()
                if count > self._told.get((kind, name), 0)
            ]
            found += new[: max(ALERTS_MAX - self._today.get((day, kind), 0), 0)]
        return found

    def told(self, key: tuple[str, str], count: int, now_ms: int, *, raised: bool) -> None:
        self._told[key] = count
        if raised:
            today = (now_ms // DAY_MS, key[0])
            self._today[today] = self._today.get(today, 0) + 1

    def _counts(self, kind: str) -> Mapping[str, int]:
        if kind == DEAD_LETTER:
            return {"": self._control.dead_letters}
        return self._control.counts.sums()[1].notable.get(kind, {})

    def _alert(self, kind: str, name: str, count: int, day: int) -> NewAlert:
        new = count - self._told.get((kind, name), 0)
        shown = printable(name) if name != OTHER else "further models"
        calls = "1 call" if new == 1 else f"{new} calls"
        records = "1 record" if new == 1 else f"{new} records"
        host = self._host_id[:8]
        summary = {
            UNPRICED: f"no price for {shown}: {calls} on host {host}",
            VIOLATION: f"{calls} to {shown} cost more than their hold, on host {host}: "
            "a price or a rule of holds is wrong",
            DEAD_LETTER: f"{records} could not be stored on host {host}: see dead-letters.ndjson "
            "beside its journals",
        }[kind]
        facts = {"name": shown, "count": new, "host": self._host_id}
        identity = identity_of(kind, self._host_id, day, name)
        if kind == UNPRICED:  # the same on every host
            identity = identity_of(kind, day, name)
        return NewAlert(kind, identity, KINDS[kind].severity, summary, "", facts)
