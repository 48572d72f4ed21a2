"""The programs that make calls with packages that are not installed beside Tollkeeper."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import pytest

from tests.source_code import ROOT

HERE = Path(__file__).parent
DRIVERS = HERE / "drivers"
PYTHON = ROOT / ".venv/compat/bin/python"
JOB_S = 120.0  # packages are slow to import on a busy machine
HOW = "scripts/compat sets it up"


class PackageError(Exception):
    """What a package raised: its class and those it is one of, the status it tells, its text."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(f"{told['classes'][0]}: {told['text']}")
        self.classes: list[str] = told["classes"]
        self.status: int | None = told["status"]
        self.text: str = told["text"]


def environment(**more: str) -> dict[str, str]:
    """Of a program that nobody configured: no keys, no proxies, no home."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"HOME": "/nonexistent", "NO_PROXY": "*", "no_proxy": "*"} | more


def command(driver: str, package: str) -> list[str]:
    """How a driver is run; skips the test where its package is absent."""
    path = str(DRIVERS / driver)
    if driver.endswith(".mjs"):
        node = shutil.which("node")
        if node is None:
            pytest.skip(f"{package}: node is not installed")
        if not (HERE / "node_modules" / package).exists():
            pytest.skip(f"{package} is not installed; {HOW}")
        return [node, path]
    if package == "litellm" and not PYTHON.exists():  # a development dependency of our own
        return [sys.executable, path]
    if not PYTHON.exists():
        pytest.skip(f"{package} is not installed; {HOW}")
    return [str(PYTHON), path]


class Program:
    """A driver, started at its first job."""

    def __init__(self, driver: str, package: str) -> None:
        self._command = command(driver, package)
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        self._late = False
        self._lines: Queue[str] = Queue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def run(self, job: dict[str, str]) -> Any:
        """The result of a job. Raises PackageError with what the package raised."""
        assert self._process.stdin is not None
        assert not self._late, f"{self._command} is busy with an earlier job"
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=JOB_S)
        except Empty:
            self._late = True  # the next line would be this job's
            pytest.fail(f"{self._command} does not answer {job}")
        assert line, f"{self._command} has ended"
        told = json.loads(line)
        if "error" in told:
            error = PackageError(told["error"])
            if "builtins.ModuleNotFoundError" in error.classes:
                pytest.skip(f"{error.text}; {HOW}")
            raise error
        return told["result"]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
