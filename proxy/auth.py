"""Who is calling: finds the client's Tollkeeper key wherever its SDK puts it, and checks it.

Keys are looked up by SHA-256 digest, so the comparison cannot leak a prefix by its timing.
"""

from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import unquote_to_bytes

from proxy.errors import Refusal
from proxy.request_head import RequestHead
from proxy.wire import KeyEntry


@dataclass(slots=True)
class Credentials:
    """What one request presents: distinct secrets, and Tollkeeper's own header apart."""

    secrets: list[bytes]
    own: bytes | None = None  # x-tollkeeper-key


def credentials(head: RequestHead, query: bytes) -> Credentials:
    """Collect the distinct secrets of a request, in the order of their headers."""
    found = Credentials([])
    secrets = found.secrets
    for name, value in head.credentials:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() != b"bearer":
                continue
            value = token.strip()
        elif name == b"x-tollkeeper-key":
            found.own = value.strip()
            continue
        if value and value not in secrets:
            secrets.append(value)
    if b"key=" in query:
        for part in query.split(b"&"):
            if part.startswith(b"key="):
                value = unquote_to_bytes(part[4:])
                if value and value not in secrets:
                    secrets.append(value)
    return found


def without_key(query: bytes) -> bytes:
    """The query string without `key=` parameters; order and all other bytes stay."""
    if b"key=" not in query:
        return query
    return b"&".join(part for part in query.split(b"&") if not part.startswith(b"key="))


class Keyring:
    """The keys of one snapshot."""

    def __init__(self, keys: tuple[KeyEntry, ...]) -> None:
        self._by_digest = {bytes.fromhex(key.sha256): key for key in keys}

    def authenticate(self, found: Credentials, now_s: float) -> KeyEntry:
        """The key that calls. Raises Refusal: invalid_api_key, key_expired, key_revoked,
        ambiguous_credentials."""
        if found.own is not None:
            secret = found.own
        elif len(found.secrets) == 1:
            secret = found.secrets[0]
        elif not found.secrets:
            raise Refusal(
                "invalid_api_key",
                "No API key. Send your Tollkeeper key where your SDK puts its API key.",
            )
        else:
            secret = self._only_known(found.secrets)
        key = self._by_digest.get(sha256(secret).digest())
        if key is None:
            raise Refusal(
                "invalid_api_key",
                "This is not a Tollkeeper key. Use a key made with `tollkeeper keys create` or "
                "declared in the configuration, not the provider's own.",
            )
        if key.revoked:
            raise Refusal("key_revoked", f"The key '{key.name}' has been revoked.")
        if key.expires_at and now_s >= key.expires_at:
            raise Refusal("key_expired", f"The key '{key.name}' has expired.")
        return key

    def _only_known(self, secrets: list[bytes]) -> bytes:
        """Several different secrets: fine if exactly one of them is a key of ours."""
        known = [s for s in secrets if sha256(s).digest() in self._by_digest]
        if len(known) == 1:
            return known[0]
        if known:
            raise Refusal(
                "ambiguous_credentials",
                "The request carries several different Tollkeeper keys. Send exactly one.",
            )
        return secrets[0]
