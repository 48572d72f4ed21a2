"""A start that cannot work: one clear line on stderr that says what and where, exit code 2."""

import contextlib
import json
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Serving

PROVIDER = "http://127.0.0.1:9"
END_S = 20.0
# Root may write anywhere, so it is made to give that up.
AS_ANYBODY = ("setpriv", *(f"--{what}=-dac_override" for what in ("inh-caps", "bounding-set")))


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path, PROVIDER)
    yield serving
    serving.close()


def complaint(serving: Serving, wrapper: Sequence[str] = ()) -> str:
    """The one line that a start ends with."""
    serving.spawn(wrapper)
    assert serving.wait(END_S) == 2, serving.log
    (line,) = serving.log.splitlines()
    assert line.startswith("tollkeeper: ")
    return line


# --- the file ------------------------------------------------------------------------------


def changed(section: str, **changes: Any) -> Callable[[dict[str, Any]], str]:
    def text(config: dict[str, Any]) -> str:
        return json.dumps({**config, section: config[section] | changes})

    return text


def with_budget(scope: str) -> Callable[[dict[str, Any]], str]:
    def text(config: dict[str, Any]) -> str:
        return json.dumps({**config, "budgets": [{"scope": scope, "limit_usd": 1}]})

    return text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (lambda _: "server: [", ["tollkeeper.yaml:1", "expected"]),
        (changed("server", prot=4000), ["tollkeeper.yaml:1", "server.prot", "port"]),
        (changed("admin", key="${NOT_SET_ANYWHERE}"), ["admin.key", "NOT_SET_ANYWHERE"]),
        (with_budget("team/acme/serch"), ["budgets[0].scope", "team/acme/serch"]),
        (changed("database", url="mysql://host/name"), ["database.url", "sqlite+aiosqlite://"]),
        (changed("database", url="sqlite+aiosqlite:////no/such/ledger.db"), ["/no/such/ledger.db"]),
    ],
    ids=["yaml", "unknown key", "unset variable", "unknown scope", "driver", "no directory"],
)
def test_configuration(
    serving: Serving, text: Callable[[dict[str, Any]], str], says: list[str]
) -> None:
    serving.write_config(text(serving.config))
    line = complaint(serving)
    assert [word for word in says if word not in line] == [], line


def test_no_file(serving: Serving) -> None:
    serving.config_path.unlink()
    assert str(serving.config_path) in complaint(serving)


@pytest.mark.parametrize("section", ["server", "admin"])
def test_port_in_use(serving: Serving, section: str) -> None:
    port = serving.config[section]["port"]
    with socket.create_server(("127.0.0.1", port)):
        line = complaint(serving)
    assert line == f"tollkeeper: {section}.port: 127.0.0.1:{port} is in use"


# --- the database --------------------------------------------------------------------------


def test_missing_table(serving: Serving) -> None:
    serving.output("db", "upgrade")
    with contextlib.closing(sqlite3.connect(serving.directory / "ledger.db")) as db:
        db.execute("DROP TABLE ai_cost_analytics")
    line = complaint(serving)
    assert "ai_cost_analytics" in line
    assert "missing" in line


def test_no_database(serving: Serving) -> None:
    (serving.directory / "ledger.db").write_text("Dear diary, today I spent nothing. " * 100)
    assert "ledger.db is not a SQLite database" in complaint(serving)


@pytest.fixture
def anybody() -> Sequence[str]:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not there: a root user may write everywhere")
    if subprocess.run([*AS_ANYBODY, "true"], capture_output=True, check=False).returncode:
        return ()  # nothing to give up
    return AS_ANYBODY


def test_unwritable_database(serving: Serving, anybody: Sequence[str]) -> None:
    serving.output("db", "upgrade")
    (serving.directory / "ledger.db").chmod(0o400)
    line = complaint(serving, anybody)
    assert "ledger.db cannot be written: permission denied" in line


def test_unwritable_directory(tmp_path: Path, anybody: Sequence[str]) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    url = f"sqlite+aiosqlite:///{tmp_path / 'closed' / 'ledger.db'}"
    serving = Serving(tmp_path, PROVIDER, database={"url": url})
    line = complaint(serving, anybody)
    assert f"database {tmp_path / 'closed' / 'ledger.db'} cannot be created" in line


# --- the journal ---------------------------------------------------------------------------


def test_unwritable_journal(serving: Serving, anybody: Sequence[str]) -> None:
    (serving.directory / "journal").mkdir(mode=0o700)
    (serving.directory / "closed").mkdir(mode=0o500)
    serving.write_config(
        changed("journal", dir=str(serving.directory / "closed" / "journal"))(serving.config)
    )
    line = complaint(serving, anybody)
    where = serving.directory / "closed" / "journal"
    assert line == f"tollkeeper: journal {where} cannot be used: Permission denied"


def test_a_file_where_the_journal_should_be(serving: Serving) -> None:
    where = serving.directory / "journal"
    where.write_text("")
    assert complaint(serving) == f"tollkeeper: journal {where} cannot be used: File exists"


def test_a_journal_in_use(tmp_path: Path) -> None:
    with Serving(tmp_path, PROVIDER) as first:
        second = Serving(tmp_path, PROVIDER)
        line = complaint(second)
        assert line.endswith(
            f"journal {tmp_path / 'journal'} is in use by another control (pid {first.pid})"
        )
        assert first.status("/readyz") == 200
    assert first.exit_code == 0
