"""Transactions that fail where a test wants them to."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy.exc import OperationalError

from db.ledger_types import OutcomeUnknown
from db.transactions import Transactions


class Killed(BaseException):
    """The process is gone at this point: nothing catches it."""


def _outage() -> OperationalError:
    return OperationalError("COMMIT", {}, Exception("server closed the connection"))


class Faulty:
    """`script`: one fault for each of the next transactions, then none.

    ok; refused: never began; rolled back: failed after its statements; lost: committed, but the
    answer never came; undone: the same, and it was not committed; killed, killed after: the
    process dies before or after COMMIT.
    """

    def __init__(self, real: Transactions) -> None:
        self._real = real
        self.dialect = real.dialect
        self.script: Iterator[str] = iter(())
        self.runs = 0

    async def run(self, work: Any) -> Any:
        self.runs += 1
        fault = next(self.script, "ok")
        if fault == "refused":
            raise _outage()
        if fault in ("rolled back", "undone", "killed"):
            await self._roll_back(work)
            raise {"rolled back": _outage(), "undone": OutcomeUnknown(), "killed": Killed()}[fault]
        result = await self._real.run(work)
        if fault == "lost":
            raise OutcomeUnknown
        if fault == "killed after":
            raise Killed
        return result

    async def _roll_back(self, work: Any) -> None:
        def then_fail(connection: Any) -> None:
            work(connection)
            raise _RollBackError

        try:
            await self._real.run(then_fail)
        except _RollBackError:
            return

    async def close(self) -> None:
        await self._real.close()


class _RollBackError(Exception):
    pass
