"""Keys: who asks, and what they may do.

Owns the mapping from a secret (header `x-api-key`) to a `Key`. Never stores a secret and never writes keys
(`segmentd.keyfile` does). Stored keys come from the key file, or from a source that has to be waited for.

Invariants:
1. An unknown secret is compared with every key, each time in constant time, without leaving early.
2. Only secrets that were found right are remembered, under a hash keyed with bytes that live as long as the process;
   so there are never more remembered than keys. They stay remembered when the key file changes and their keys do not,
   because a client whose address is not let guess is let in by them alone.
3. A key file or source that cannot be read changes nothing: the keys read last stay in force, and the log says why.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec
import structlog
import trio

from segmentd import keyfile
from segmentd.domain.refusals import Refusal
from segmentd.http.ratelimits import Clock, KeyQuotas
from segmentd.keyfile import KeyFileError, Right
from segmentd.settings import RatesSettings

# Printed in the shipped development configuration, so known to everybody.
DEVELOPMENT_SECRETS: Final = ("dev-public", "dev-private")
WATCH_SECONDS: Final = 0.5
SECRET_CHARS_MAX: Final = 512

_log = structlog.get_logger(__name__)


class Key(msgspec.Struct, frozen=True):
    """An authenticated key. `private` may do everything, `public` sends events and reads GraphQL."""

    id: str
    right: Right
    quotas: KeyQuotas | None = None
    """What it may ask for; None: as much as it likes."""

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
    @property
    def requests_per_second(self) -> float | None: ...
    @property
    def events_per_second(self) -> float | None: ...


class KeySource(Protocol):
    """Where stored keys come from that are not in a file."""

    async def changed(self) -> Mapping[str, HashedKey] | None:
        """All stored keys by id; None if they are those of the last call. Raises StoreUnavailable, Overloaded.

        What it raises, it raises before it takes what it has read for known.
        """


_Signature = tuple[int, int, int] | None


class _Entry(NamedTuple):
    """A key that is in force."""

    key: Key
    salt: bytes
    sha256: bytes

    @property
    def identity(self) -> tuple[str, bytes, bytes]:
        """What makes it the same key before and after a change of the key file."""
        return self.key.id, self.salt, self.sha256


class Keyring:
    """All keys in force: those of the configuration and those of the key file."""

    def __init__(
        self,
        configured: Mapping[str, HashedKey],
        path: Path | None = None,
        rates: RatesSettings | None = None,
        clock: Clock = time.monotonic,
        source: KeySource | None = None,
    ) -> None:
        """path: the key file; it need not exist. rates: for keys without figures of their own. clock: of the quotas.
        source: of stored keys in the place of a file; they are in force from the first `refresh` on.

        Raises KeyFileError if the file exists and cannot be read.
        """
        self._rates = rates or RatesSettings()
        self._clock = clock
        self._entries: list[_Entry] = []
        self._configured = [self._entry(key_id, key) for key_id, key in configured.items()]
        self._path = path
        self._source = source
        self._problem: str | None = None
        # Copied for each secret: faster than keying a new hash.
        self._keyed = hashlib.blake2b(key=secrets.token_bytes(32), digest_size=16)
        self._known: dict[bytes, _Entry] = {}
        self._entries = self._configured
        self._seen = _signature(path)
        self._complained: tuple[_Signature, str] | None = None
        if path is not None:
            self._adopt(keyfile.read(path))

    def __len__(self) -> int:
        return len(self._entries)

    def authenticate(self, secret: str | None) -> Key | None:
        """The key of `secret`, or None if there is no such key."""
        return self.remembered(secret) or self.search(secret)

    def remembered(self, secret: str | None) -> Key | None:
        """The key of `secret` if it was found before: one hash, whatever the number of keys."""
        if not secret or len(secret) > SECRET_CHARS_MAX:
            return None
        entry = self._known.get(self._name_of(secret))
        return entry and entry.key

    def search(self, secret: str | None) -> Key | None:
        """The key of `secret`, compared with every key; it is remembered."""
        if not secret or len(secret) > SECRET_CHARS_MAX:
            return None
        found = None
        for entry in self._entries:
            if hmac.compare_digest(keyfile.hash_of(entry.salt, secret), entry.sha256):
                found = entry
        if found is None:
            return None
        self._known[self._name_of(secret)] = found
        return found.key

    def development_keys(self) -> list[str]:
        """Ids of the keys whose secret everybody knows; they must not be served beyond loopback."""
        found = (self.authenticate(secret) for secret in DEVELOPMENT_SECRETS)
        return [key.id for key in found if key is not None]

    def refresh_if_changed(self) -> bool:
        """Read the key file again if it is another one than last time. Cheap: one stat. True if keys were read."""
        signature = _signature(self._path)
        if self._path is None or signature == self._seen:
            return False
        try:
            self._adopt(keyfile.read(self._path))
        except KeyFileError as error:
            # It is tried again each time: what kept it from being read may pass without a change of the file.
            if (signature, str(error)) != self._complained:
                self._complained = signature, str(error)
                _log.error("key file not read, the former keys stay in force", reason=str(error))
            return False
        self._seen, self._complained = signature, None
        _log.info("keys read again", keys=len(self._entries))
        return True

    async def refresh(self) -> None:
        """Ask the source, or where there is none read the key file if it is another one."""
        if self._source is None:
            self.refresh_if_changed()
            return
        try:
            stored = await self._source.changed()
        except Refusal as refusal:
            if refusal.message != self._problem:
                _log.error("keys not read, the former keys stay in force", reason=refusal.message)
            self._problem = refusal.message
            return
        self._problem = None
        if stored is not None:
            self._adopt(stored)
            _log.info("keys read again", keys=len(self._entries))

    async def watch(self) -> None:
        """Keep the keys fresh until cancelled; a change is seen within a second."""
        while True:
            await trio.sleep(WATCH_SECONDS)
            await self.refresh()

    def _adopt(self, stored: Mapping[str, HashedKey]) -> None:
        self._entries = [*self._configured, *(self._entry(key_id, key) for key_id, key in stored.items())]
        present = {entry.identity: entry for entry in self._entries}
        kept = ((name, present.get(entry.identity)) for name, entry in self._known.items())
        self._known = {name: entry for name, entry in kept if entry is not None}

    def _name_of(self, secret: str) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(secret.encode())
        return keyed.digest()

    def _entry(self, key_id: str, key: HashedKey) -> _Entry:
        quotas = self._quotas(key_id, key)
        return _Entry(Key(key_id, key.right, quotas), bytes.fromhex(key.salt), bytes.fromhex(key.sha256))

    def _quotas(self, key_id: str, key: HashedKey) -> KeyQuotas | None:
        """The key's quotas; those that it has already if nothing changed, so that reading the file refills nothing."""
        requests, events = key.requests_per_second, key.events_per_second
        requests = self._rates.requests_per_second if requests is None else requests
        events = self._rates.events_per_second if events is None else events
        if not requests and not events:
            return None
        made = KeyQuotas(requests, events, self._rates.burst_seconds, self._clock)
        former = (entry.key.quotas for entry in self._entries if entry.key.id == key_id)
        return next((quotas for quotas in former if quotas is not None and quotas.figures == made.figures), made)


def _signature(path: Path | None) -> _Signature:
    """What changes when the file is replaced; None if there is no file."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
