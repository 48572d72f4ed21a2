"""What a seed stands for: how many hosts, which budgets, which faults."""

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from msgspec.structs import replace

from proxy.config import (
    Budget,
    Config,
    Customers,
    Journal,
    Key,
    Log,
    Organization,
    Provider,
    Server,
    Team,
)
from tests.simulation.clients import KEY

SEGMENT_BYTES = (1_500, 6_000, 2**20)
FAULTS = (
    "kill_worker", "kill_control", "kill_in_write", "kill_host", "power_loss", "pause",
    "database_errors", "database_absent", "database_slow", "in_doubt", "kill_in_commit",
    "provider_errors", "hang_ups", "above_ceiling", "messages_repeated", "messages_lost",
    "channel_cut", "clock_jump", "limits", "budgets_deleted", "keys", "disk_full",
    "long_pause", "drain", "foreign_drain", "restore",
)  # fmt: skip
CUSTOMERS = 0.15  # share of the worlds that have a budget for each of them
CAPS = (Customers(), Customers(tracked_max=2), Customers(tracked_max=2, beyond="share"))
RARE = {"restore": 0.04, "foreign_drain": 0.1, "messages_lost": 0.15, "long_pause": 0.15}


class Bytes(int):
    """A size in MB that is smaller than a configuration may ask for, so that segments end."""

    def __mul__(self, other: int) -> int:
        return int(self)


@dataclass
class Scenario:
    seed: int
    hosts: int = 1
    workers: int = 1
    calls: int = 24
    faults: frozenset[str] = frozenset()
    sync: str = "os"
    outage: str = "block"
    segment_bytes: int = 6_000
    keep_h: float = 24.0
    flush_ms: int = 100
    budgets: list[Budget] = field(default_factory=list)
    customers: int = 0  # who call; each has a budget of its own, 0: there is no template

    @classmethod
    def of(cls, seed: int, **fixed: Any) -> "Scenario":
        random = Random(f"scenario {seed}")
        likely = random.choice((0.0, 0.1, 0.25, 0.5))
        hosts = random.choice((1, 1, 2))
        values: dict[str, Any] = {
            "hosts": hosts,
            "workers": random.choice((1, 1, 2, 3)) if hosts == 1 else random.choice((1, 2)),
            "calls": random.choice((8, 16, 24)),
            "faults": frozenset(f for f in FAULTS if random.random() < RARE.get(f, likely)),
            "sync": random.choice(("os", "os", "batch", "always")),
            "outage": random.choice(("block", "block", "block", "allow")),
            "segment_bytes": random.choice(SEGMENT_BYTES),
            "flush_ms": random.choice((20, 100, 100, 400)),
            "keep_h": random.choice((24.0, 24.0, 0.0005)),
            "budgets": _budgets(random),
        }
        if "restore" in values["faults"]:
            values["keep_h"] = 24.0
        return cls(seed, **(values | fixed))._with_customers()

    def _with_customers(self) -> "Scenario":
        """Drawn apart, so that the other seeds stand for what they always did."""
        random = Random(f"customers {self.seed}")
        if random.random() < CUSTOMERS:
            self.customers = random.choice((1, 3, 5))
            self.budgets.append(
                Budget(
                    "team/acme/search",
                    random.choice(("total", "day", "minute")),
                    limit_usd=random.choice(("0.005", "0.012")),
                    each="customer",
                    customers=random.choice(CAPS),
                    hold_wait_ms=self.budgets[0].hold_wait_ms if self.budgets else 300,
                )
            )
        return self

    def config(self, directory: Path) -> Config:
        journal = Journal(
            dir=str(directory),
            sync=self.sync,  # type: ignore[arg-type]
            keep_h=self.keep_h,
            flush_interval_ms=self.flush_ms,
        )
        key = Key("prod", key_sha256=sha256(KEY.encode()).hexdigest())
        return Config(
            server=Server(
                workers=self.workers, drain_s=3, first_byte_timeout_s=20, idle_timeout_s=20
            ),
            journal=replace(journal, segment_mb=Bytes(self.segment_bytes)),
            providers={
                "openai": Provider(
                    base_url="http://provider.test", dialect="openai", api_key="sk", prices="openai"
                )
            },
            organizations={"acme": Organization(teams={"search": Team(keys=[key])})},
            budgets=self.budgets,
            log=Log(calls=False),
            on_ledger_outage=self.outage,  # type: ignore[arg-type]
        )

    def __str__(self) -> str:
        budgets = ", ".join(
            f"{b.period} {b.unit_and_limit()[1]} {b.unit_and_limit()[0]}"
            + (f" for each of {self.customers} customers" if b.each else "")
            for b in self.budgets
        )
        return (
            f"{self.hosts} hosts x {self.workers} workers, {self.calls} calls, sync {self.sync}, "
            f"flush {self.flush_ms} ms, outage {self.outage}, segments of {self.segment_bytes}; "
            f"{budgets}; "
            f"faults: {', '.join(sorted(self.faults)) or 'none'}"
        )


def _budgets(random: Random) -> list[Budget]:
    """A call holds about 4 mUSD, 2,500 tokens and one request, and costs less."""
    wait = random.choice((0, 300, 2_000))
    team, org, key = "team/acme/search", "organization/acme", "key/prod"
    some = [
        Budget(team, "total", limit_usd=random.choice(("0.012", "0.03", "0.08")), hold_wait_ms=wait)
    ]
    if random.random() < 0.5:
        some.append(
            Budget(org, "day", limit_usd=random.choice(("0.02", "0.05")), hold_wait_ms=wait)
        )
    if random.random() < 0.3:
        some.append(
            Budget(key, "hour", limit_tokens=random.choice((12_000, 60_000)), hold_wait_ms=wait)
        )
    if random.random() < 0.3:
        some.append(Budget(org, "minute", limit_requests=random.choice((5, 15)), hold_wait_ms=wait))
    if random.random() < 0.1:
        some.append(Budget(key, "total", limit_usd="0.05", hold="learned", hold_wait_ms=wait))
    return some
