"""Two controls on one PostgreSQL: a shared budget, one limit."""

import asyncio

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select

from db.models import Lease, Window
from proxy.config import Database
from tests.databases import Postgres, find_postgres
from tests.proxy.control.test_control import USD, Host, until

WAIT_S = 10


@pytest.fixture
def server():
    binaries = find_postgres()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (no initdb on PATH or in /usr/lib/postgresql)")
    server = Postgres(binaries)
    yield server
    server.stop()


@pytest.fixture
async def hosts(server, tmp_path):
    url = server.create("ledger")
    hosts = [Host(tmp_path / name) for name in "ab"]
    for host in hosts:
        host.config = replace(host.config, database=Database(url))
        await host.start()
    yield hosts
    for host in hosts:
        await host.control.stop()
    await hosts[0].check()


async def test_hosts_share_a_limit_to_its_end(hosts):
    """Each spends until it is refused; together they spend the limit and no more."""
    first = hosts[0]
    workers = [await host.worker() for host in hosts]
    amount = USD // 10
    for _ in range(5):
        for host, worker in zip(hosts, workers, strict=True):
            await host.granted(worker, amount)
            host.call(worker, amount, amount)
            worker.report()
    for host in hosts:
        await host.control.flush()
    assert await first.read(select(Window.committed, Window.overage)) == [(USD, 0)]
    assert await first.read(select(func.sum(Lease.spent))) == [(USD,)]
    call_id = workers[0].want([(first.window, 1)])
    await until(
        lambda: call_id in [c for m in workers[0].messages for c in getattr(m, "answered", [])]
    )
    assert workers[0].free(first.window) == 0


async def test_a_host_that_dies_keeps_its_lease_until_its_journals_are_read(hosts):
    first, second = hosts
    worker = await first.worker()
    await first.granted(worker, USD // 2)
    hold = first.hold(worker, USD // 2)
    await first.crash()
    other = await second.worker()
    call_id = other.want([(second.window, USD)], wait_ms=60_000)
    await until(lambda: call_id in [c for m in other.messages for c in getattr(m, "answered", [])])
    assert other.free(second.window) < USD
    worker.die()
    await first.start()
    async with asyncio.timeout(WAIT_S):
        await until(lambda: not first.control.parts.writer.journals)
    assert (await first.rows())[hold.call_id].ending == "lost"
    assert await first.read(select(Window.overage)) == [(0,)]
