"""Records the ledger cannot take, kept in a file beside the journals for a person to look at."""

import base64
import json
import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from db.journal_reader import Damage
from db.journal_records import Hold, Settle

log = logging.getLogger(__name__)

FILE_NAME = "dead-letters.ndjson"
DAMAGE_BYTES_MAX = 64 * 2**10  # the segment itself stays for `journal.keep_h`


class DeadLetters:
    """Appends one JSON object per line, on disk before the call returns. A line may come twice
    (its transaction was retried); `call_id` tells. Usable from any one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self.count = 0

    def record(self, hold: Hold, settle: Settle | None, reason: str) -> None:
        self._append(
            {"reason": reason, "call_id": hold.call_id.hex(), "hold": hold, "settle": settle}
        )

    def write(self, letter: Damage | Settle) -> None:
        """Something a journal's reader could not place."""
        if isinstance(letter, Settle):
            reason = "the hold of this settlement was damaged"
            line = {"reason": reason, "call_id": letter.call_id.hex(), "settle": letter}
            self._append(line)
        else:
            self._damage(letter)

    def _damage(self, damage: Damage) -> None:
        self._append(
            {
                "reason": f"damaged: {damage.reason}",
                "journal": damage.journal_id.hex(),
                "segment": damage.segment,
                "start": damage.start,
                "end": damage.end,
                "data": base64.b64encode(damage.data[:DAMAGE_BYTES_MAX]).decode(),
            }
        )

    def _append(self, line: dict[str, Any]) -> None:
        self.count += 1
        log.error("a record was put aside in %s: %s", FILE_NAME, line["reason"])
        data = json.dumps(line, default=_plain, separators=(",", ":")).encode() + b"\n"
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
            os.fdatasync(fd)
        finally:
            os.close(fd)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    raise TypeError(f"cannot write {type(value).__name__}")
