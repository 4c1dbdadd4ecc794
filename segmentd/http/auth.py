"""Keys: who asks, and what they may do.

Owns the mapping from a secret (header `x-api-key`) to a `Key`. Never stores a secret and never writes the key file
(`segmentd.keyfile` does).

Invariants:
1. An unknown secret is compared with every key, each time in constant time, without leaving early.
2. Only secrets that were found right are remembered, under a hash keyed with bytes that live as long as the process;
   so there are never more remembered than keys.
3. A key file that cannot be read changes nothing: the keys read last stay in force, and the log says why.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog
import trio

from segmentd import keyfile
from segmentd.keyfile import KeyFileError, Right

# Printed in the shipped development configuration, so known to everybody.
DEVELOPMENT_SECRETS: Final = ("dev-public", "dev-private")
WATCH_SECONDS: Final = 0.5
SECRET_CHARS_MAX: Final = 512

_log = structlog.get_logger(__name__)


class Key(msgspec.Struct, frozen=True):
    """An authenticated key. `private` may do everything, `public` sends events and reads GraphQL."""

    id: str
    right: Right

    def may(self, needed: Right) -> bool:
        """Whether this key has the right `needed`."""
        return self.right == "private" or needed == "public"


class HashedKey(Protocol):
    """What a key is made of, whether it comes from the configuration or from the key file."""

    @property
    def right(self) -> Right: ...
    @property
    def salt(self) -> str: ...
    @property
    def sha256(self) -> str: ...


class Keyring:
    """All keys in force: those of the configuration and those of the key file."""

    def __init__(self, configured: Mapping[str, HashedKey], path: Path | None = None) -> None:
        """path: the key file; it need not exist. Raises KeyFileError if it exists and cannot be read."""
        self._configured = [_entry(key_id, key) for key_id, key in configured.items()]
        self._path = path
        # Copied for each secret: faster than keying a new hash.
        self._keyed = hashlib.blake2b(key=secrets.token_bytes(32), digest_size=16)
        self._known: dict[bytes, Key] = {}
        self._entries = self._configured
        self._seen = _signature(path)
        if path is not None:
            self._adopt(keyfile.read(path))

    def __len__(self) -> int:
        return len(self._entries)

    def authenticate(self, secret: str | None) -> Key | None:
        """The key of `secret`, or None if there is no such key."""
        if not secret or len(secret) > SECRET_CHARS_MAX:
            return None
        keyed = self._keyed.copy()
        keyed.update(secret.encode())
        name = keyed.digest()
        known = self._known.get(name)
        if known is None:
            known = self._search(secret)
            if known is not None:
                self._known[name] = known
        return known

    def development_keys(self) -> list[str]:
        """Ids of the keys whose secret everybody knows; they must not be served beyond loopback."""
        found = (self.authenticate(secret) for secret in DEVELOPMENT_SECRETS)
        return [key.id for key in found if key is not None]

    def refresh_if_changed(self) -> bool:
        """Read the key file again if it is another one than last time. Cheap: one stat. True if keys were read."""
        signature = _signature(self._path)
        if self._path is None or signature == self._seen:
            return False
        self._seen = signature
        try:
            self._adopt(keyfile.read(self._path))
        except KeyFileError as error:
            _log.error("key file not read, the former keys stay in force", reason=str(error))
            return False
        _log.info("keys read again", keys=len(self._entries))
        return True

    async def watch(self) -> None:
        """Keep the keys fresh until cancelled; a change is seen within a second."""
        while True:
            await trio.sleep(WATCH_SECONDS)
            self.refresh_if_changed()

    def _adopt(self, stored: Mapping[str, HashedKey]) -> None:
        self._entries = [*self._configured, *(_entry(key_id, key) for key_id, key in stored.items())]
        self._known = {}

    def _search(self, secret: str) -> Key | None:
        found = None
        for key, salt, digest in self._entries:
            if hmac.compare_digest(keyfile.hash_of(salt, secret), digest):
                found = key
        return found


def _entry(key_id: str, key: HashedKey) -> tuple[Key, bytes, bytes]:
    return Key(key_id, key.right), bytes.fromhex(key.salt), bytes.fromhex(key.sha256)


def _signature(path: Path | None) -> tuple[int, int, int] | None:
    """What changes when the file is replaced; None if there is no file."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
