"""The demo's calls, and what it claims about them once they are made."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from proxy.demo.callers import Refused, Sdks
from proxy.demo.ledger_view import LedgerView
from proxy.demo.provider import SimulatedProvider
from proxy.demo.scenario import CALLERS, LIMITS_USD, TIGHT_SCOPE, Caller, prompts
from proxy.demo.screen import Row, View

POLL_S = 0.1
ROWS_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Claim:
    """Something the demo shows, and whether it held."""

    text: str
    holds: bool


class Story:
    """One run against a proxy that is up. `view` is what is known so far."""

    def __init__(
        self, url: str, provider: SimulatedProvider, sdks: Sdks, ledger: LedgerView
    ) -> None:
        self.view = View(url, LIMITS_USD)
        self._provider = provider
        self._sdks = sdks
        self._ledger = ledger
        self._lock = threading.Lock()
        self._answered = 0
        self._attempts = 0

    async def tell(self, show: Callable[[Sequence[Row]], None]) -> None:
        """Make all calls, each caller in a thread of its own, and wait for the last row.

        `show` is called often, with the rows that are new since the last time.
        """
        threads = [asyncio.to_thread(self._calls_of, caller) for caller in CALLERS]
        calls = asyncio.gather(*threads)
        deadline: float | None = None
        while deadline is None or time.monotonic() < deadline:
            show(self.view.add(await self._ledger.calls()))
            if calls.done():
                deadline = deadline or time.monotonic() + ROWS_TIMEOUT_S
                if len(self.view.rows) >= self._answered:
                    break
            await asyncio.sleep(POLL_S)
        await calls  # raises what a caller did not expect

    def _calls_of(self, caller: Caller) -> None:
        call = self._sdks.caller(self.view.url, caller)
        for prompt in prompts(caller):
            self._count(in_flight=1)
            try:
                refused = call(prompt)
            finally:
                self._count(in_flight=-1)
            self._record(refused)

    def _count(self, *, in_flight: int) -> None:
        with self._lock:
            self.view.in_flight += in_flight

    def _record(self, refused: Refused | None) -> None:
        with self._lock:
            self._attempts += 1
            if refused is None:
                self._answered += 1
            else:
                self.view.refusals.append(refused)

    async def claims(self) -> list[Claim]:
        """What was shown, checked against the provider's own bill and the whole ledger."""
        rows, bills = self.view.rows, self._provider.bills
        billed = self._provider.billed_usd
        total = sum((Decimal(row["cost_usd"]) for row in rows), Decimal(0))
        ids = {row["request_id"] for row in rows}
        findings = await self._ledger.findings()
        return [
            Claim(
                f"{self._answered} calls were answered: {len(bills)} on the provider's bill, "
                f"{len(rows)} rows in the ledger",
                self._answered == len(bills) == len(rows) == len(ids),
            ),
            Claim(
                f"The rows add up to ${_plain(total)}; the provider's bill is ${_plain(billed)}",
                total == billed,
            ),
            self._refusals(),
            Claim(
                "The provider saw its own key alone, never a caller's",
                self._provider.rejected == 0,
            ),
            Claim(
                f"tollkeeper verify: {findings[0] if findings else 'every invariant holds'}",
                not findings,
            ),
        ]

    def _refusals(self) -> Claim:
        spent, limit = self.view.spent(TIGHT_SCOPE), Decimal(LIMITS_USD[TIGHT_SCOPE])
        refused = len(self.view.refusals)
        return Claim(
            f"{TIGHT_SCOPE} spent ${_plain(spent)} of ${limit}: {refused} calls refused before "
            "they reached the provider",
            0 < spent <= limit and 0 < refused == self._attempts - len(self._provider.bills),
        )


def _plain(usd: Decimal) -> str:
    return format(usd.normalize(), "f")
