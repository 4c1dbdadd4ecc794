"""Who reads an LMDB environment now: what LMDB's table of readers says.

A reader that holds a snapshot keeps every page of it from being used again, so the file grows for as long as it does.
"""

from __future__ import annotations

import msgspec


class Reader(msgspec.Struct, frozen=True):
    """A snapshot that is held."""

    environment: str
    """`journal` or `index`."""
    pid: int
    thread: str
    txn: int
    """Number of the write transaction that it stands for."""


def readers_in(environment: str, table: str) -> list[Reader]:
    """Those that hold a snapshot. table: LMDB's own text, one line a slot: process, thread, transaction or "-"."""
    rows = [line.split() for line in table.splitlines()]
    return [
        Reader(environment, int(row[0]), row[1], int(row[2]))
        for row in rows
        if len(row) == 3 and row[0].isdigit() and row[2].isdigit()
    ]
