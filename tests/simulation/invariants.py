"""What must hold after every step, and what must hold in the end.

The state of the ledger is read anew after each commit, with plain SQL; `db.verify`'s own checks run
on it as well. What is in memory is looked at after each step.
"""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection

from db.catalog_budgets import identity_of
from db.customers import id_of, identity_of_customer
from db.journal_records import FLAG_UNBACKED, SHARED, Hold, Settle, Window
from db.verify_costs import check_corrections, check_costs
from db.verify_journals import check_journals
from db.verify_money import check_epochs, check_leases, check_references, check_rows, check_windows
from db.verify_rollups import check_rollups
from proxy.control.declared import declared_budget
from proxy.control.opening import Parts
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")
Execute = Callable[[str], Iterable[Any]]

WINDOWS = """
SELECT w.id, w.budget_id, w.starts_at, w.committed, w.overage, b.limit_value + w.extra, b.unit
FROM ai_budget_windows w JOIN ai_budgets b ON b.id = w.budget_id ORDER BY w.id"""
LEASES = "SELECT window_id, epoch_id, granted, spent FROM ai_budget_leases"
ROWS = """
SELECT call_id, adjusts, cost_nano, charged_tokens, charged_requests, charge_set_id, flags, ending,
usage_source, tags, hold_nano FROM ai_usage_costs"""
SETS = "SELECT charge_set_id, window_id FROM ai_charge_set_windows"


class Violation(Exception):
    pass


def require(condition: object, text: str) -> None:
    if not condition:
        raise Violation(text)


@dataclass
class WindowRow:
    id: int
    window: Window
    committed: int
    overage: int
    limit: int
    unit: str


@dataclass
class CostRow:
    call_id: bytes
    adjusts: bytes | None
    nano: int
    tokens: int
    requests: int
    windows: list[int]  # ids
    flags: int
    ending: str
    source: str
    number: int  # of the simulated call; 0: an adjustment
    hold_nano: int

    def amount(self, unit: str) -> int:
        return {"usd": self.nano, "tokens": self.tokens, "requests": self.requests}[unit]


@dataclass
class Books:
    """The ledger as it is now."""

    windows: dict[int, WindowRow] = field(default_factory=dict)
    leases: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    rows: dict[bytes, CostRow] = field(default_factory=dict)
    by_window: dict[Window, WindowRow] = field(default_factory=dict)

    @property
    def granted(self) -> int:
        return sum(granted for granted, _ in self.leases.values())

    @classmethod
    def read(cls, execute: Execute) -> "Books":
        books = cls()
        for id_, budget_id, starts_at, committed, overage, limit, unit in execute(WINDOWS):
            row = WindowRow(id_, (budget_id, starts_at), committed, overage, limit, unit)
            books.windows[id_] = books.by_window[row.window] = row
        books.leases = {(row[0], row[1]): (row[2], row[3]) for row in execute(LEASES)}
        sets: dict[int, list[int]] = {}
        for set_id, window_id in execute(SETS):
            sets.setdefault(set_id, []).append(window_id)
        for row in execute(ROWS):
            tags = str(row[9] or "")
            number = int(tags.split('"sim"')[1].strip(': "}').split('"')[0]) if tags else 0
            call_id = bytes(row[0])
            books.rows[call_id] = CostRow(
                call_id, bytes(row[1]) if row[1] else None, row[2], row[3], row[4],
                sets.get(row[5], []), row[6], row[7], row[8], number, row[10],
            )  # fmt: skip
        return books


class Invariants:
    def __init__(self, world: "World") -> None:
        self.world = world
        self.books = Books()
        self.holds: dict[int, Hold] = {}  # by simulated call: journaled
        self.calls: dict[bytes, tuple[int, object]] = {}  # call id -> simulated call, host
        self.settles: dict[bytes, Settle] = {}
        self.forwarded: set[int] = set()
        self.erased: set[int] = set()  # calls of which a power cut took something
        self.explained = True  # overage must be explained by costs above holds
        self.corrected = False  # in the end: what calls really cost is booked, whatever the limit
        self._caps: dict[int, int] = {}
        self._exposed: dict[Window, int] | None = None

    # --- what the world reports

    def on_record(self, host: object, record: object) -> None:
        """A hold or a settlement was appended."""
        if isinstance(record, Hold):
            number = int(record.tags["sim"])
            self.holds[number] = record
            self.calls[record.call_id] = (number, host)
        elif isinstance(record, Settle):
            self.settles[record.call_id] = record
        self._exposed = None

    def on_request(self, number: int) -> None:
        """The provider has got a request."""
        require(number in self.holds, f"I4: call {number} was forwarded before it was journaled")
        self._check_customer(number)
        self.forwarded.add(number)
        self._exposed = None

    def _check_customer(self, number: int) -> None:
        """Whoever names a customer is charged to its budget, or to the one that is shared."""
        world = self.world
        customer, scenario = world.calls[number].customer, world.scenario
        if not customer or scenario.outage == "allow" or "budgets_deleted" in scenario.faults:
            return
        (template,) = (each for each in scenario.budgets if each.each)
        identity = identity_of(declared_budget(template))
        own = {id_of(identity_of_customer(identity, name)) for name in (customer, SHARED)}
        charged = {window[0] for window, _ in self.holds[number].amounts}
        require(own & charged, f"call {number} of {customer} was forwarded without its budget")

    def on_power_loss(self, host: object, holds: set[bytes], settles: set[bytes]) -> None:
        """`holds` and `settles` are left in the journals of a host."""
        for call_id, (number, of) in self.calls.items():
            if call_id in self.books.rows or of is not host:
                continue
            if call_id not in holds or (call_id in self.settles and call_id not in settles):
                self.erased.add(number)

    # --- after every commit

    def after_commit(self) -> None:
        self.books = Books.read(self.world.database.select)
        self._exposed = None
        books = self.books
        granted: dict[int, int] = {}
        spent: dict[int, int] = {}
        for (window_id, epoch_id), (g, s) in books.leases.items():
            granted[window_id] = granted.get(window_id, 0) + g
            spent[window_id] = spent.get(window_id, 0) + s
            require(epoch_id == 0 or s <= g, f"I2: lease {window_id, epoch_id} spent {s} of {g}")
        charged: dict[int, int] = {}
        for row in books.rows.values():
            for window_id in row.windows:
                unit = books.windows[window_id].unit
                charged[window_id] = charged.get(window_id, 0) + row.amount(unit)
        for id_, w in books.windows.items():
            name = f"{w.unit} window {w.window}"
            leased = w.committed - w.overage
            cap = self._caps[id_] = max(w.limit, min(self._caps.get(id_, w.limit), leased))
            require(
                leased <= cap or self.corrected,
                f"I1a: {name}: {leased} committed above the limit {w.limit}",
            )
            total = granted.get(id_, 0)
            require(w.committed == total, f"I3: {name}: committed {w.committed}, leases {total}")
            rows, leases = charged.get(id_, 0), spent.get(id_, 0)
            require(rows == leases, f"I3: {name}: rows charge {rows}, leases spent {leases}")
            if self.explained:
                self._check_overage(w)
        for row in books.rows.values():
            self._check_row(row)

    def _check_overage(self, w: WindowRow) -> None:
        above = 0
        for row in self.books.rows.values():
            if w.id in row.windows and row.number:
                hold = self.holds[row.number]
                held = dict(hold.amounts).get(w.window, 0) if hold.backed else 0
                above += max(0, row.amount(w.unit) - held)
        require(
            w.overage <= above,
            f"I1c: {w.unit} window {w.window}: overage {w.overage}, costs above holds are {above}",
        )

    def _check_row(self, row: CostRow) -> None:
        number = row.number
        if not number:
            return
        hold, call = self.holds.get(number), self.world.calls[number]
        require(hold is not None, f"I4: call {number} has a row, and no hold")
        assert hold is not None
        windows = sorted(self.books.windows[id_].window for id_ in row.windows)
        held = sorted(window for window, _ in hold.amounts)
        require(windows == held, f"I3: call {number} held {held} and was charged to {windows}")
        bill = self.world.provider.bills.get(number)
        exact = call.completed and call.status == 200 and bill is not None and bill.final
        if exact and number not in self.erased:
            assert bill is not None
            require(row.nano == bill.nano, f"I4: completed call {number}: {row.nano}, {bill}")

    # --- after every step

    def after_step(self, process: Process) -> None:
        """After a step of this process."""
        self._check_memory(process)
        if self._exposed is None and self.explained and not self.corrected:
            self._exposed = self._find_exposed()
            for window, amount in self._exposed.items():
                row = self.books.by_window.get(window)
                committed = row.committed if row is not None else 0
                require(
                    amount <= committed,
                    f"I1b: window {window}: providers may bill {amount}, committed is {committed}",
                )

    def _find_exposed(self) -> dict[Window, int]:
        exposed: dict[Window, int] = {}
        for number in self.forwarded:
            hold = self.holds[number]
            if not hold.backed:
                continue
            settle = self.settles.get(hold.call_id)
            charges = dict(settle.charges) if settle is not None else None
            for window, amount in hold.amounts:
                if charges is not None:
                    amount = min(amount, charges.get(window, 0))
                exposed[window] = exposed.get(window, 0) + amount
        return exposed

    def _check_memory(self, process: Process) -> None:
        host = process.host
        if host is None or not process.alive:
            return
        if process is host.control_process:
            if host.control.parts is not None:
                self._check_pools(process, host.control.parts)
            return
        budgets = process.life.worker._budgets if process.life.worker is not None else None
        for s in budgets._slices.values() if budgets is not None else ():
            left = s.granted - s.returned - s.used - s.held
            if s.free < 0 or s.held < 0 or s.free != left:
                raise Violation(f"I2: {process}: {s.window}: free {s.free}, left {left}")

    def _check_pools(self, process: Process, parts: Parts) -> None:
        """What control takes for its own is its own in the ledger."""
        certain = not process.in_transaction and not parts.leases._in_doubt
        certain = certain and "foreign_drain" not in self.world.scenario.faults
        certain = certain and not any(j.pending for j in parts.writer._journals.values())
        for window, state in parts.leases._windows.items():
            # What is offered to the ledger is taken off twice where a drain tells of it first.
            if state.pool + state.returning < 0:
                raise Violation(f"I2: {process}: pool {state.pool} of {state}")
            row = self.books.by_window.get(window)
            if not certain or self.world.restored:
                continue
            granted, spent = (
                self.books.leases.get((row.id, parts.epoch_id), (0, 0)) if row else (0, 0)
            )
            mine = state.granted - state.spent - state.returning
            if mine > granted - spent:
                raise Violation(
                    f"I2: {process}: {window}: takes {mine} for its own, has {granted} - {spent}"
                )

    # --- db.verify, on the world's connection

    def verify(self) -> None:
        database, hosts = self.world.database, self.world.hosts

        def work(connection: Connection) -> None:
            near: Any = Near(connection)
            checks = [
                check_references(near),
                check_windows(near),
                check_leases(near),
                check_epochs(near),
                check_rows(near),
                check_rollups(near),
                check_costs(near, lambda done: None),
                check_corrections(near),
            ]
            if not self.world.restored:
                checks += [check_journals(near, host.disk.directory) for host in hosts]
            for check in checks:
                for finding in finish(collect(check)):
                    require(False, f"verify: {finding.invariant} {finding.subject}: {finding[2]}")

        database.read(work)

    # --- in the end

    def check_end(self, *, kept: set[int]) -> None:
        """No more faults, everybody idle: `kept` are the epochs whose leases are not freed."""
        books, world = self.books, self.world
        for (window_id, epoch_id), (granted, spent) in books.leases.items():
            window = books.windows[window_id].window
            require(
                granted == spent or epoch_id in kept,
                f"end: {granted - spent} of {window} never came back from epoch {epoch_id}",
            )
        by_number: dict[int, CostRow] = {}
        for row in books.rows.values():
            if row.number:
                require(row.number not in by_number, f"I4: call {row.number} has two rows")
                by_number[row.number] = row
        for number, hold in self.holds.items():
            require(
                number in by_number or number in self.erased,
                f"I4: call {number} ({hold.call_id.hex()[-6:]}) has no row",
            )
        for number, call in world.calls.items():
            require(
                not (call.completed and call.status == 200)
                or number in by_number
                or number in self.erased,
                f"I4: completed call {number} has no row",
            )
        if self.explained and world.config.on_ledger_outage == "block":
            for row in books.rows.values():
                bill = world.provider.bills.get(row.number)
                fits = bill is None or bill.nano <= row.hold_nano
                require(
                    not row.flags & FLAG_UNBACKED or not fits,
                    f"I1c: call {row.number} is flagged unbacked",
                )


class Near:
    """A connection as the checks of `db.verify` use it; nothing has to be waited for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect = connection.dialect

    async def execute(self, *arguments: Any) -> Any:
        return self._connection.execute(*arguments)

    async def exec_driver_sql(self, *arguments: Any) -> Any:
        return self._connection.exec_driver_sql(*arguments)

    async def run_sync(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(self._connection, *arguments)

    def stream(self, query: Any, **_: Any) -> "NearResult":
        return NearResult(self._connection.execute(query))


class NearResult:
    def __init__(self, result: Any) -> None:
        self._result = result

    async def __aenter__(self) -> "NearResult":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def partitions(self) -> Any:
        yield self._result.all()


async def collect(check: Any) -> list[Any]:
    return [finding async for finding in check]


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waits")
