"""API keys in the cluster: entries of the registry, hashes only, as in the key file."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import msgspec

from segmentd.cluster.connected import Connected
from segmentd.cluster.registry import ConflictError, Entry, Registry
from segmentd.cluster.session import VisitError, visit
from segmentd.keyfile import KEYS_MAX, KeyStoreError, NewKey, Rates, Right, StoredKey, new_key
from segmentd.settings import Settings

KEY: Final = b"k:"
T = TypeVar("T")
_REVOKED: Final = b""


class ClusterKeySource:
    """Keys for a node; implements `segmentd.http.auth.KeySource`. The registry is asked by its own task."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._has_changed = True
        registry.on_entry.append(self._take)

    async def changed(self) -> Mapping[str, StoredKey] | None:
        """See KeySource."""
        if not self._has_changed:
            return None
        self._has_changed = False
        return stored_keys(self._registry)

    def _take(self, entry: Entry) -> None:
        self._has_changed |= entry.field.startswith(KEY)


class ClusterKeyStore:
    """Keys for the command line; implements `segmentd.keyfile.KeyStore`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.place = f"the cluster at {', '.join(settings.store.addresses)}"

    def list_keys(self) -> list[tuple[str, StoredKey]]:
        """See KeyStore."""

        async def listed(connected: Connected) -> list[tuple[str, StoredKey]]:
            return sorted(stored_keys(connected.registry).items())

        return self._visit(listed)

    def create(self, right: Right, key_id: str | None = None, rates: Rates = Rates()) -> tuple[str, str]:  # noqa: B008
        """See KeyStore."""
        made = new_key(right, key_id, rates)
        if made is None:
            raise KeyStoreError(f"the key id {key_id!r} is not 1 to 64 letters, digits, _ or -")
        if not self._visit(lambda connected: _create(connected.registry, made)):
            raise KeyStoreError(f"{self.place}: there is a key {made.id!r} already, or {KEYS_MAX} keys in all")
        return made.id, made.secret

    def revoke(self, key_id: str) -> None:
        """See KeyStore."""
        if not self._visit(lambda connected: _revoke(connected.registry, key_id)):
            raise KeyStoreError(f"{self.place}: there is no key {key_id!r}")

    def _visit(self, act: Callable[[Connected], Awaitable[T]]) -> T:
        try:
            return visit(self._settings, act)
        except VisitError as error:
            raise KeyStoreError(f"{self.place}: {error}") from error


def stored_keys(registry: Registry) -> dict[str, StoredKey]:
    """All keys that are in force, by id."""
    return {
        entry.field.removeprefix(KEY).decode(): msgspec.json.decode(entry.payload, type=StoredKey)
        for entry in registry.entries(KEY)
        if entry.payload != _REVOKED
    }


def key_entry(key_id: str, stored: StoredKey, rank: int) -> Entry:
    """A key. rank: one more than what its id has now."""
    return Entry(KEY + key_id.encode(), rank, msgspec.json.encode(stored))


async def _create(registry: Registry, made: NewKey) -> bool:
    keys = stored_keys(registry)
    if made.id in keys or len(keys) >= KEYS_MAX:
        return False
    rank = registry.rank(KEY + made.id.encode())
    try:
        await registry.register([key_entry(made.id, made.stored, rank + 1)._replace(expected=rank)])
    except ConflictError:
        return False
    return True


async def _revoke(registry: Registry, key_id: str) -> bool:
    held = registry.get(KEY + key_id.encode())
    if held is None or held[1] == _REVOKED:
        return False
    await registry.register([Entry(KEY + key_id.encode(), held[0] + 1, _REVOKED)])
    return True
