"""Settings that are each in range but cannot stand together.

Owns the comparisons between settings, and what no range can say (names, addresses). Pure: no file, no environment.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from segmentd.settings.model import Settings

# The kind of an identifier is one byte on disk, and the number of a name that was dropped is not used again.
IDENTIFIERS_MAX = 200

# A GraphQL name; it becomes an argument, and once more with a leading underscore. It begins with a letter itself,
# so that no two of these collide and none begins with the two underscores that GraphQL reserves.
IDENTIFIER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

# The secrets of config/development.toml. They are public knowledge, so they may serve this machine alone.
DEVELOPMENT_SECRETS = (b"dev-public", b"dev-private")


class Conflict(NamedTuple):
    """A contradiction, and the setting where the user would mend it. `key` is empty for a whole table."""

    section: str
    key: str
    reason: str


def conflicts(settings: Settings) -> Iterator[Conflict]:
    """Every contradiction in `settings`, in the order of the sections."""
    yield from _server(settings)
    yield from _identifiers(settings)
    yield from _limits(settings)
    yield from _runtime(settings)
    yield from _storage(settings)
    yield from _store(settings)
    yield from _imports(settings)
    yield from _keys(settings)


def _server(settings: Settings) -> Iterator[Conflict]:
    if bool(settings.server.tls_certificate_file) != bool(settings.server.tls_key_file):
        key = "tls_key_file" if settings.server.tls_certificate_file else "tls_certificate_file"
        yield Conflict("server", key, "tls_certificate_file and tls_key_file are both needed for TLS")
    yield from _followers(settings)
    try:
        loopback = settings.server.is_loopback
    except ValueError as error:
        yield Conflict("server", "listen", f"{error} (got {settings.server.listen!r})")
        return
    if not loopback:
        for key_id in _development_keys(settings):
            reason = f"is not a loopback address, and the development key {key_id!r} serves loopback only"
            yield Conflict("server", "listen", f"{settings.server.listen} {reason}")


def _followers(settings: Settings) -> Iterator[Conflict]:
    server = settings.server
    if not server.followers:
        return
    if not server.lane or server.is_tls:
        reason = "followers serve the lane, so lane = true is needed, and TLS in front of segmentd instead of in it"
        yield Conflict("server", "followers", reason)
    # Each process may be about to accept one more, and one more process runs while another one is replaced.
    if server.connections_max < 2 * (server.followers + 2):
        reason = f"expected at least {2 * (server.followers + 2)} for {server.followers} followers"
        yield Conflict("server", "connections_max", f"{reason}, got {server.connections_max}")


def _development_keys(settings: Settings) -> Iterator[str]:
    for key_id, key in settings.keys.items():
        salt = bytes.fromhex(key.salt)
        if any(hashlib.sha256(salt + secret).hexdigest() == key.sha256 for secret in DEVELOPMENT_SECRETS):
            yield key_id


def _identifiers(settings: Settings) -> Iterator[Conflict]:
    for name in settings.identifiers:
        if not IDENTIFIER_NAME.fullmatch(name):
            yield Conflict(
                "identifiers", name, "expected a name of 1 to 64 letters, digits and underscores, first a letter"
            )
    if len(settings.identifiers) > IDENTIFIERS_MAX:
        yield Conflict(
            "identifiers", "", f"expected at most {IDENTIFIERS_MAX} identifiers, got {len(settings.identifiers)}"
        )
    if not any(identifier.confidence == "high" for identifier in settings.identifiers.values()):
        yield Conflict("identifiers", "", 'expected at least one identifier with confidence = "high"')


def _limits(settings: Settings) -> Iterator[Conflict]:
    limits = settings.limits
    if limits.events_inflated_bytes_max < limits.events_body_bytes_max:
        reason = f"expected at least events_body_bytes_max ({limits.events_body_bytes_max})"
        yield Conflict("limits", "events_inflated_bytes_max", f"{reason}, got {limits.events_inflated_bytes_max}")
    for name, bound in _body_bounds(settings).items():
        if limits.bodies_bytes_max < bound:
            reason = f"expected at least {name} ({bound})"
            yield Conflict("limits", "bodies_bytes_max", f"{reason}, got {limits.bodies_bytes_max}")
    if settings.graphql.document_bytes_max > limits.graphql_body_bytes_max:
        reason = f"expected at most [limits] graphql_body_bytes_max ({limits.graphql_body_bytes_max})"
        yield Conflict("graphql", "document_bytes_max", f"{reason}, got {settings.graphql.document_bytes_max}")


def _body_bounds(settings: Settings) -> dict[str, int]:
    limits = settings.limits
    return {
        "events_body_bytes_max": limits.events_body_bytes_max,
        "segments_body_bytes_max": limits.segments_body_bytes_max,
        "graphql_body_bytes_max": limits.graphql_body_bytes_max,
        "[compliance] body_bytes_max": settings.compliance.body_bytes_max,
    }


def _runtime(settings: Settings) -> Iterator[Conflict]:
    runtime = settings.runtime
    # A request is one journal record, so it has to fit into one group.
    if runtime.group_changes_max < settings.limits.events_per_request_max:
        reason = f"expected at least [limits] events_per_request_max ({settings.limits.events_per_request_max})"
        yield Conflict("runtime", "group_changes_max", f"{reason}, got {runtime.group_changes_max}")
    if runtime.commit_queue_changes_max < runtime.group_changes_max:
        reason = f"expected at least group_changes_max ({runtime.group_changes_max})"
        yield Conflict("runtime", "commit_queue_changes_max", f"{reason}, got {runtime.commit_queue_changes_max}")


def _storage(settings: Settings) -> Iterator[Conflict]:
    storage = settings.storage
    if "\0" in storage.path:
        yield Conflict("storage", "path", "expected a path without NUL")
    # The map also holds LMDB's own pages and the copies that a transaction makes.
    if storage.journal_bytes_max >= storage.journal_map_bytes:
        reason = f"expected less than journal_map_bytes ({storage.journal_map_bytes})"
        yield Conflict("storage", "journal_bytes_max", f"{reason}, got {storage.journal_bytes_max}")
    if storage.checkpoint_journal_bytes > storage.journal_bytes_max:
        reason = f"expected at most journal_bytes_max ({storage.journal_bytes_max})"
        yield Conflict("storage", "checkpoint_journal_bytes", f"{reason}, got {storage.checkpoint_journal_bytes}")


def _store(settings: Settings) -> Iterator[Conflict]:
    store = settings.store
    try:
        addresses = store.hosts_and_ports
    except ValueError as error:
        yield Conflict("store", "addresses", str(error))
        return
    if store.is_cluster:
        if not addresses:
            yield Conflict("store", "addresses", 'kind = "cluster" needs the address of at least one server')
        if settings.server.followers:
            yield Conflict("server", "followers", 'must be 0 with [store] kind = "cluster"; run more nodes instead')
        if store.acknowledge_seconds_max <= store.answer_seconds_max:
            yield Conflict("store", "acknowledge_seconds_max", "must be more than answer_seconds_max")
    if not store.tls and (store.tls_ca_file or store.tls_certificate_file):
        yield Conflict("store", "tls", "must be true where certificates are given")
    if bool(store.tls_certificate_file) != bool(store.tls_key_file):
        key = "tls_key_file" if store.tls_certificate_file else "tls_certificate_file"
        yield Conflict("store", key, "tls_certificate_file and tls_key_file are both needed")


def _imports(settings: Settings) -> Iterator[Conflict]:
    imports = settings.imports
    if imports.slice_changes > settings.runtime.group_changes_max:
        reason = f"expected at most [runtime] group_changes_max ({settings.runtime.group_changes_max})"
        yield Conflict("imports", "slice_changes", f"{reason}, got {imports.slice_changes}")
    if "\0" in imports.watch_folder:
        yield Conflict("imports", "watch_folder", "expected a path without NUL")
    incoming = imports.s3_prefix
    for key, prefix in (("s3_done_prefix", imports.s3_done_prefix), ("s3_failed_prefix", imports.s3_failed_prefix)):
        # What is put away must not be found again.
        if prefix.startswith(incoming) or not prefix:
            yield Conflict("imports", key, f"must not be empty or lie in s3_prefix ({incoming!r}), got {prefix!r}")


def _keys(settings: Settings) -> Iterator[Conflict]:
    for key_id in settings.keys:
        if not KEY_ID.fullmatch(key_id):
            yield Conflict("keys", key_id, "expected an id of 1 to 64 letters, digits, _ or -")
