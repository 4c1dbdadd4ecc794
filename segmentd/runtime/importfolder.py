"""The watched folder: whoever can write a file can import.

```
<folder>/<audience id>.csv.gz        picked up once its size and time have stayed the same for two looks
<folder>/force/<audience id>.csv.gz  the same, and may disqualify however many it takes
<folder>/processing/                 where it is meanwhile; a forced one in force/ inside it
<folder>/done/, <folder>/failed/     where it goes, with <file>.report.json beside it
```

Names that begin with a dot or end with .part or .tmp are left alone. A file of the same name replaces the one before in
done/ and failed/, so that they do not grow for ever. Every step is a rename, so a crash leaves each file in one place;
what is in processing/ at the start is gone on with. A file that is put in once more is imported once more. One that
cannot be read goes to failed/; one that cannot even be moved is told of once and holds up no other.
"""

import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Final

import trio

from segmentd.runtime.importsources import FORCED, Delivery, Found, Importing, NotNowError, chunks_of
from segmentd.runtime.threads import in_thread
from segmentd.settings import ImportsSettings

_PROCESSING, _DONE, _FAILED = "processing", "done", "failed"
_UNFINISHED: Final = (".part", ".tmp")

Look = dict[str, tuple[int, int]]
"""File name, with `force/` before it where it is there → (size, time of the last change in ns)."""


class WatchedFolder:
    """An actor: `run` as its task."""

    def __init__(self, settings: ImportsSettings, importing: Importing) -> None:
        self._path = Path(settings.watch_folder)
        self._seconds = settings.watch_seconds
        self._importing = importing
        self._last: Look = {}
        self._left: set[str] | None = None
        """Names that an earlier process left in processing/; None before the first look."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                names = await in_thread(self._pick_up)
                self._importing.works(f"folder:{self._path}")
                for name in names:
                    await self._import(name)
            except OSError as error:
                self._importing.failed("the watched folder cannot be used", error, f"folder:{self._path}")
            await trio.sleep(self._seconds)

    def _pick_up(self) -> list[str]:
        """Move what is complete to processing/; the names of all that is there."""
        for folder in (FORCED, _PROCESSING, f"{_PROCESSING}/{FORCED}", _DONE, _FAILED):
            (self._path / folder).mkdir(exist_ok=True)
        if self._left is None:
            self._left = set(self._processing())
        look = self._look()
        for name in sorted(look):
            # Not over one that is still there: it comes first, and this one next time.
            if self._last.get(name) == look[name] and not (self._path / _PROCESSING / name).exists():
                self._begin(name, look[name])
        self._last = look
        return sorted(self._processing())

    def _begin(self, name: str, seen: tuple[int, int]) -> None:
        try:
            (self._path / name).rename(self._path / _PROCESSING / name)
        except FileNotFoundError:
            # Whoever put it there took it away again.
            return
        except OSError as error:
            # No reason to leave the others; this one is tried again at the next look.
            self._importing.failed("a file of the watched folder cannot be moved", error, _source(name, seen))

    def _processing(self) -> list[str]:
        return list(_files(self._path / _PROCESSING))

    def _look(self) -> Look:
        found: Look = {}
        for name in _files(self._path):
            base = name.rpartition("/")[2]
            if not base.startswith(".") and not base.endswith(_UNFINISHED) and (seen := self._seen(self._path, name)):
                found[name] = seen
        return found

    def _seen(self, folder: Path, name: str) -> tuple[int, int] | None:
        """Size and time; None if it is no file, or gone, or, which is told once, if they cannot be had."""
        path, place = folder / name, f"folder:{folder.name}/{name}"
        try:
            status = path.stat()
        except OSError as error:
            if os.path.lexists(path):
                self._importing.failed("a file of the watched folder cannot be looked at", error, place)
            return None
        self._importing.works(place)
        return (status.st_size, status.st_mtime_ns) if S_ISREG(status.st_mode) else None

    async def _import(self, name: str) -> None:
        path = self._path / _PROCESSING / name
        resumed = self._left is not None and name in self._left
        seen = await in_thread(self._seen, self._path / _PROCESSING, name)
        if seen is None:
            return
        force, _, base = name.rpartition("/")
        found = Found(base, _source(name, seen), seen[1] // 1_000_000, force=bool(force))
        await self._importing.handle(found, partial(_opened, path), partial(self._put_away, path), resumed=resumed)
        if self._left is not None and not await in_thread(path.exists):
            self._left.discard(name)

    def _put_away(self, path: Path, delivery: Delivery) -> None:
        target = self._path / (_DONE if delivery.is_done else _FAILED) / path.name
        report = target.with_name(f"{target.name}.report.json")
        part = report.with_name(f".{report.name}")
        part.write_bytes(delivery.report())
        part.rename(report)
        path.rename(target)


def _source(name: str, seen: tuple[int, int]) -> str:
    """What stands for the very content of a file."""
    size, changed_ns = seen
    return f"folder:{name}@{changed_ns // 1_000_000}-{size}"


def _files(folder: Path) -> Iterator[str]:
    """Names of the files in a folder, and in `force/` below it. Raises OSError if it is the folder that is wrong."""
    for beginning in ("", f"{FORCED}/"):
        with os.scandir(folder / beginning) as entries:
            # What it leads to where it is a link is seen when it is looked at.
            yield from (beginning + entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))


async def _opened(path: Path) -> AsyncIterator[bytes]:
    try:
        file = await in_thread(path.open, "rb")
    except FileNotFoundError as error:
        raise NotNowError("it is not there any more") from error
    async for chunk in chunks_of(file.read, file.close):
        yield chunk
