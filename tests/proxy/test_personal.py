import hashlib
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli import Failure, main
from proxy.cli_serve import introduce
from proxy.config_loader import load, personal_key_path, state_dir
from proxy.personal import ensure_key


def test_the_key_is_made_once_and_kept_as_its_hash(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path), "OPENAI_API_KEY": "sk"}
    directory = state_dir(env)
    secret = ensure_key(directory)
    assert secret is not None
    assert ensure_key(directory) is None
    path = personal_key_path(directory)
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (key,) = load(None, env).organizations["personal"].teams["personal"].keys
    assert key.key_sha256 == hashlib.sha256(secret.encode()).hexdigest()


def test_introduction_has_settings_to_paste(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path), "OPENAI_API_KEY": "sk", "GEMINI_API_KEY": "g"}
    introduce(load(None, env), tmp_path)
    first = capsys.readouterr().out
    secret = next(word for word in first.split() if word.startswith("tk-"))
    assert "export OPENAI_BASE_URL=http://127.0.0.1:4000/v1\n" in first
    assert f"export GEMINI_API_KEY={secret}\n" in first
    assert "ANTHROPIC" not in first
    introduce(load(None, env), tmp_path)
    assert secret not in capsys.readouterr().out


def test_nothing_to_forward_to(tmp_path: Path) -> None:
    config = load(None, {"XDG_STATE_HOME": str(tmp_path)})
    with pytest.raises(Failure, match="nothing to forward calls to"):
        introduce(config, tmp_path)


def test_serve_refuses_its_own_key_as_the_providers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "tk-pasted-into-the-wrong-shell")
    result = CliRunner().invoke(main, ["serve"])
    assert result.exit_code == 2
    assert result.stderr == (
        "tollkeeper: providers.openai.api_key is a Tollkeeper key; the provider needs its own\n"
    )
