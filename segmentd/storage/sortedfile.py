"""Sorting more values than fit into memory: sorted runs in files, merged into one file of distinct values.

A value is UTF-8 without control characters, so a line feed ends it, and comparing lines compares values. One value a
line makes reading and merging work that stays in C. Invariants: (1) at most `RUN_VALUES` values are in memory;
(2) the finished file is on disk (fsync) when `finish` returns; (3) at most `RUNS_MAX` + 1 files are open.
"""

import heapq
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

RUN_VALUES: Final = 400_000
"""About 50 MB as Python objects, 100 bytes and more each."""
RUNS_MAX: Final = 64
_WRITE_LINES: Final = 10_000
_BUFFER_BYTES: Final = 1 << 18


class DistinctValues:
    """Takes values in any order, and writes each once, ascending, into `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: list[bytes] = []
        self._runs: list[Path] = []
        self._made = 0
        self.add = self._values.append
        """Take one value; call `turn` now and then."""

    def turn(self) -> None:
        """Make room if a run is full."""
        if len(self._values) >= RUN_VALUES:
            self._end_run()

    def finish(self) -> int:
        """Write the file; returns how many distinct values it has. Raises OSError."""
        lines = self._run_lines()
        count = self._merge(self._runs, lines, self._path)
        self._values.clear()
        return count

    def _run_lines(self) -> list[bytes]:
        return [value + b"\n" for value in sorted(set(self._values))]

    def _end_run(self) -> None:
        if len(self._runs) == RUNS_MAX:
            merged = self._run_path()
            self._merge(self._runs, [], merged)
            self._runs = [merged]
        path = self._run_path()
        lines = self._run_lines()
        self._values.clear()
        with path.open("wb", _BUFFER_BYTES) as out:
            out.writelines(lines)
        self._runs.append(path)

    def _run_path(self) -> Path:
        self._made += 1
        return self._path.with_name(f"{self._path.name}.run{self._made}")

    def _merge(self, runs: list[Path], more: Iterable[bytes], path: Path) -> int:
        """Merge sorted files and sorted lines into `path`, and remove the files."""
        files = [run.open("rb", _BUFFER_BYTES) for run in runs]
        count = 0
        try:
            with path.open("wb", _BUFFER_BYTES) as out:
                lines = (line for line, _ in itertools.groupby(heapq.merge(*files, more)))
                while batch := list(itertools.islice(lines, _WRITE_LINES)):
                    out.writelines(batch)
                    count += len(batch)
                out.flush()
                os.fsync(out.fileno())
        finally:
            for file in files:
                file.close()
        for run in runs:
            run.unlink()
        return count
