"""What all sections of the settings are made of: units, ranges that several share, and their common base."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

# LMDB maps are made of pages; a map that is no multiple of the page is rounded in ways that differ by platform.
PAGE_BYTES = 4096

Seconds = Annotated[float, Meta(gt=0, le=3_600)]
PerSecond = Annotated[float, Meta(ge=0, le=10_000_000)]
MapBytes = Annotated[int, Meta(ge=MIB, le=16 * TIB, multiple_of=PAGE_BYTES)]
BodyBytes = Annotated[int, Meta(ge=KIB, le=GIB)]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all sections share: immutable, named fields only, nothing unknown."""


def host_and_port(text: str) -> tuple[str, int]:
    """HOST:PORT, the IPv6 host without its brackets. Raises ValueError where it is neither."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not host or (":" in host) != bracketed:
        raise ValueError('expected HOST:PORT, an IPv6 host in brackets ("127.0.0.1:8080", "[::1]:8080")')
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535):
        raise ValueError("expected a port from 0 to 65535 after the last colon (0: any free port)")
    return host, int(port)
