"""Several workers and several hosts on one budget: never above its limit, spent to its last call;
keys that are revoked are revoked everywhere. `scripts/soak` does the same many times over."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.crashes import deaths, outages
from tests.databases import Postgres, find_postgres
from tests.fleet import FIRST, Fleet, key_of, races
from tests.load import Provider, nano, number_of, post, served
from tests.processes import Serving, is_alive, wait_for

RACES = 1
SIZES = [(1, 1), (1, 2), (1, 4), (2, 2)]  # hosts, workers on each
REVOKED_S = 1.0
OUTAGE_S = 3.0
DEATHS = 5


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    binaries = find_postgres()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (no initdb on PATH or in /usr/lib/postgresql)")
    server = Postgres(binaries)
    yield server
    server.stop()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(seed=5) as provider:
        yield provider


def url_for(hosts: int, request: pytest.FixtureRequest) -> str:
    """SQLite has one host."""
    if hosts == 1:
        return ""
    server: Postgres = request.getfixturevalue("postgres")
    return server.create(request.node.name.replace("[", "_").replace("]", "").replace("-", "_"))


def check_books(fleet: Fleet, provider: Provider) -> None:
    """After an end in order: a row for every call that was billed, and no money kept."""
    host = fleet.hosts[0]
    rows = host.rows()
    assert sorted(map(number_of, rows)) == sorted(provider.billed)
    assert host.output("verify") == ""
    states = host.query("SELECT DISTINCT state FROM ai_control_epochs WHERE id > 0")
    assert states == [("closed",)]
    assert host.query("SELECT count(*) FROM ai_budget_leases WHERE granted > spent") == [(0,)]
    assert host.query("SELECT count(*) FROM ai_budget_leases WHERE ticket > 0") == [(0,)]


@pytest.mark.slow
@pytest.mark.parametrize(("hosts", "workers"), SIZES)
def test_a_budget_is_spent_to_its_last_call_and_never_above(
    hosts: int,
    workers: int,
    tmp_path: Path,
    provider: Provider,
    request: pytest.FixtureRequest,
) -> None:
    url = url_for(hosts, request)
    fleet = Fleet(tmp_path, provider.url, hosts=hosts, workers=workers, url=url, **races(RACES))
    with fleet:
        for index in range(RACES):
            race = fleet.spend_out(provider, key_of(index), FIRST + 1000 * index)
            assert race.billed_nano <= race.limit_nano
            assert race.used >= 0.85, race
            assert set(race.at_once) <= {"ok", "budget_busy"}, race
            assert race.after["budget_exceeded"] >= hosts, race
        fleet.stop()
        check_books(fleet, provider)


def counted(fleet: Fleet, name: str) -> float:
    """A counter of all workers of the first host."""
    text = httpx.get(f"{fleet.hosts[0].admin_url}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith(name)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.slow
def test_a_dead_worker_s_money_comes_back_and_counters_never_fall(
    tmp_path: Path, provider: Provider
) -> None:
    """One of two workers dies with a call in flight: the other one can spend what it had."""
    with Fleet(tmp_path, provider.url, workers=2, **races(1)) as fleet:
        (host,) = fleet.hosts
        for number in range(FIRST, FIRST + 16):
            served(host, number, key_of(0))
        wait_for("counts", lambda: counted(fleet, "tollkeeper_requests_total") == 16)
        dead, other = host.workers
        host.kill(dead)
        race = fleet.spend_out(provider, key_of(0), FIRST + 100)
        assert race.after["budget_exceeded"] >= 1
        assert is_alive(other)
        spent = sum(nano(usage) for usages in provider.billed.values() for usage in usages)
        assert 0.85 * race.limit_nano <= spent <= race.limit_nano
        assert counted(fleet, "tollkeeper_requests_total") >= 16
        wait_for("two workers", lambda: len(host.workers) == 2)
        fleet.stop()
        assert host.output("verify") == ""


def a_key(host: Serving, name: str) -> str:
    return host.output("keys", "create", "--name", name, "--team", "acme/search").strip()


def wait_status(host: Serving, key: str, status: int, timeout_s: float = 5.0) -> None:
    wait_for(f"{status}", lambda: post(host, 1, key).status_code == status, timeout_s)


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1, 2])
def test_a_revoked_key_stops_within_a_second_on_every_worker(
    hosts: int, tmp_path: Path, provider: Provider, request: pytest.FixtureRequest
) -> None:
    url = url_for(hosts, request)
    with Fleet(tmp_path, provider.url, hosts=hosts, workers=2, url=url) as fleet:
        first = fleet.hosts[0]
        secret = a_key(first, "ci")
        for host in fleet.hosts:
            wait_status(host, secret, 200)
        first.output("keys", "revoke", "ci")
        time.sleep(REVOKED_S)
        for number in range(2, 10):
            for host in fleet.hosts:
                assert post(host, number, secret).status_code == 401
                served(host, number)


@pytest.mark.slow
def test_a_revocation_is_pushed_not_polled(
    tmp_path: Path, provider: Provider, postgres: Postgres
) -> None:
    """With polling out of the way, PostgreSQL's notification alone is quick enough; a listener
    that loses its connection makes another."""
    seldom = {f"proxy.control.control.{name}_S": 3600.0 for name in ("REVISION", "TICKETS")}
    url = postgres.create("pushed")
    with Fleet(tmp_path, provider.url, hosts=2, url=url, constants=seldom) as fleet:
        first, second = fleet.hosts
        for name in ("before", "after"):
            secret = a_key(first, name)
            wait_status(second, secret, 200)
            first.output("keys", "revoke", name)
            wait_status(second, secret, 401, timeout_s=2)
            ended = second.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            )
            assert len(ended) == 2


@pytest.mark.slow
def test_postgresql_is_stopped_and_killed_under_load(
    tmp_path: Path, provider: Provider, postgres: Postgres
) -> None:
    """Calls go on from what is leased; then they are refused as configured, and nothing else."""
    url = postgres.create("outages")
    with Fleet(tmp_path, provider.url, workers=2, url=url) as fleet:
        outage = outages(fleet, provider, postgres, down_s=OUTAGE_S)
    assert set(outage.refused) <= {"503"}, outage
    assert outage.during > 0
    assert outage.grown_mb < 20
    assert set(outage.endings) == {"complete"}


@pytest.mark.slow
def test_random_deaths_of_two_workers_and_their_control(tmp_path: Path, provider: Provider) -> None:
    with Serving(tmp_path, provider.url, server={"workers": 2}) as serving:
        found = deaths(serving, provider, count=DEATHS, seed=4)
    assert found.kinds.total() == DEATHS
