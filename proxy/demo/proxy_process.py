"""The proxy as a user runs it: `tollkeeper serve` in a process of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

READY_TIMEOUT_S = 30
STOP_TIMEOUT_S = 40


class ProxyFailed(Exception):
    """The proxy did not start; the message is what it said."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(config: Path, url: str) -> Iterator[None]:
    """Serve inside the block; stopped by SIGTERM, which drains. Raises ProxyFailed."""
    log = config.parent / "serve.log"
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "proxy", "--config", str(config), "serve"],
            cwd=config.parent,
            env=os.environ | {"PYTHONPATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops this in order
        )
    try:
        _wait_ready(process, url, log)
        yield
    finally:
        _stop(process)


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{url}/readyz", timeout=5).close()  # noqa: S310 - our own URL
            return
        time.sleep(0.02)
    said = log.read_text(errors="replace").strip().splitlines()[-5:]
    raise ProxyFailed("the proxy did not start: " + (" / ".join(said) or "it said nothing"))


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
