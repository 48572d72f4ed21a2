"""Several hosts with several workers each, one database, and budgets that calls fight for.

with Fleet(tmp_path, provider.url, hosts=2, workers=2, url=server.create("fleet")) as fleet:
    spent = fleet.spend_out(provider, key_of(0), first=10_000)
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.load import ROUTE, Provider, headers, nano, request_body
from tests.processes import Serving

AT_ONCE = 64
ROOM_FOR = 20  # calls at their ceilings
HOLD_NANO = 946_000  # the ceiling of a call of tests.load whose number has five digits
FIRST = 10_000  # the least number of a call
FOLLOW_UPS_MAX = 400


def key_of(index: int) -> str:
    return f"tk-race-{index:04d}"


def races(count: int, limit_nano: int = ROOM_FOR * HOLD_NANO) -> dict[str, Any]:
    """Configuration: so many keys, each with a budget of its own."""
    keys = [{"name": f"race-{index}", "key": key_of(index)} for index in range(count)]
    limit = f"{limit_nano / 10**9:.9f}"
    budgets = [
        {"scope": f"key/race-{index}", "limit_usd": limit, "period": "total"}
        for index in range(count)
    ]
    return {
        "organizations": {"acme": {"teams": {"search": {"keys": keys}}}},
        "budgets": [
            {"scope": "organization/acme", "limit_usd": 1000, "period": "month"},
            *budgets,
        ],
    }


@dataclass
class Race:
    """What came of one budget."""

    limit_nano: int
    at_once: Counter[str] = field(default_factory=Counter)  # outcomes of the calls at once,
    after: Counter[str] = field(default_factory=Counter)  # and of those that followed
    billed_nano: int = 0  # by the provider

    @property
    def used(self) -> float:
        return self.billed_nano / self.limit_nano


class Fleet:
    """`hosts` times `tollkeeper serve`. Without `url` there is one, on SQLite."""

    def __init__(
        self,
        directory: Path,
        provider_url: str,
        *,
        hosts: int = 1,
        workers: int = 1,
        url: str = "",
        constants: dict[str, object] | None = None,
        **changes: Any,
    ) -> None:
        assert url or hosts == 1, "a SQLite file has one host"
        if url:
            changes["database"] = {"url": url}
        changes["server"] = {"workers": workers, **changes.get("server", {})}
        self.hosts: list[Serving] = []
        for number in range(hosts):
            own = directory / f"host-{number}"
            own.mkdir(exist_ok=True)
            self.hosts.append(Serving(own, provider_url, constants=constants, **changes))

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for host in self.hosts:
                stack.enter_context(host)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, exc, trace)

    @property
    def urls(self) -> list[str]:
        return [host.url for host in self.hosts]

    def stop(self) -> None:
        """All at once, in order."""
        for host in self.hosts:
            assert host.stop() == 0, host.log

    # --- spending

    def spend_out(self, provider: Provider, key: str, first: int, limit_nano: int = 0) -> Race:
        """AT_ONCE calls at once, then one after the other until the budget refuses them."""
        return asyncio.run(self._spend_out(provider, key, first, limit_nano))

    async def _spend_out(self, provider: Provider, key: str, first: int, limit_nano: int) -> Race:
        race = Race(limit_nano or ROOM_FOR * HOLD_NANO)
        numbers = itertools.count(first)
        limits = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(timeout=90, limits=limits, verify=False) as client:
            urls = itertools.cycle(self.urls)
            for number in range(first, first + AT_ONCE):
                provider.slow(number)
            calls = [_call(client, next(urls), next(numbers), key) for _ in range(AT_ONCE)]
            race.at_once.update(await asyncio.gather(*calls))
            spent = 0  # hosts in a row that have nothing left
            for url in itertools.islice(urls, FOLLOW_UPS_MAX):
                outcome = await _call(client, url, next(numbers), key)
                race.after[outcome] += 1
                spent = spent + 1 if outcome == "budget_exceeded" else 0
                if spent == len(self.hosts):
                    break
        billed = [provider.billed.get(number, []) for number in range(first, next(numbers))]
        race.billed_nano = sum(nano(usage) for usages in billed for usage in usages)
        return race


async def _call(client: httpx.AsyncClient, url: str, number: int, key: str) -> str:
    """`ok`, or the code of the refusal."""
    body = request_body(number, stream=number % 2 == 0)
    reply = await client.post(url + ROUTE, json=body, headers=headers(number, key))
    return "ok" if reply.status_code == 200 else str(reply.json()["error"]["code"])
