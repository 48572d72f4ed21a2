"""An outage of the ledger: told while it lasts, so without the ledger, and written down after.

Every host tells of its own, since they have nothing left to agree by.
"""

import uuid
from collections.abc import Awaitable, Callable
from functools import partial

from sqlalchemy import Connection

from db.alerts import DELIVERED, RAISED, Attempt, Message, NewAlert, identity_of, settle
from db.alerts import end_alert as end
from db.alerts import raise_alert as raise_
from proxy.alert_kinds import KINDS
from proxy.control.alerts.channels import Undelivered
from proxy.control.alerts.figures import iso_ms
from proxy.control.alerts.messages import Content

KIND = "ledger_outage"
TOLERATED_MS = 10_000  # a restart of the database is none
AGAIN_MS = 60_000

Send = Callable[[str, Content], Awaitable[None]]  # to a channel by name; raises Undelivered


class OutageWatch:
    def __init__(self, host_id: str) -> None:
        self._host_id = host_id
        self._began_ms: int | None = None
        self._id = ""
        self._told: set[str] = set()  # channels
        self._again_ms = 0

    async def step(self, outage: bool, channels: set[str], now_ms: int, send: Send) -> None:
        """Note whether there is an outage, and tell the channels that are not told yet."""
        if outage and self._began_ms is None:
            self._began_ms = now_ms
        if not outage or now_ms < (self._began_ms or 0) + TOLERATED_MS or now_ms < self._again_ms:
            return
        self._id = self._id or str(uuid.uuid4())
        self._again_ms = now_ms + AGAIN_MS
        for name in sorted(channels - self._told):
            try:
                await send(name, Content(self._message()))
            except Undelivered:
                continue
            self._told.add(name)

    def over(self, channels: set[str], now_ms: int) -> Callable[[Connection], bool] | None:
        """What writes an outage down that is over: True if it was told of. Until `forget` the
        same."""
        if self._began_ms is None or not self._id:
            return None
        return partial(self._write, channels=channels, now_ms=now_ms)

    def forget(self) -> None:
        self._began_ms, self._id, self._told, self._again_ms = None, "", set(), 0

    def _write(self, connection: Connection, channels: set[str], now_ms: int) -> bool:
        began_ms = self._began_ms
        assert began_ms is not None
        new, everybody = self._new(), channels | self._told
        id_ = raise_(
            connection, new, everybody, host_id=self._host_id, now_ms=began_ms, id_=self._id
        )
        if id_ is None:
            return False
        for name in self._told:
            attempt = Attempt(id_, RAISED, name, 0, began_ms)
            settle(connection, attempt, DELIVERED, now_ms=now_ms)
        return end(connection, id_, everybody, now_ms)

    def _new(self) -> NewAlert:
        assert self._began_ms is not None
        began = iso_ms(self._began_ms)
        summary = f"the ledger is out of reach of host {self._host_id[:8]} since {began}"
        facts = {"host": self._host_id, "since": began}
        identity = identity_of(KIND, self._host_id, self._began_ms)
        return NewAlert(KIND, identity, KINDS[KIND].severity, summary, "", facts)

    def _message(self) -> Message:
        assert self._began_ms is not None
        new = self._new()
        return Message(
            self._id, KIND, RAISED, new.severity, "", new.summary, dict(new.facts),
            self._began_ms, None,
        )  # fmt: skip
