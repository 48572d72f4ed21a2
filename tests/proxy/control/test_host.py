"""What identifies a host."""

import stat
from pathlib import Path

from proxy.control import host


def test_the_id_is_made_once_and_kept(tmp_path: Path) -> None:
    made = host.host_id(tmp_path)
    assert len(made) == 32
    assert host.host_id(tmp_path) == made
    assert stat.S_IMODE((tmp_path / host.HOST_ID_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [host.HOST_ID_FILE]


def test_an_empty_file_is_no_id(tmp_path: Path) -> None:
    (tmp_path / host.HOST_ID_FILE).write_text("\n")
    assert len(host.host_id(tmp_path)) == 32


def test_a_directory_others_could_read_is_closed(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "journal"
    directory.mkdir(parents=True, mode=0o755)
    host.prepare_directory(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_the_boot_id_is_the_kernels_or_nothing(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "BOOT_ID", tmp_path / "boot_id")
    assert host.boot_id() == ""
    (tmp_path / "boot_id").write_text("abc\n")
    assert host.boot_id() == "abc"
