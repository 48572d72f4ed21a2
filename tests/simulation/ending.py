"""After the faults: everybody recovers, what is left can be spent, all money comes back, and the
books agree with the provider's bill."""

import asyncio
import json
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from db.ledger import Ledger
from db.ledger_types import Correction
from db.models import ModelCost
from pricing.calculator import cost
from pricing.price import Price
from pricing.usage import Usage
from proxy.windows import current_window
from tests.simulation.clients import SimCall
from tests.simulation.database import SimTransactions
from tests.simulation.invariants import Violation, require

if TYPE_CHECKING:
    from tests.simulation.world import World

HEAL_S = 240.0
PROBES_MAX = 12
PATIENT_MS = 2_000  # budgets that wait this long must not say "busy" to everybody


async def end(world: "World") -> None:
    world.event(None, "=== heal")
    world.chaos.stop()
    await _until_idle(world)
    kept = _kept(world)
    if not kept:
        await _spend_the_rest(world)
        await _until_idle(world)
    world.event(None, "=== stop")
    for host in world.hosts:
        process = host.control_process
        assert process is not None
        await asyncio.wait([process.context.run(world.loop.create_task, host.stop())])
    for _ in range(200):
        if not any(life.process.alive for host in world.hosts for life in host.workers):
            break
        await asyncio.sleep(0.5)
    world.invariants.after_commit()
    world.invariants.check_end(kept=_kept(world))
    await _correct(world)
    world.invariants.verify()
    _compare_with_bill(world)


# --- recovery --------------------------------------------------------------------------------


async def _until_idle(world: "World") -> None:
    """All controls up, all journals of the dead read to their ends, former epochs closed."""
    deadline = world.loop.time() + HEAL_S
    calm = 0
    while calm < 2:
        await asyncio.sleep(1.0)
        calm = calm + 1 if not (why := _busy(world)) else 0
        require(world.loop.time() < deadline, f"end: after {HEAL_S:.0f} s still {why}")


def _busy(world: "World") -> str:
    for host in world.hosts:
        control = host.control
        if not host.control_alive or control is None or control.parts is None:
            return f"{host.name} has no control"
        if control.outage:
            return f"{host.name} takes the ledger for absent"
        if control.parts.recovery.pending:
            return f"{host.name} waits for the lock of a journal"
        if len(control.workers) < host.config.server.workers:
            return f"{host.name} has too few workers"
        for life in host.live_workers:
            gateway = life.worker.gateway if life.worker is not None else None
            if gateway is not None and gateway.in_flight:
                return f"{life.process.name} has calls in flight"
    rows, invariants = world.invariants.books.rows, world.invariants
    for call_id, settle in invariants.settles.items():
        if call_id not in rows and invariants.calls[call_id][0] not in invariants.erased:
            return f"a settlement is not drained: {settle.call_id.hex()[-6:]}"
    return ""


def _kept(world: "World") -> set[int]:
    """Epochs whose leases may stay: a journal of theirs lacks something, or is gone."""
    if not world.scenario.faults & {"power_loss", "disk_full"}:
        return set()
    query = "SELECT DISTINCT epoch_id FROM ai_journal_offsets WHERE truncated OR NOT finished"
    return {row[0] for row in world.database.select(query)}


# --- what is left can be spent ---------------------------------------------------------------


async def _spend_the_rest(world: "World") -> None:
    """Near the end of a budget somebody gets the money; at its end everybody is told so."""
    world.event(None, "=== spend the rest")
    places = [host for host in world.hosts for _ in range(host.config.server.workers)]
    for _ in range(PROBES_MAX):
        if len(places) > 1:
            await _compete(world, places)
        call = await _probe(world, world.random.choice(world.hosts))
        if call.code == "budget_exceeded":
            await asyncio.sleep(1.5)  # until what was used is drained
            _check_spent(world, call)
            return
        require(call.status == 200 or not _patient(world), f"end: {call} is refused, all are idle")


async def _compete(world: "World", places: list[Any]) -> None:
    """Of calls that come at once, one at least is served, or none can be."""
    calls = [_probe(world, host) for host in places]
    done = await asyncio.gather(*calls)
    starved = all(call.code == "budget_busy" for call in done)
    require(not starved or not _patient(world), f"end: {len(done)} calls starve each other")


async def _probe(world: "World", host: Any) -> SimCall:
    call = world.new_call()
    call.stream, call.max_tokens, call.customer = False, 100, ""
    connection = await world.make(call, host=host)
    if connection is not None:
        connection.transport.close()
    return call


def _patient(world: "World") -> bool:
    return all(budget.hold_wait_ms >= PATIENT_MS for budget in world.config.budgets)


def _check_spent(world: "World", call: SimCall) -> None:
    """Who is told that a budget is spent could not have been paid from it."""
    details = json.loads(call.body)["error"]
    details = details.get("details") or details.get("tollkeeper") or details
    try:
        unit, needed = details["unit"], details["needed"]
        scope, period = details["scope"], details["period"]
    except KeyError as exc:
        raise Violation(f"end: a refusal without figures: {call.body!r}") from exc
    needed = round(float(needed) * 10**9) if unit == "usd" else int(needed)
    # Of the window that was meant: the next may have begun since.
    resets_at = details.get("resets_at")
    now_s = world.hosts[0].now_s()
    if resets_at is not None:
        now_s = datetime.fromisoformat(resets_at).timestamp() - 1
    rooms = []
    for entry in world.hosts[0].control.snapshot.budgets:  # type: ignore[union-attr]
        if (entry.unit, entry.scope, entry.period) == (unit, scope, period):
            starts_at, _ = current_window(
                period, entry.timezone, entry.week_start, entry.month_day, now_s
            )
            rooms.append(_room(world, (entry.id, starts_at), entry.limit))
    require(
        any(room < needed for room in rooms) or not rooms,
        f"end: {unit} of {scope}: {needed} is refused for good, and {rooms} is left",
    )


def _room(world: "World", window: tuple[int, int], limit: int) -> int:
    books = world.invariants.books
    row = books.by_window.get(window)
    if row is None:
        return limit
    return limit - sum(spent for (id_, _), (_, spent) in books.leases.items() if id_ == row.id)


# --- the bill --------------------------------------------------------------------------------


async def _correct(world: "World") -> None:
    """Book what lost and estimated calls have really cost."""
    world.invariants.corrected = True
    ledger = Ledger(
        SimTransactions(world.database, "sqlite"),
        host_id="operator",
        describe_price=lambda version, model: None,
        dead_letter=lambda hold, settle, reason: world.fail(f"a correction is refused: {reason}"),
        now_ms=lambda: world.kernel.wall_ns() // 10**6,
    )
    for row in list(world.invariants.books.rows.values()):
        bill = world.provider.bills.get(row.number)
        hold = world.invariants.holds[row.number]
        tokens = (bill.input_tokens, bill.output_tokens) if bill is not None else (0, 0)
        usage = Usage(input_tokens=tokens[0], output_tokens=tokens[1])
        true = cost(usage, _price(world), None, at_s=hold.at_ms / 1000)
        if row.nano != true.nano:
            number = uuid.uuid4().int >> 48
            await ledger.adjust(
                Correction(
                    call_id=row.call_id[:6] + number.to_bytes(10, "big"),
                    adjusts=row.call_id,
                    at_ms=hold.at_ms,
                    usage=usage.as_dict(),
                    usage_source="reported",
                    price_version=hold.price_version,
                    model=hold.priced_model,
                    cost_nano=true.nano,
                    cost_items=true.items,
                )
            )


def _price(world: "World") -> Price:
    query = f"SELECT model, entry FROM {ModelCost.__tablename__}"
    ((key, entry),) = world.database.select(query)
    provider, _, model = key.partition("/")
    return Price.compile(provider, model, json.loads(entry))


def _compare_with_bill(world: "World") -> None:
    world.invariants.after_commit()
    rows = sum(row.nano for row in world.invariants.books.rows.values())
    erased = world.invariants.erased
    known = {row.number for row in world.invariants.books.rows.values()}
    bills = [b for b in world.provider.bills.values() if b.call not in erased or b.call in known]
    billed = sum(bill.nano for bill in bills)
    require(rows == billed, f"end: rows sum up to {rows}, the provider has billed {billed}")
