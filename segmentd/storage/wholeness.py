"""Is the file of an LMDB environment all there? Looked at before LMDB maps it: a page past the end is a SIGBUS.

Owns LMDB's file format (version 1, 64 bits, little endian) as far as that needs it. Never writes. Invariants:
(1) a file that reaches the last page that its newer meta page names costs two small reads; (2) a shorter one is refused
only if a page that is in use is missing, as LMDB may number pages at the end that it never writes.
"""

import os
from pathlib import Path
from struct import Struct, error
from typing import Final

from segmentd.storage.errors import FolderUnusableError

_NODE: Final = Struct("<HHHH")
_U64: Final = Struct("<Q")
_HEADER_BYTES: Final = 16
_DB_BYTES: Final = 48
_BRANCH, _LEAF, _META_PAGE = 0x01, 0x02, 0x08
_BIG, _SUB = 0x01, 0x02
_MAGIC: Final = 0xBEEFC0DE
_NO_PAGE: Final = (1 << 64) - 1
_WHAT_TO_DO: Final = "restore a backup (`segmentd restore`) into a new folder, or put the whole file back"


def require_present(folder: Path) -> None:
    """Raises FolderUnusableError: data.mdb is absent or empty. LMDB would make a new, empty store of it."""
    path = folder / "data.mdb"
    try:
        if path.stat().st_size:
            return
    except FileNotFoundError:
        raise _damaged(path, "it is not there") from None
    except OSError as reason:
        raise FolderUnusableError(f"{path}: {reason.strerror or reason}") from reason
    raise _damaged(path, "it is empty")


def require_whole(folder: Path) -> None:
    """Raises FolderUnusableError: data.mdb is damaged or cut off. An absent or empty one is left to LMDB."""
    path = folder / "data.mdb"
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        if os.fstat(handle).st_size:
            _look(handle, path)
    except (error, OSError) as reason:
        raise _damaged(path, f"its pages cannot be read ({reason})") from reason
    finally:
        os.close(handle)


def _look(handle: int, path: Path) -> None:
    first = _meta(handle, path, 0)
    page_bytes = first[0]
    newest = max(first, _meta(handle, path, page_bytes), key=lambda meta: meta[4])
    _, free_root, main_root, last_page, _ = newest
    size = os.fstat(handle).st_size
    if size >= (last_page + 1) * page_bytes:
        return
    missing = _missing(handle, page_bytes, [free_root, main_root])
    if missing is not None:
        raise _damaged(path, f"it has {size} bytes, and page {missing} of {last_page + 1} is missing")


def _meta(handle: int, path: Path, offset: int) -> tuple[int, int, int, int, int]:
    """(page size, root of the free list, root of the rest, last page, transaction) of a meta page."""
    read = os.pread(handle, 152, offset)
    if len(read) < 152:
        raise _damaged(path, f"it has only {os.fstat(handle).st_size} bytes")
    page_bytes = int.from_bytes(read[40:44], "little")
    is_meta = int.from_bytes(read[10:12], "little") & _META_PAGE
    if not is_meta or int.from_bytes(read[16:20], "little") != _MAGIC or not 512 <= page_bytes <= 65_536:
        raise _damaged(path, f"the meta page at byte {offset} is garbled")
    free_root, main_root, last_page, txn = (_U64.unpack_from(read, at)[0] for at in (80, 128, 136, 144))
    return page_bytes, free_root, main_root, last_page, txn


def _missing(handle: int, page_bytes: int, roots: list[int]) -> int | None:
    """The first page in use that is past the end of the file, if there is one."""
    waiting, seen = [(root, 1) for root in roots], set[int]()
    while waiting:
        page, pages = waiting.pop()
        if page == _NO_PAGE or page in seen:
            continue
        seen.add(page)
        if (page + pages) * page_bytes > os.fstat(handle).st_size:
            return page
        content = os.pread(handle, page_bytes, page * page_bytes)
        waiting += _referred(content, page_bytes)
    return None


def _referred(content: bytes, page_bytes: int) -> list[tuple[int, int]]:
    """(page, how many) that the nodes of a page refer to."""
    flags = int.from_bytes(content[10:12], "little")
    if not flags & (_BRANCH | _LEAF):
        return []
    found = []
    for at in range(_HEADER_BYTES, int.from_bytes(content[12:14], "little"), 2):
        node = int.from_bytes(content[at : at + 2], "little")
        low, high, node_flags, key_bytes = _NODE.unpack_from(content, node)
        if flags & _BRANCH:
            found.append((low | high << 16 | node_flags << 32, 1))
        elif node_flags & _BIG:
            pages = -(-(_HEADER_BYTES + (low | high << 16)) // page_bytes)
            found.append((_U64.unpack_from(content, node + 8 + key_bytes)[0], pages))
        elif node_flags & _SUB:
            found.append((_U64.unpack_from(content, node + 8 + key_bytes + _DB_BYTES - 8)[0], 1))
    return found


def _damaged(path: Path, reason: str) -> FolderUnusableError:
    return FolderUnusableError(f"{path}: is damaged: {reason}; {_WHAT_TO_DO}")
