"""The one key of personal mode: made once, shown once, kept as its hash."""

import hashlib
import os
import secrets
from pathlib import Path

from proxy.config_loader import personal_key_path

KEY_PREFIX = "tk-"
KEY_RANDOM_BYTES = 32


def ensure_key(directory: Path) -> str | None:
    """Make the key; returns its secret, or None if there is one already. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = KEY_PREFIX + secrets.token_urlsafe(KEY_RANDOM_BYTES)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    try:
        descriptor = os.open(
            personal_key_path(directory), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
        )
    except FileExistsError:
        return None
    with os.fdopen(descriptor, "w") as file:
        file.write(digest + "\n")
    return secret
