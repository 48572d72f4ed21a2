"""`serve` as a process: what stops its start says so in one line, quickly."""

import subprocess
import time
from pathlib import Path

import pytest

from proxy.demo.proxy_process import free_port
from tests.forks import run
from tests.source_code import ROOT

START_S_MAX = 20


def serve(directory: Path, extra: str) -> subprocess.CompletedProcess[str]:
    path = directory / "config.yaml"
    path.write_text(
        "providers: {openai: {base_url: 'http://127.0.0.1:9'}}\n"
        f"server: {{port: {free_port()}}}\nadmin: {{port: {free_port()}}}\n{extra}\n"
    )
    return run(["--config", str(path), "serve"], ROOT, START_S_MAX)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("pricing: {table: nope}", "no such price table"),
        ("database: {url: 'sqlite+aiosqlite:////nonexistent/x.db'}", "cannot be created"),
        ("database: {url: 'sqlite+aiosqlite:///file'}", "is not a SQLite database"),
        ("journal: {dir: ./file}", "file"),
        ("database: {url: 'postgresql+asyncpg://u:secret@127.0.0.1:1/x'}", "127.0.0.1"),
    ],
)
def test_a_start_that_cannot_succeed(tmp_path: Path, extra: str, message: str) -> None:
    (tmp_path / "file").write_text("something else entirely")
    began = time.monotonic()
    result = serve(tmp_path, extra)
    assert result.returncode == 2, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("tollkeeper: ")]
    assert message in line
    assert "secret" not in result.stderr
    assert "Traceback" not in result.stderr
    assert time.monotonic() - began < START_S_MAX
