import json
from pathlib import Path

import pytest

from tests.proxy.cli_runner import Tollkeeper


@pytest.fixture
def tollkeeper(tmp_path: Path) -> Tollkeeper:
    return Tollkeeper(tmp_path)


def names(tollkeeper: Tollkeeper, *options: str) -> list[str]:
    rows = json.loads(tollkeeper.ok("keys", "list", "--format", "json", *options))
    return [row["name"] for row in rows]


def test_create_prints_the_key_alone_on_stdout(tollkeeper: Tollkeeper) -> None:
    result = tollkeeper.run("keys", "create", "--name", "dev", "--team", "acme/search")
    assert result.exit_code == 0
    assert result.stdout.startswith("tk-")
    assert result.stdout.count("\n") == 1
    assert "dev" in result.stderr
    listed = tollkeeper.ok("keys", "list", "--format", "csv")
    assert result.stdout.strip() not in listed
    assert result.stdout.strip()[-4:] in listed


def test_create_before_the_first_serve_knows_what_is_declared(tollkeeper: Tollkeeper) -> None:
    tollkeeper.ok("keys", "create", "--name", "dev", "--project", "acme/search/ranking")
    assert names(tollkeeper) == ["dev", "search-prod"]


def test_a_later_change_of_the_file_waits_for_serve(tollkeeper: Tollkeeper) -> None:
    tollkeeper.ok("keys", "create", "--name", "dev", "--team", "search")
    text = tollkeeper.path.read_text()
    tollkeeper.path.write_text(text.replace("name: search-prod, key: tk", "name: other, key: tk2"))
    tollkeeper.path.write_text(tollkeeper.path.read_text().replace("key/search-prod", "key/other"))
    tollkeeper.ok("keys", "create", "--name", "dev2", "--team", "search")
    assert names(tollkeeper) == ["dev", "dev2", "search-prod"]


def test_options_of_a_key(tollkeeper: Tollkeeper) -> None:
    tollkeeper.ok(
        *("keys", "create", "--name", "x", "--team", "acme/support", "--user", "eva"),
        *("--expires", "2099-01-31", "--models", "gpt-*, claude-*", "--models", "o3"),
        *("--providers", "openai"),
    )
    row = json.loads(tollkeeper.ok("keys", "list", "--format", "ndjson").splitlines()[-1])
    assert row["user"] == "eva"
    assert row["models"] == ["gpt-*", "claude-*", "o3"]
    assert row["providers"] == ["openai"]
    assert row["expires"] == "2099-01-31T23:59:59Z"


def test_rotate_and_revoke(tollkeeper: Tollkeeper) -> None:
    first = tollkeeper.ok("keys", "create", "--name", "dev", "--team", "acme/search")
    second = tollkeeper.ok("keys", "rotate", "dev")
    assert second.startswith("tk-")
    assert first != second
    tollkeeper.ok("keys", "revoke", "dev")
    assert names(tollkeeper) == ["search-prod"]
    assert names(tollkeeper, "--revoked") == ["dev", "search-prod"]
    again = tollkeeper.run("keys", "revoke", "dev")
    assert (again.exit_code, again.stderr) == (2, "tollkeeper: key 'dev' is revoked already\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "x"], "give --team or --project"),
        (["--name", "x", "--team", "acme/nope"], "no such team: 'acme/nope'"),
        (["--name", "search-prod", "--team", "search"], "exists already"),
        (["--name", "x", "--team", "search", "--expires", "soon"], "not a date or timestamp"),
    ],
)
def test_create_refuses(tollkeeper: Tollkeeper, options: list[str], message: str) -> None:
    result = tollkeeper.run("keys", "create", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_keys_of_the_configuration_stay_its_own(tollkeeper: Tollkeeper) -> None:
    tollkeeper.ok("keys", "create", "--name", "dev", "--team", "search")
    result = tollkeeper.run("keys", "revoke", "search-prod")
    assert result.exit_code == 2
    assert "declared in the configuration" in result.stderr
