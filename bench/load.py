"""The fake provider and the load generator (harness/*.c), and single requests to either side."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from targets import HERE, HOME, PROVIDER_KEY, PROVIDER_PORT, Target

LOAD_CORE = "1"  # of the provider and the load generator
CHAT = "/v1/chat/completions"
CHUNKS = 40  # deltas of a stream; its other events make EVENTS
EVENTS = CHUNKS + 4
JSON_BODY, STREAM_BODY = "openai_json.json", "openai_sse.json"

Result = dict[str, float]


def pinned(core: str, command: list[str]) -> list[str]:
    return ["taskset", "-c", core, *command]


def pace(gap_ms: int) -> None:
    """How far apart the provider sends the events of a stream; 0: all at once."""
    connection = HTTPConnection("127.0.0.1", PROVIDER_PORT, timeout=5)
    connection.request("GET", f"/__ctl?delay_ms=0&gap_ms={gap_ms}&chunks={CHUNKS}")
    connection.getresponse().read()
    connection.close()


def taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def provider() -> Iterator[None]:
    """The fake provider, running. Two measurements at once would spoil each other."""
    if taken(PROVIDER_PORT):
        sys.exit(f"port {PROVIDER_PORT} is in use: another measurement is running")
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    command = [f"{HOME}/bin/upstream", str(PROVIDER_PORT), PROVIDER_KEY]
    process = subprocess.Popen(pinned(LOAD_CORE, command))
    try:
        for _ in range(100):
            try:
                pace(0)
                break
            except OSError:
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


def command(target: Target, connections: int, seconds: float, *, stream: bool = False) -> list[str]:
    """A run of the load generator; it prints one JSON object."""
    body = HERE / "bodies" / (STREAM_BODY if stream else JSON_BODY)
    run = [f"{HOME}/bin/load", "-p", str(target.port), "-u", CHAT, "-b", str(body)]
    run += ["-c", str(connections), "-d", str(seconds)]
    run += ["-H", f"Authorization: Bearer {target.key}"]
    return pinned(LOAD_CORE, run + (["-s"] if stream else []))


def run(target: Target, connections: int, seconds: float, *, stream: bool = False) -> Result:
    """Drive a target for a while. Raises RuntimeError at the first call that fails."""
    done = subprocess.run(
        command(target, connections, seconds, stream=stream),
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=True,
    )
    result: Result = json.loads(done.stdout)
    if result["errors"] or not result["requests"]:
        raise RuntimeError(f"{result['errors']} calls failed: {result.get('first_error')}")
    return result


def call(target: Target, path: str, body: str, *, timeout_s: float = 10) -> tuple[int, bytes]:
    """One request, with the credential its API wants."""
    connection = HTTPConnection("127.0.0.1", target.port, timeout=timeout_s)
    credential = (
        {"x-api-key": target.key, "anthropic-version": "2023-06-01"}
        if path.endswith("messages")
        else {"authorization": f"Bearer {target.key}"}
    )
    headers = {"content-type": "application/json", **credential}
    connection.request("POST", path, Path(HERE / "bodies" / body).read_bytes(), headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, data


def wait_ready(target: Target, process: "subprocess.Popen[bytes]", since: float) -> float:
    """Seconds from `since` until the first call came back from the provider."""
    seen = "nothing"
    while time.monotonic() - since < target.start_s_max:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}, see {HOME}/logs")
        try:
            status, data = call(target, CHAT, JSON_BODY)
            if status == 200:
                return time.monotonic() - since
            seen = f"{status} {data[:200]!r}"
        except OSError as error:
            seen = repr(error)
        time.sleep(0.01)
    raise RuntimeError(f"never ready: {seen}")
