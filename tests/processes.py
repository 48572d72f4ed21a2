"""Tollkeeper as a user runs it: `tollkeeper --config FILE serve` in processes of its own.

    with Serving(tmp_path, provider.url) as serving:    # started, ready; stopped by SIGTERM
        ...call serving.url...
    assert serving.exit_code == 0

Every wait has a limit, and what is left at the end is killed.
"""

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.databases import query
from tests.forks import Tollkeeper, run
from tests.source_code import ROOT

T = TypeVar("T")
KEY = "tk-processes-test-key"
READY_S = 30.0
STOP_S = 30.0
COMMAND_S = 60.0
STEP_S = 0.01


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as probes:
        ports = []
        for _ in range(count):
            probe = probes.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def wait_for(what: str, probe: Callable[[], T], timeout_s: float = 10.0) -> T:
    """The first true value of `probe`; fails, naming `what`, when none comes in time."""
    deadline = time.monotonic() + timeout_s
    while not (value := probe()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(STEP_S)
    return value


def a_config(directory: Path, provider_url: str, **changes: Any) -> dict[str, Any]:
    """One organization, team and key with an ample budget on each; `changes` by section."""
    port, admin_port = free_ports(2)
    config: dict[str, Any] = {
        "server": {"port": port, "drain_s": 10},
        "admin": {"port": admin_port},
        "database": {"url": f"sqlite+aiosqlite:///{directory / 'ledger.db'}"},
        "journal": {"dir": str(directory / "journal"), "flush_interval_ms": 50},
        "providers": {
            name: {"base_url": provider_url, "api_key": "sk-upstream"}
            for name in ("openai", "anthropic", "gemini")
        },
        "organizations": {
            "acme": {"teams": {"search": {"keys": [{"name": "search-prod", "key": KEY}]}}}
        },
        "budgets": [
            {"scope": "organization/acme", "limit_usd": 1000, "period": "month"},
            {"scope": "team/acme/search", "limit_usd": 1000, "period": "total"},
        ],
        "log": {"calls": False},
    }
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(config.get(name), dict)
        config[name] = config[name] | value if both else value
    return config


def children(pid: int) -> list[int]:
    """Process ids of the living children."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def is_alive(pid: int) -> bool:
    """A zombie is dead."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


class Serving:
    """One data directory, and the `serve` that runs on it, if any."""

    def __init__(
        self,
        directory: Path,
        provider_url: str,
        *,
        constants: Mapping[str, object] | None = None,
        **changes: Any,
    ) -> None:
        """`constants`: values for constants of control's modules, {"proxy.serve.SILENT_S": 1};
        `changes`: of the configuration."""
        self.directory = directory
        self.config = a_config(directory, provider_url, **changes)
        self.config_path = directory / "tollkeeper.yaml"
        self.write_config(json.dumps(self.config))  # JSON is YAML
        self.exit_code: int | None = None
        self._constants = constants
        self._process: subprocess.Popen[bytes] | Tollkeeper | None = None
        self._group = 0
        self._log = directory / "serve.log"
        self._log_start = 0

    def write_config(self, text: str) -> None:
        self.config_path.write_text(text)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.config['server']['port']}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.config['admin']['port']}"

    # --- life

    def spawn(self, wrapper: Sequence[str] = ()) -> subprocess.Popen[bytes] | Tollkeeper:
        """Start `serve`, in a process group of its own; returns at once. `wrapper`: a command that
        starts it."""
        assert self._process is None, "still running"
        self.exit_code = None
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        arguments, log = self._arguments("serve"), self._log
        if wrapper:
            self._process = self._spawn_wrapped(wrapper, arguments)
        else:
            self._process = Tollkeeper(arguments, self.directory, log, log, self._constants)
        self._group = self._process.pid
        return self._process

    def _spawn_wrapped(
        self, wrapper: Sequence[str], arguments: Sequence[str]
    ) -> subprocess.Popen[bytes]:
        assert not self._constants, "not for a program that is executed"
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*wrapper, sys.executable, "-m", "proxy", *arguments],
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> Self:
        """Start `serve`; it is ready when this returns."""
        process = self.spawn()

        def ready() -> bool:
            assert process.poll() is None, f"it ended:\n{self.log}"
            return self.status("/readyz") == 200

        wait_for("ready", ready, READY_S)
        return self

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Wait for control's end; its exit code."""
        assert self._process is not None
        self.exit_code = self._process.wait(timeout_s)
        self._process = None
        return self.exit_code

    def stop(self, timeout_s: float = STOP_S) -> int:
        """SIGTERM, which drains."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def signal(self, number: int) -> None:
        """To control."""
        os.kill(self.pid, number)

    def kill_all(self) -> None:
        """kill -9, to every process at once."""
        assert self._process is not None
        os.killpg(self._group, signal.SIGKILL)
        self.wait()

    def kill_control(self) -> None:
        """kill -9 of control alone: its workers end by themselves."""
        self.signal(signal.SIGKILL)
        self.wait()

    def kill(self, worker: int) -> None:
        """kill -9 of one of several."""
        os.kill(worker, signal.SIGKILL)

    def kill_worker(self) -> None:
        """kill -9 of the one worker; control starts another."""
        os.kill(self.worker(), signal.SIGKILL)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._process is not None and kind is None:
                self.stop()
        finally:
            self.close()

    def close(self) -> None:
        """Kill whatever is left of the group."""
        if self._group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)
        if self._process is not None:
            self.wait()

    # --- what it does

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of control."""
        assert self._process is not None
        return self._process.pid

    @property
    def workers(self) -> list[int]:
        return children(self.pid)

    def worker(self) -> int:
        """The pid of the one worker."""
        return wait_for("a worker", lambda: self.workers)[0]

    @property
    def log(self) -> str:
        """What was said on stdout and stderr since the last start."""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """The log's JSON lines."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def seen(self, pattern: str) -> list[dict[str, Any]]:
        """The log lines whose event matches."""
        return [event for event in self.events() if re.search(pattern, event["event"])]

    def wait_event(self, pattern: str, timeout_s: float = 10.0) -> dict[str, Any]:
        """The first such line, once it is there."""
        return wait_for(f"log line {pattern!r}", lambda: self.seen(pattern), timeout_s)[0]

    def status(self, path: str) -> int:
        """HTTP status of a GET on the data port; 0: no answer."""
        connection = HTTPConnection("127.0.0.1", self.config["server"]["port"], timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, HTTPException):
            connection.request("GET", path)
            return connection.getresponse().status
        return 0

    @property
    def refuses(self) -> bool:
        """Whether nobody listens on the data port."""
        with socket.socket() as client:
            client.settimeout(5)
            return client.connect_ex(("127.0.0.1", self.config["server"]["port"])) != 0

    # --- its commands

    def _arguments(self, *arguments: str) -> list[str]:
        return ["--config", str(self.config_path), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command beside the running proxy."""
        return run(self._arguments(*arguments), self.directory, COMMAND_S)

    def output(self, *arguments: str) -> str:
        """stdout of a command that succeeds."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def rows(self) -> list[dict[str, Any]]:
        """All cost rows, as `report --by call` prints them."""
        rows: list[dict[str, Any]] = json.loads(
            self.output("report", "--by", "call", "--format", "json")
        )
        return rows

    def wait_rows(self, count: int, timeout_s: float = 15.0) -> list[dict[str, Any]]:
        """The rows, once there are so many."""
        sql = "SELECT count(*) FROM ai_usage_costs"
        wait_for(f"{count} rows", lambda: self.query(sql)[0][0] >= count, timeout_s)
        return self.rows()

    def query(self, sql: str) -> list[Any]:
        """Straight from the database."""
        url = self.config["database"]["url"]
        if not url.startswith("sqlite"):
            return query(url, sql)
        with contextlib.closing(sqlite3.connect(self.directory / "ledger.db")) as db:
            return db.execute(sql).fetchall()
