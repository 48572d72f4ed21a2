"""Faults, one after the other, while clients make calls."""

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from db.catalog import bump_revision, set_limit
from db.models import ApiKey, Budget
from tests.simulation.host import Host

if TYPE_CHECKING:
    from tests.simulation.world import World

PAUSE_S = (0.05, 0.5, 3.0)
JUMPS_S = (-7_300.0, -60.0, 60.0, 3_700.0, 90_000.0)


class Chaos:
    """`run` until the clients are done. Each kind of fault has a method of its name, or is a
    probability that is in force all the time."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.random = world.random
        faults = world.scenario.faults
        self.sudden = sorted(f for f in faults if hasattr(self, f))
        self.over = False
        self._first_limits: dict[int, int] = {}

    async def run(self, clients: list["asyncio.Task[None]"]) -> None:
        self._start()
        over = asyncio.ensure_future(asyncio.wait(clients))
        while not over.done():
            await asyncio.wait([over], timeout=self.random.expovariate(1.5))
            if self.sudden and not over.done():
                kind = self.random.choice(self.sudden)
                self.world.event(None, f"--- {kind}")
                getattr(self, kind)(self.random.choice(self.world.hosts))
        for client in clients:
            client.result()

    def _start(self) -> None:
        world, faults = self.world, self.world.scenario.faults
        rates: dict[str, float] = {}
        if "database_errors" in faults:
            rates |= {"refused": 0.03, "rolled back": 0.03, "answer lost": 0.05}
        if "in_doubt" in faults:
            rates["in doubt"] = 0.06
        if "kill_in_commit" in faults:
            rates |= {"killed before commit": 0.01, "killed after commit": 0.02}
        world.database.faults = rates
        world.provider.failing = 0.2 if "provider_errors" in faults else 0.0
        world.provider.violating = 0.1 if "above_ceiling" in faults else 0.0
        for host in world.hosts:
            host.repeating = 0.1 if "messages_repeated" in faults else 0.0
            host.losing = 0.03 if "messages_lost" in faults else 0.0

    def stop(self) -> None:
        """No more faults: everybody gets their turn."""
        self.over = True
        world = self.world
        database = world.database
        database.faults, database.absent, database.slow = {}, False, False
        database.land_all()
        database.execute(_all_keys_valid)
        world.provider.failing = world.provider.violating = 0.0
        for process in world.loop.processes:
            process.paused = False
            process.dies_in_steps = process.dies_in_write = 0
        for host in world.hosts:
            host.repeating = host.losing = 0.0
            host.disk.full, host.power_cut_in_steps = False, 0
            host.clock_shift_s = 0.0
            for life in host.live_workers:
                if any(channel.lossy for channel in life.channels):
                    life.process.die()

    # --- deaths

    def kill_worker(self, host: Host) -> None:
        lives = host.live_workers
        if lives:
            self.random.choice(lives).process.dies_in_steps = self.random.randint(1, 40)

    def kill_in_write(self, host: Host) -> None:
        lives = host.live_workers
        if lives:
            self.random.choice(lives).process.dies_in_write = self.random.randint(1, 3)

    def kill_control(self, host: Host) -> None:
        if host.control_process is not None:
            host.control_process.dies_in_steps = self.random.randint(1, 40)

    def kill_host(self, host: Host) -> None:
        """All its processes; the disk is as they left it."""
        for life in host.live_workers:
            life.process.die()
        if host.control_process is not None:
            host.control_process.die()

    def power_loss(self, host: Host) -> None:
        """Now, or soon after the next commit, or after the next that gives money back."""
        after = self.random.choice(("", "commit", "return"))
        if not after:
            self.world.power_loss(host)
        else:
            host.power_cut_in_steps = self.random.randint(1, 12)
            host.power_cut_after = after

    def foreign_drain(self, host: Host) -> None:
        """Somebody copies journals to another host, which drains them as well (R5)."""
        world = self.world
        if len(world.hosts) < 2 or host.control_process is None:
            return
        (other,) = (each for each in world.hosts if each is not host)
        for path in sorted(other.disk.directory.glob("*.seg")):
            if path.stem.split(".")[0] in other.own_journals:
                shutil.copy(path, host.disk.directory)
        host.control_process.die()

    def restore(self, _: Host) -> None:
        """The database is backed up; some time later it comes to that, with all hosts stopped."""
        world, loop = self.world, self.world.loop
        if world.database.backups or world.restored:
            return
        world.database.back_up()

        def go_back() -> None:
            if self.over:
                return
            world.event(None, "--- the database is restored from its backup")
            world.restored, world.invariants.explained = True, False
            for host in world.hosts:
                self.kill_host(host)
            world.database.restore()

        loop.call_later(2.0, go_back, context=loop.world.context)

    def drain(self, host: Host) -> None:
        """`systemctl restart`: control ends in good order."""
        if host.control_alive and host.control is not None:
            host.control.fatal.set()

    # --- time

    def pause(self, host: Host) -> None:
        processes = [life.process for life in host.live_workers]
        if host.control_process is not None and host.control_process.alive:
            processes.append(host.control_process)
        if processes:
            process = self.random.choice(processes)
            self._pause([process], self.random.choice(PAUSE_S))

    def long_pause(self, host: Host) -> None:
        """The whole host sleeps, and is taken for lost."""
        processes = [life.process for life in host.live_workers]
        if host.control_process is not None:
            processes.append(host.control_process)
        self._pause(processes, 75.0)

    def _pause(self, processes: list[Any], seconds: float) -> None:
        for process in processes:
            process.paused = True

        def go_on() -> None:
            for process in processes:
                process.paused = False

        self.world.loop.call_later(seconds, go_on, context=self.world.loop.world.context)

    def clock_jump(self, host: Host) -> None:
        host.clock_shift_s = 0.0 if host.clock_shift_s else self.random.choice(JUMPS_S)

    # --- database

    def database_absent(self, _: Host) -> None:
        self._for_a_while("absent")

    def database_slow(self, _: Host) -> None:
        self._for_a_while("slow")

    def _for_a_while(self, what: str) -> None:
        database, loop = self.world.database, self.world.loop
        setattr(database, what, True)
        seconds = self.random.choice((0.3, 2.0, 6.0))
        loop.call_later(seconds, setattr, database, what, False, context=loop.world.context)

    # --- disk and messages

    def disk_full(self, host: Host) -> None:
        host.disk.full = not host.disk.full

    def channel_cut(self, host: Host) -> None:
        lives = host.live_workers
        if lives:
            for channel in self.random.choice(lives).channels:
                channel.close()

    # --- what people do

    def limits(self, host: Host) -> None:
        factor = self.random.choice((0, 3, 5, 8, 12, 20))

        def change(connection: Any) -> None:
            rows = connection.execute(select(Budget.id, Budget.limit_value)).all()
            if not rows:
                return
            budget_id, limit = self.random.choice(rows)
            first = self._first_limits.setdefault(budget_id, limit)
            set_limit(connection, budget_id, first * factor // 10)
            bump_revision(connection)
            self.world.event(None, f"limit of budget {budget_id}: {first * factor // 10}")

        self.world.database.execute(change)

    def budgets_deleted(self, host: Host) -> None:
        """Or made again."""

        def change(connection: Any) -> None:
            rows = connection.execute(select(Budget.id, Budget.tombstoned_at_ms)).all()
            if not rows:
                return
            budget_id, gone = self.random.choice(rows)
            statement = update(Budget).where(Budget.id == budget_id)
            connection.execute(statement.values(tombstoned_at_ms=None if gone else 1))
            bump_revision(connection)
            self.world.event(None, f"budget {budget_id}: {'made again' if gone else 'deleted'}")

        self.world.database.execute(change)

    def keys(self, host: Host) -> None:
        """Revoked, or valid again."""

        def change(connection: Any) -> None:
            for id_, gone in connection.execute(select(ApiKey.id, ApiKey.revoked_at_ms)).all():
                statement = update(ApiKey).where(ApiKey.id == id_)
                connection.execute(statement.values(revoked_at_ms=None if gone else 1))
            bump_revision(connection)

        self.world.database.execute(change)


def _all_keys_valid(connection: Any) -> None:
    connection.execute(update(ApiKey).values(revoked_at_ms=None))
    bump_revision(connection)
