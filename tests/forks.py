"""Processes that are forked from one that has imported what they need, instead of spending half a
second of CPU time on imports each. What they do after that is what they do elsewhere.
"""

import importlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

CONTEXT = get_context("forkserver")
# What commands import when they are called, and all that the simulation does.
PRELOADED = (
    "tests.simulation.mutate", "proxy.cli", "proxy.cli_report", "proxy.cli_serve",
    "proxy.cli_verify", "proxy.control.admin", "proxy.control.alerts.alerting",
    "proxy.control.clock", "proxy.control.control", "proxy.control.retaining", "proxy.serve",
    "db.reports", "db.verify", "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite", __name__,
)  # fmt: skip
CONTEXT.set_forkserver_preload(list(PRELOADED))


class Tollkeeper:
    """`tollkeeper ARGUMENTS` in a process group of its own, as a Popen."""

    def __init__(
        self,
        arguments: Sequence[str],
        directory: Path,
        stdout: Path,
        stderr: Path,
        constants: Mapping[str, object] | None = None,
    ) -> None:
        """`constants`: values for constants of modules, {"proxy.serve.SILENT_S": 1}."""
        self.args = ["tollkeeper", *arguments]
        self._process = CONTEXT.Process(
            target=_run,
            args=(self.args, directory, stdout, stderr, dict(os.environ), dict(constants or {})),
            daemon=True,
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code


def run(
    arguments: Sequence[str], directory: Path, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """`tollkeeper ARGUMENTS` to its end. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryDirectory() as written:
        out, err = Path(written, "out"), Path(written, "err")
        command = Tollkeeper(arguments, directory, out, err)
        try:
            code = command.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(command.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(command.args, code, out.read_text(), err.read_text())


def _run(
    arguments: list[str],
    directory: Path,
    stdout: Path,
    stderr: Path,
    environment: dict[str, str],
    constants: dict[str, Any],
) -> None:
    os.setsid()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    for name, value in constants.items():
        module, _, constant = name.rpartition(".")
        setattr(importlib.import_module(module), constant, value)
    sys.argv = arguments
    main = importlib.import_module("proxy.cli").main
    main(arguments[1:], prog_name=arguments[0])
