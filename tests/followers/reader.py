"""A follower's store in a process of its own, read over pipes: LMDB may be opened only once a process.

One JSON command a line on standard input, one JSON answer a line on standard output.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from segmentd.runtime.following import FollowingStore
from segmentd.settings import LimitsSettings, StorageSettings
from segmentd.storage.errors import StorageError
from segmentd.storage.visible import Visible

MAP_BYTES = 64 * 1024 * 1024


class Reader:
    """What the commands do."""

    def __init__(self) -> None:
        self.store: FollowingStore

    def open(self, path: str, page: str) -> None:
        descriptor = os.open(page, os.O_RDONLY)
        visible = Visible.of(descriptor)
        os.close(descriptor)
        storage = StorageSettings(path=path, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES)
        self.store = FollowingStore(Path(path), visible, storage=storage, limits=LimitsSettings())
        self.store.open()

    def read(self, keys: list[str], audiences: list[str]) -> dict[str, Any]:
        with self.store.reading():
            rows = {key: self.store.memberships(bytes.fromhex(key)) for key in keys}
            found = {key: self.store.lookup(bytes.fromhex(key), audiences) for key in keys}
            segments = {name: [one.revision, one.definition.external_audience_id] for name, one in self._segments()}
            return {"memberships": rows, "lookup": found, "segments": segments, "ids": self.store.segment_ids()}

    def _segments(self) -> Any:
        return self.store.segments.items()

    def catch_up(self) -> None:
        self.store.catch_up()

    def reopen(self, generation: str) -> None:
        self.store.reopen(generation)

    def stats(self) -> Any:
        return msgspec.to_builtins(self.store.stats())

    def kind_numbers(self, names: list[str]) -> dict[str, int]:
        return self.store.kind_numbers(names)

    def files(self) -> list[str]:
        """Every file under a data folder that this process has open or mapped."""
        maps = Path("/proc/self/maps").read_text().splitlines()
        return sorted({line.split(maxsplit=5)[5] for line in maps if ".mdb" in line})

    def close(self) -> None:
        self.store.close()


def main() -> None:
    """Until the end of input."""
    reader = Reader()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"answer": getattr(reader, name)(*arguments)}
        except StorageError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
