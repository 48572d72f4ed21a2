"""What identifies this host and this boot, and the directory both planes share."""

import contextlib
import os
import uuid
from pathlib import Path

HOST_ID_FILE = "host-id"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DIRECTORY_MODE = 0o700  # journals name users and models


def prepare_directory(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
    with contextlib.suppress(PermissionError):  # somebody else's, who gave us access
        directory.chmod(DIRECTORY_MODE)


def host_id(directory: Path) -> str:
    """Made once, kept beside the journals: it says whose they are."""
    path = directory / HOST_ID_FILE
    try:
        known = path.read_text().strip()
    except FileNotFoundError:
        known = ""
    if known:
        return known
    made = uuid.uuid4().hex
    temporary = path.with_suffix(".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, made.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    return made


def boot_id() -> str:
    """Changes with each start of the machine; "" where the kernel does not tell, and then a power
    cut cannot be told from a crash."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
