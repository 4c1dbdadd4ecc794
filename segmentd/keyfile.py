"""The file `keys.json` in the data folder: API keys that are made, listed and revoked while the server runs.

Owns the file's format and every write to it. Never sees a request, and never stores a secret: `create` returns it once.

Invariants:
1. A secret is known only as sha256(salt + secret); salt and secret have 128 bits or more from the operating system.
   A plain hash is enough because nobody can try 2**128 secrets; passwords are another matter and not used here.
2. The file is replaced whole by an atomic rename, has mode 0600, and is fsynced: a reader sees the old one or the new.
3. Writers take turns through a lock file, so that two `segmentd keys create` at once lose nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Protocol

import msgspec

FILE_NAME: Final = "keys.json"
FORMAT_VERSION: Final = 1
SECRET_BYTES: Final = 24  # 192 bits: 32 characters of URL-safe base64 without padding
SALT_BYTES: Final = 16
KEYS_MAX: Final = 1_000  # every key costs one hash for each unknown secret that somebody tries
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

Right = Literal["public", "private"]


class KeyStoreError(Exception):
    """Stored keys cannot be read, or do not allow what was asked. The message names the place and the reason."""


class KeyFileError(KeyStoreError):
    """The same of a key file."""


class Rates(NamedTuple):
    """What a key may ask for in a second, 0 for no limit; None: what the configuration says for all keys."""

    requests_per_second: float | None = None
    events_per_second: float | None = None


_UNSAID: Final = Rates()


class StoredKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key as it lies on disk."""

    right: Right
    salt: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2}){8,64}$")]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    created: str
    """UTC, ISO 8601 with seconds."""
    requests_per_second: Annotated[float, msgspec.Meta(ge=0)] | None = None
    events_per_second: Annotated[float, msgspec.Meta(ge=0)] | None = None


class KeyStore(Protocol):
    """Where keys are made, listed and revoked. All calls block, and raise KeyStoreError."""

    @property
    def place(self) -> str:
        """What people call it."""

    def list_keys(self) -> list[tuple[str, StoredKey]]:
        """(id, key) of every key, by id."""

    def create(self, right: Right, key_id: str | None = None, rates: Rates = ...) -> tuple[str, str]:
        """Make a key, see `create` of this module; returns (id, secret). At most KEYS_MAX."""

    def revoke(self, key_id: str) -> None:
        """Remove a key; running servers stop accepting it within a second."""


class _KeyFile(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    keys: dict[str, StoredKey]


def hash_of(salt: bytes, secret: str) -> bytes:
    """sha256 over the salt's bytes and the secret in UTF-8."""
    return hashlib.sha256(salt + secret.encode()).digest()


def path_in(folder: Path) -> Path:
    """Where the key file of a data folder is."""
    return folder / FILE_NAME


def read(path: Path) -> dict[str, StoredKey]:
    """The keys by id; empty if there is no file. Raises KeyFileError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        version = msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get("version")
        if version is None or bytes(version) != str(FORMAT_VERSION).encode():
            found = "none" if version is None else bytes(version).decode()
            raise KeyFileError(f"{path}: version {found} is not the version {FORMAT_VERSION} that is read here")
        return msgspec.json.decode(raw, type=_KeyFile).keys
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: is no key file: {error}") from error


def list_keys(path: Path) -> list[tuple[str, StoredKey]]:
    """(id, key) of every key, by id. Raises KeyFileError."""
    return sorted(read(path).items())


def create(path: Path, right: Right, key_id: str | None = None, rates: Rates = _UNSAID) -> tuple[str, str]:
    """Make a key and return (id, secret); the secret is not kept anywhere.

    key_id: 1..64 letters, digits, _ or -; chosen at random if None. The folder of `path` is made if it is missing.
    Raises KeyFileError: the id is taken or not allowed, or the file cannot be read or written.
    """
    made = new_key(right, key_id, rates)
    if made is None:
        raise KeyFileError(f"{path}: the key id {key_id!r} is not 1 to 64 letters, digits, _ or -")
    with _locked(path):
        keys = read(path)
        if made.id in keys:
            raise KeyFileError(f"{path}: there is a key {made.id!r} already")
        if len(keys) >= KEYS_MAX:
            raise KeyFileError(f"{path}: holds {len(keys)} keys; at most {KEYS_MAX} are allowed")
        _replace(path, {**keys, made.id: made.stored})
    return made.id, made.secret


class NewKey(NamedTuple):
    """A key that is stored nowhere yet."""

    id: str
    secret: str
    stored: StoredKey


def new_key(right: Right, key_id: str | None, rates: Rates) -> NewKey | None:
    """A key with a new secret, whatever it is stored in; None for an id that is not allowed."""
    key_id = secrets.token_hex(4) if key_id is None else key_id
    if not _KEY_ID.fullmatch(key_id):
        return None
    secret, salt = secrets.token_urlsafe(SECRET_BYTES), secrets.token_bytes(SALT_BYTES)
    stored = StoredKey(
        right=right,
        salt=salt.hex(),
        sha256=hash_of(salt, secret).hex(),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        requests_per_second=rates.requests_per_second,
        events_per_second=rates.events_per_second,
    )
    return NewKey(key_id, secret, stored)


def add(path: Path, keys: Mapping[str, StoredKey]) -> None:
    """Have these keys too; an id that is taken stays as it is. Raises KeyFileError."""
    if not keys:
        return
    with _locked(path):
        all_keys = {**keys, **read(path)}
        if len(all_keys) > KEYS_MAX:
            raise KeyFileError(f"{path}: there would be {len(all_keys)} keys; at most {KEYS_MAX} are allowed")
        _replace(path, all_keys)


def revoke(path: Path, key_id: str) -> None:
    """Remove a key; a running server stops accepting it within a second. Raises KeyFileError if there is none."""
    with _locked(path):
        keys = read(path)
        if key_id not in keys:
            raise KeyFileError(f"{path}: there is no key {key_id!r}")
        _replace(path, {name: key for name, key in keys.items() if name != key_id})


class KeyFile:
    """The key file of a data folder; implements KeyStore."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = str(path)

    def list_keys(self) -> list[tuple[str, StoredKey]]:
        """See KeyStore."""
        return list_keys(self._path)

    def create(self, right: Right, key_id: str | None = None, rates: Rates = _UNSAID) -> tuple[str, str]:
        """See KeyStore."""
        return create(self._path, right, key_id, rates)

    def revoke(self, key_id: str) -> None:
        """See KeyStore."""
        revoke(self._path, key_id)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, keys: dict[str, StoredKey]) -> None:
    """Write the file whole: beside it first, then in its place."""
    encoded = msgspec.json.encode(_KeyFile(version=FORMAT_VERSION, keys=dict(sorted(keys.items()))))
    beside = path.with_name(path.name + ".new")
    try:
        with os.fdopen(os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(msgspec.json.format(encoded, indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from error
