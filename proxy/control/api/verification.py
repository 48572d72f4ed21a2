"""The invariants of the ledger: as `tollkeeper verify`, without the journals."""

from msgspec import Struct

from db.verify import verify
from proxy.control.api.backend import Backend
from proxy.control.api.table import Caller, Endpoint, Nothing
from proxy.control.identity import Role


class Found(Struct, frozen=True):
    invariant: str
    subject: str
    message: str


async def check_ledger(backend: Backend, _caller: Caller, _asked: Nothing) -> list[Found]:
    return [Found(*finding) for finding in await backend.read_engine(verify)]


ENDPOINTS = (
    Endpoint(
        "GET", "/verify", check_ledger, Nothing, list[Found], Role.ADMIN,
        "What is wrong in the ledger; nothing: every invariant holds.",
    ),
)  # fmt: skip
