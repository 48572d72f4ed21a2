"""A running Tollkeeper between the official SDKs and a scripted provider."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Running, a_config
from tests.processes import wait_for
from tests.replay import ReplayServer
from tests.sdk.replies import play_every_api
from tests.sdk.sdks import SDKS, Sdk

KEYS = {  # by name
    "rich": "tk-rich-key",
    "spent": "tk-spent-key",  # its budget is zero
    "spent-402": "tk-spent-402-key",  # the same, refused with 402
    "narrow": "tk-narrow-key",  # room for one call at a time
}


HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):  # deprecations inside the SDKs are not ours to fix
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))


class Harness:
    """What a test needs of the running proxy."""

    def __init__(self, running: Running, provider: ReplayServer) -> None:
        self.provider = provider
        self.url = running.url
        self.received: list[str] = []  # "METHOD /path" of every request of this test
        self._running = running
        self._rows_before = len(running.rows())
        gateway = running.app.gateway
        assert gateway is not None
        self._gateway: Any = gateway
        self._serve = gateway.serve

    def rows(self) -> list[dict[str, Any]]:
        """The cost rows of this test, oldest first. An SDK that gives up is ahead of the proxy."""
        wait_for("settlements", lambda: not self._gateway.in_flight)
        rows = sorted(self._running.rows(), key=lambda row: str(row["request_id"]))
        return rows[self._rows_before :]

    def listen(self) -> None:
        """Count requests where they enter."""

        async def serve(client: Any) -> None:
            self.received.append(f"{client.method} {client.raw_path.decode()}")
            await self._serve(client)

        self._gateway.serve = serve

    def unlisten(self) -> None:
        del self._gateway.serve


def configuration(directory: Path, provider: ReplayServer, **server: Any) -> Any:
    digests = {name: sha256(key.encode()).hexdigest() for name, key in KEYS.items()}
    keys: list[dict[str, Any]] = [
        {"name": name, "key_sha256": digest} for name, digest in digests.items()
    ]
    next(key for key in keys if key["name"] == "spent-402")["refusal_status"] = 402
    return a_config(
        directory,
        provider.url,
        organizations={"acme": {"teams": {"search": {"keys": keys}}}},
        server=server,
        providers={
            name: {"dialect": name, "base_url": provider.url, "api_key": f"sk-upstream-{name}"}
            for name in ("azure", "cohere", "groq", "mistral")
        },
        budgets=[
            {"scope": "key/spent", "limit_usd": 0, "period": "day"},
            {"scope": "key/spent-402", "limit_usd": 0, "period": "day"},
            {
                "scope": "key/narrow",
                "limit_requests": 1,
                "period": "total",
                "hold_wait_ms": 0,
            },
        ],
    )


@pytest.fixture(scope="session")
def provider() -> Iterator[ReplayServer]:
    with ReplayServer() as server:
        yield server


@pytest.fixture(scope="session")
def running(provider: ReplayServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(configuration(tmp_path_factory.mktemp("proxy"), provider)) as started:
        yield started


@pytest.fixture(scope="session")
def impatient_running(
    provider: ReplayServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("impatient")
    config = configuration(directory, provider, first_byte_timeout_s=0.2, idle_timeout_s=0.2)
    with Running(config) as started:
        yield started


def _harness(running: Running, provider: ReplayServer) -> Iterator[Harness]:
    provider.reset()
    play_every_api(provider)
    harness = Harness(running, provider)
    harness.listen()
    yield harness
    harness.unlisten()


@pytest.fixture
def tollkeeper(running: Running, provider: ReplayServer) -> Iterator[Harness]:
    """The proxy, and a provider that answers every API."""
    yield from _harness(running, provider)


@pytest.fixture
def impatient(impatient_running: Running, provider: ReplayServer) -> Iterator[Harness]:
    """The same with timeouts of a fifth of a second."""
    yield from _harness(impatient_running, provider)


@pytest.fixture(params=SDKS, ids=lambda sdk: sdk.name)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    chosen: Sdk = request.param
    return chosen


@pytest.fixture
def override(provider: ReplayServer) -> Callable[..., None]:
    """`provider.on`, before the rules of every API."""
    return lambda match, reply: provider.on(match, reply, first=True)
