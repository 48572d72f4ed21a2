"""What a verification finds."""

import uuid
from typing import NamedTuple


class Finding(NamedTuple):
    invariant: str  # I1a, I1c, I2, I3, I4, I5, rollups, references
    subject: str  # "window 7 of budget team/acme/search|usd|day...", "call 0190..."
    message: str


def call_name(call_id: bytes) -> str:
    return f"call {uuid.UUID(bytes=call_id)}"
