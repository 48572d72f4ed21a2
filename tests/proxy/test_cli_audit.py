import json
from pathlib import Path

from tests.proxy.cli_runner import Tollkeeper


def test_changes_by_command_are_listed_with_who_and_without_secrets(tmp_path: Path) -> None:
    tollkeeper = Tollkeeper(tmp_path)
    secret = tollkeeper.ok("keys", "create", "--name", "dev", "--team", "acme/search").strip()
    tollkeeper.ok("keys", "revoke", "dev")
    text = tollkeeper.ok("audit", "--target", "key/dev", "--format", "json")
    revoked, created = json.loads(text)
    assert (revoked["action"], created["action"]) == ("key.revoke", "key.create")
    assert list(revoked["changed"]) == ["revoked_at_ms"]
    assert created["before"] is None
    assert created["who"].startswith("cli:")
    assert secret not in text
    assert "key.revoke" in tollkeeper.ok("audit", "--limit", "1")
    assert json.loads(tollkeeper.ok("audit", "--who", "nobody", "--format", "json")) == []
