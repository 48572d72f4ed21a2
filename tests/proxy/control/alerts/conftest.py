"""A control that only has what alerts look at, a clock that stands still, a migrated ledger."""

import shutil
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from db import schema
from db.engine import open_engine, reader
from proxy.config import Alerts, Config, Database, Journal
from proxy.control.alerts.alerting import Alerting
from proxy.control.clock import Clock
from proxy.control.counts import Counts
from tests.proxy.control.alerts.books import NOW_MS


class FakeControl:
    def __init__(self, config):
        self.config = config
        self.now_ms = NOW_MS
        self.clock = Clock(lambda: self.now_ms, lambda: self.now_ms / 1000)
        self.counts = Counts()
        self.snapshot = None  # what it says is not known
        self.outage = False
        self.dead_letters = 0
        self.ledger_nice = 0
        self.parts = SimpleNamespace(leases=SimpleNamespace(outage=False))

    def notable(self, kind, **counts):
        """What workers counted, by `provider/model`."""
        self.counts._dead.notable[kind] = counts

    def alerts(self, **changes):
        self.config = replace(self.config, alerts=Alerts(**changes))

    def later(self, seconds):
        self.now_ms += round(seconds * 1000)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return tmp_path_factory.mktemp("alerts") / "ledger.db"


@pytest.fixture
async def url(template, tmp_path):
    if not template.exists():
        made = open_engine(f"sqlite+aiosqlite:///{template}")
        await schema.upgrade(made)
        await made.dispose()
    shutil.copy(template, tmp_path / "ledger.db")
    return f"sqlite+aiosqlite:///{tmp_path}/ledger.db"


@pytest.fixture
async def engine(url):
    engine = open_engine(url)
    yield engine
    await engine.dispose()


@pytest.fixture
def write(engine):
    async def write(function, *arguments, **options):
        async with engine.begin() as connection:
            return await connection.run_sync(lambda sync: function(sync, *arguments, **options))

    return write


@pytest.fixture
def ask(engine):
    """What a function of an asynchronous connection answers."""

    async def ask(function, *arguments, **options):
        async with reader(engine).connect() as connection:
            return await function(connection, *arguments, **options)

    return ask


@pytest.fixture
def control(url, tmp_path):
    directory = tmp_path / "journal"
    directory.mkdir()
    return FakeControl(Config(database=Database(url), journal=Journal(dir=str(directory))))


class Naps(list):
    """In place of sleeping: how long it would have been."""

    async def __call__(self, seconds):
        self.append(seconds)


@pytest.fixture
def naps():
    return Naps()


@pytest.fixture
async def alerting(control, naps):
    alerting = Alerting(control, naps)
    yield alerting
    await alerting.close()
