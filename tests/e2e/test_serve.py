"""`tollkeeper serve` as processes: how it starts, reloads and ends."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from db.journal import JournalReader, list_journals
from proxy import __version__
from tests.load import OpenCall, Provider, cost_of, nano, post, served
from tests.processes import Serving, wait_for


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(seed=1) as provider:
        yield provider


def journals_are_closed(serving: Serving) -> bool:
    """Whether each ends with CLOSE."""
    directory = Path(serving.config["journal"]["dir"])
    closed = []
    for journal_id in list_journals(directory):
        reader = JournalReader(directory, journal_id)
        reader.sealed = True
        while reader.read():
            pass
        closed.append(reader.closed and not reader.open_holds)
        reader.close()
    return bool(closed) and all(closed)


def check_all_is_back(serving: Serving) -> None:
    """After an end in order: journal and epoch closed, unspent money returned."""
    assert journals_are_closed(serving)
    assert serving.query("SELECT state FROM ai_control_epochs WHERE id > 0") == [("closed",)]
    assert serving.query("SELECT sum(granted - spent) FROM ai_budget_leases") == [(0,)]


# --- start ---------------------------------------------------------------------------------


def test_the_start_tells_what_it_serves(tmp_path: Path, provider: Provider) -> None:
    with Serving(tmp_path, provider.url) as serving:
        ready = serving.wait_event("ready")
        expected = {
            "version": __version__,
            "data": serving.url,
            "admin": serving.admin_url,
            "providers": ["anthropic", "gemini", "openai"],
            "keys": 1,
            "budgets": 2,
            "workers": 1,
        }
        assert expected.items() <= ready.items()
        assert ready["start_ms"] < 10_000
        assert serving.status("/healthz") == 200
        wait_for("control", lambda: httpx.get(f"{serving.admin_url}/readyz").status_code == 200)
    assert serving.exit_code == 0
    assert [event["level"] for event in serving.events()] == ["info"] * 3


def test_several_workers_share_the_port(tmp_path: Path, provider: Provider) -> None:
    with Serving(tmp_path, provider.url, server={"workers": 2}) as serving:
        assert len(serving.workers) == 2
        for number in range(1, 9):
            served(serving, number)
    assert len(serving.rows()) == 8
    check_all_is_back(serving)


# --- end -----------------------------------------------------------------------------------


def test_sigterm_lets_an_open_stream_finish(tmp_path: Path, provider: Provider) -> None:
    gate = provider.held(1)
    with Serving(tmp_path, provider.url) as serving, OpenCall(serving, 1, stream=True) as call:
        call.wait_data()
        serving.signal(signal.SIGTERM)
        wait_for("closed door", lambda: serving.refuses, 3)
        assert serving.running
        gate.open()
        call.join(10)
        assert call.data.endswith(b"data: [DONE]\n\n")
        assert not call.cut
        assert serving.wait() == 0
    (row,) = serving.rows()
    assert (row["ending"], row["usage_source"]) == ("complete", "reported")
    assert cost_of(row) == nano(provider.billed[1][0])
    check_all_is_back(serving)


def test_a_drain_that_takes_too_long_cuts_and_settles(tmp_path: Path, provider: Provider) -> None:
    provider.held(1)
    provider.held(2)
    short = {"drain_s": 0.2}
    with (
        Serving(tmp_path, provider.url, server=short) as serving,
        OpenCall(serving, 1, stream=True) as stream,
        OpenCall(serving, 2, stream=False) as plain,
    ):
        stream.wait_data()
        provider.has(2)
        assert serving.stop() == 0
        stream.join(10)
        plain.join(10)
    *_, error = stream.data.split(b"\n\n")[:-1]
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "draining"
    assert stream.cut
    assert b"[DONE]" not in stream.data
    assert (plain.status, json.loads(plain.data)["error"]["code"]) == (503, "draining")
    rows = serving.rows()
    assert {(row["ending"], row["usage_source"]) for row in rows} == {("cut", "estimated")}
    assert len(rows) == 2
    check_all_is_back(serving)
    assert serving.output("verify") == ""


def test_idle_connections_do_not_keep_it(tmp_path: Path, provider: Provider) -> None:
    with Serving(tmp_path, provider.url) as serving, httpx.Client() as client:
        for path in ("/healthz", "/readyz"):
            assert client.get(serving.url + path).status_code == 200
        assert serving.stop(timeout_s=8) == 0  # `drain_s` is 10


# --- changes while it runs -----------------------------------------------------------------


def add_key(serving: Serving, name: str, key: str) -> None:
    team = serving.config["organizations"]["acme"]["teams"]["search"]
    team["keys"].append({"name": name, "key": key})
    serving.write_config(json.dumps(serving.config))


def test_sighup_reloads(tmp_path: Path, provider: Provider) -> None:
    with Serving(tmp_path, provider.url) as serving:
        assert post(serving, 1, "tk-another-test-key").status_code == 401
        add_key(serving, "another", "tk-another-test-key")
        serving.signal(signal.SIGHUP)
        serving.wait_event("reloaded")
        wait_for("new key", lambda: post(serving, 2, "tk-another-test-key").status_code == 200)
        served(serving, 3)


def test_an_invalid_file_keeps_the_old_one(tmp_path: Path, provider: Provider) -> None:
    invalid = {
        "server: {port: 70000}": "server.port: ",
        "server: [": "tollkeeper.yaml:1:10: not valid YAML",
        "providers: {openai: {api_key: '${NOT_SET_ANYWHERE}'}}": "NOT_SET_ANYWHERE",
    }
    with Serving(tmp_path, provider.url) as serving:
        for number, (text, says) in enumerate(invalid.items()):
            serving.write_config(text)
            serving.signal(signal.SIGHUP)
            event = serving.wait_event(f"not reloaded: .*{says}")
            assert event["level"] == "error"
            served(serving, number)
        serving.write_config(json.dumps(serving.config))
    assert serving.exit_code == 0


def test_keys_made_and_revoked_beside_it(tmp_path: Path, provider: Provider) -> None:
    with Serving(tmp_path, provider.url) as serving:
        secret = serving.output("keys", "create", "--name", "ci", "--team", "acme/search").strip()
        wait_for("key in force", lambda: post(serving, 1, secret).status_code == 200, 3)
        serving.output("keys", "revoke", "ci")
        wait_for("key revoked", lambda: post(serving, 2, secret).status_code == 401, 3)
        assert post(serving, 3, secret).json()["error"]["code"] == "key_revoked"
        rows = serving.wait_rows(1)
        assert {row["key"] for row in rows} == {"ci"}
