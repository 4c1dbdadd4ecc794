"""What can refuse a start, and is opened before everything else: the port, certificates, keys, traces.

Owns the messages that name the setting. What is opened here is closed by whoever runs it.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

import structlog

from segmentd.http.auth import Keyring, KeySource
from segmentd.http.server import open_free_listener
from segmentd.http.tls import CertificateError, Certificates
from segmentd.keyfile import KeyFileError, path_in
from segmentd.settings import Settings
from segmentd.storekind import StartError
from segmentd.telemetry import Telemetry
from segmentd.tracedparts import Traces, open_traces
from segmentd.tracing import TracesUnusableError

# The followers of an owner that was killed have its port until they notice, which is within a second.
_LEFTOVER_SECONDS_MAX: Final = 2.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def open_listener(settings: Settings) -> socket.socket:
    host, port = settings.server.address
    patience = _LEFTOVER_SECONDS_MAX if settings.server.followers else 0.0
    try:
        return open_free_listener(host, port, settings.server.connections_max, patience)
    except OSError as error:
        raise StartError(f"[server] listen = {settings.server.listen}: {error.strerror or error}") from error


def open_owners_traces(settings: Settings, telemetry: Telemetry) -> Traces:
    try:
        return open_traces(settings.traces, "owner", telemetry)
    except TracesUnusableError as error:
        raise StartError(str(error)) from error


def open_certificates(settings: Settings) -> Certificates | None:
    if not settings.server.is_tls:
        return None
    try:
        return Certificates(settings.server)
    except CertificateError as error:
        raise StartError(str(error)) from error


def open_keyring(settings: Settings, source: KeySource | None) -> Keyring:
    """All keys; the stored ones from `source`, or from the key file.

    Refuses keys that everybody knows on an address that others can reach.
    """
    try:
        path = path_in(Path(settings.storage.path)) if source is None else None
        keyring = Keyring(settings.keys, path, settings.rates, source=source)
    except KeyFileError as error:
        raise StartError(str(error)) from error
    well_known = keyring.development_keys()
    if well_known and not settings.server.is_loopback:
        raise StartError(
            f"[server] listen = {settings.server.listen}: the development keys ({', '.join(well_known)}) are known to"
            " everybody and are served on loopback only; make keys of your own with `segmentd keys create`"
        )
    if not len(keyring) and source is None:
        log.warning("there are no keys, so every request is refused; make one with `segmentd keys create`")
    return keyring
