"""Compressed bodies: inflate them, but never past a bound.

Owns `Content-Encoding`. zstd is offered where the library `zstandard` is installed (an extra), gzip always.

Invariants:
1. Never more than the bound and one step are held, whatever the compressed bytes promise.
2. At most `MEMBERS_MAX` members: each one costs a copy of what follows, so thousands of empty ones would be a bomb too.
3. A stream that ends early, or has anything but more members behind it, is malformed; half a body is never used.
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Callable
from typing import Final

from segmentd.domain.refusals import MalformedBody, TooLarge, UnsupportedMediaType

_GZIP_WINDOW_BITS: Final = 31  # zlib's way to say: 32 KiB window, gzip header and checksum (RFC 1952)
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_WINDOW_BYTES_MAX: Final = 8 << 20  # what RFC 8878 asks every decoder to support
MEMBERS_MAX: Final = 64
_HAS_ZSTD: Final = importlib.util.find_spec("zstandard") is not None

ENCODINGS: Final = ("gzip", "zstd", "identity") if _HAS_ZSTD else ("gzip", "identity")


def inflate(body: bytes, encoding: str | None, *, limit_bytes: int, limit_name: str) -> bytes:
    """The body without its `Content-Encoding`.

    limit_bytes: how large it may become; `limit_name` is the setting that says so.
    Raises UnsupportedMediaType, TooLarge, MalformedBody.
    """
    if not encoding:
        return body
    wanted = [name for part in encoding.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if not wanted:
        return body
    if len(wanted) > 1 or wanted[0] not in _READERS:
        raise UnsupportedMediaType(
            f"Content-Encoding {encoding[:100]} is not read here; accepted: {', '.join(ENCODINGS)}, at most one."
        )
    inflated = _READERS[wanted[0]](body, limit_bytes)
    if len(inflated) > limit_bytes:
        raise TooLarge(
            f"The body inflates to more than {limit_bytes} bytes ([limits] {limit_name}).", limit_name, limit_bytes
        )
    return inflated


def _gunzip(body: bytes, limit_bytes: int) -> bytes:
    """All members of `body`; stops one byte past the bound."""
    inflated = bytearray()
    rest = body
    for _ in range(MEMBERS_MAX):
        member = zlib.decompressobj(_GZIP_WINDOW_BITS)
        try:
            inflated += member.decompress(rest, limit_bytes + 1 - len(inflated))
        except zlib.error as error:
            raise MalformedBody(f"The body is no valid gzip: {error}.") from None
        if len(inflated) > limit_bytes:
            return bytes(inflated)
        if not member.eof:
            raise MalformedBody("The body is no valid gzip: it ends too early.")
        rest = member.unused_data
        if not rest.strip(b"\x00"):  # gzip files may be padded with zeros
            return bytes(inflated)
        if not rest.startswith(_GZIP_MAGIC):
            raise MalformedBody("The body is no valid gzip: other bytes follow after its end.")
    raise MalformedBody(f"The body has more than {MEMBERS_MAX} gzip members.")


def _unzstd(body: bytes, limit_bytes: int) -> bytes:
    """All frames of `body`; stops one byte past the bound."""
    import zstandard  # noqa: PLC0415  # an extra; without it this function is not reachable

    try:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX)
        # The reader is bounded but takes a torn frame for an end; the object below notices it but is not bounded.
        with decompressor.stream_reader(body, read_across_frames=True) as reader:
            inflated = reader.read(limit_bytes + 1)
        if len(inflated) > limit_bytes:
            return inflated
        rest = body
        for _ in range(MEMBERS_MAX):
            frame = decompressor.decompressobj()
            frame.decompress(rest)
            if not frame.eof:
                raise MalformedBody("The body is no valid zstd: it ends too early.")
            rest = frame.unused_data
            if not rest:
                return inflated
    except zstandard.ZstdError as error:
        raise MalformedBody(f"The body is no valid zstd: {error}.") from None
    raise MalformedBody(f"The body has more than {MEMBERS_MAX} zstd frames.")


_READERS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    **({"zstd": _unzstd} if _HAS_ZSTD else {}),
}
