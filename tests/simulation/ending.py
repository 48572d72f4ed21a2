"""After the faults: everybody recovers, all money comes back, and the books agree with the bill."""

import asyncio
from typing import TYPE_CHECKING

from tests.simulation.invariants import require

if TYPE_CHECKING:
    from tests.simulation.world import World

HEAL_S = 240.0


async def end(world: "World") -> None:
    world.event(None, "=== heal")
    world.chaos.stop()
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
    world.invariants.verify()


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
        if any(control.parts.writer.backlog_bytes() for _ in (0,)) and _undrained(world):
            return f"{host.name} has not drained everything"
        if len(control.workers) < host.config.server.workers:
            return f"{host.name} has too few workers"
        for life in host.live_workers:
            gateway = life.worker.gateway if life.worker is not None else None
            if gateway is not None and gateway.in_flight:
                return f"{life.process.name} has calls in flight"
    return ""


def _undrained(world: "World") -> bool:
    rows = world.invariants.books.rows
    return any(call_id not in rows for call_id in world.invariants.settles)


def _kept(world: "World") -> set[int]:
    """Epochs whose leases may stay: a journal of theirs lacks something, or is gone."""

    if not world.scenario.faults & {"power_loss", "disk_full"}:
        return set()
    query = "SELECT DISTINCT epoch_id FROM ai_journal_offsets WHERE truncated OR NOT finished"
    return {row[0] for row in world.database.select(query)}
