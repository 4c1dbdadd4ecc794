"""The watched folder: whoever can write a file can import.

```
<folder>/<audience id>.csv.gz        picked up once its size and time have stayed the same for two looks
<folder>/processing/                 where it is meanwhile
<folder>/done/, <folder>/failed/     where it goes, with <file>.report.json beside it
```

Names that begin with a dot or end with .part or .tmp are left alone. A file of the same name replaces the one before in
done/ and failed/, so that they do not grow for ever. Every step is a rename, so a crash leaves each file in one place;
what is in processing/ at the start is gone on with. A file that is put in once more is imported once more. One that
cannot be read goes to failed/; one that cannot even be moved is told of once and holds up no other.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio

from segmentd.runtime.importsources import Delivery, Found, Importing, NotNowError, chunks_of
from segmentd.settings import ImportsSettings

_PROCESSING, _DONE, _FAILED = "processing", "done", "failed"
_UNFINISHED: Final = (".part", ".tmp")

Look = dict[str, tuple[int, int]]
"""File name → (size, time of the last change in ns)."""


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
                names = await trio.to_thread.run_sync(self._pick_up)
            except OSError as error:
                self._importing.failed("the watched folder cannot be used", error, folder=str(self._path))
                names = []
            for name in names:
                await self._import(name)
            await trio.sleep(self._seconds)

    def _pick_up(self) -> list[str]:
        """Move what is complete to processing/; the names of all that is there."""
        for folder in (_PROCESSING, _DONE, _FAILED):
            (self._path / folder).mkdir(exist_ok=True)
        if self._left is None:
            self._left = set(self._processing())
        look = self._look()
        for name in sorted(look):
            # Not over one that is still there: it comes first, and this one next time.
            if self._last.get(name) == look[name] and not (self._path / _PROCESSING / name).exists():
                # One that vanished, or may not be moved, is no reason to leave the others.
                with suppress(OSError):
                    (self._path / name).rename(self._path / _PROCESSING / name)
        self._last = look
        return sorted(self._processing())

    def _processing(self) -> list[str]:
        return [path.name for path in (self._path / _PROCESSING).iterdir() if path.is_file()]

    def _look(self) -> Look:
        found: Look = {}
        for path in self._path.iterdir():
            if path.name.startswith(".") or path.name.endswith(_UNFINISHED) or not path.is_file():
                continue
            with suppress(FileNotFoundError):
                status = path.stat()
                found[path.name] = (status.st_size, status.st_mtime_ns)
        return found

    async def _import(self, name: str) -> None:
        path = self._path / _PROCESSING / name
        resumed = self._left is not None and name in self._left
        try:
            status = await trio.to_thread.run_sync(path.stat)
        except OSError as error:
            self._importing.failed("a file of the watched folder is gone", error, file=name)
            return
        changed_ms = status.st_mtime_ns // 1_000_000
        found = Found(name, f"folder:{name}@{changed_ms}-{status.st_size}", changed_ms)
        await self._importing.handle(found, partial(_opened, path), partial(self._put_away, path), resumed=resumed)
        if self._left is not None and not await trio.to_thread.run_sync(path.exists):
            self._left.discard(name)

    def _put_away(self, path: Path, delivery: Delivery) -> None:
        target = self._path / (_DONE if delivery.is_done else _FAILED) / path.name
        report = target.with_name(f"{target.name}.report.json")
        part = report.with_name(f".{report.name}")
        part.write_bytes(delivery.report())
        part.rename(report)
        path.rename(target)


async def _opened(path: Path) -> AsyncIterator[bytes]:
    try:
        file = await trio.to_thread.run_sync(path.open, "rb")
    except FileNotFoundError as error:
        raise NotNowError("it is not there any more") from error
    async for chunk in chunks_of(file.read, file.close):
        yield chunk
