"""The watched folder: whoever can write a file can import.

```
<folder>/<audience id>.csv.gz        picked up once its size and time have stayed the same for two looks
<folder>/processing/                 where it is meanwhile
<folder>/done/, <folder>/failed/     where it goes, with <file>.report.json beside it
```

Names that begin with a dot or end with .part or .tmp are left alone. A file of the same name replaces the one before in
done/ and failed/, so that they do not grow for ever. Every step is a rename, so a crash leaves each file in one place;
what is in processing/ at the start is gone on with.
"""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from segmentd.runtime.importsources import Delivery, Found, Importing, chunks_of
from segmentd.settings import ImportsSettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

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

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                for name in await trio.to_thread.run_sync(self._pick_up):
                    await self._import(self._path / _PROCESSING / name)
            except OSError as error:
                log.error("the watched folder cannot be used", folder=str(self._path), reason=str(error))
            await trio.sleep(self._seconds)

    def _pick_up(self) -> list[str]:
        """Move what is complete to processing/; the names of all that is there."""
        for folder in (_PROCESSING, _DONE, _FAILED):
            (self._path / folder).mkdir(exist_ok=True)
        look = self._look()
        for name in sorted(look):
            # Not over one that is still there: it comes first, and this one next time.
            if self._last.get(name) == look[name] and not (self._path / _PROCESSING / name).exists():
                (self._path / name).rename(self._path / _PROCESSING / name)
        self._last = look
        return sorted(path.name for path in (self._path / _PROCESSING).iterdir() if path.is_file())

    def _look(self) -> Look:
        found: Look = {}
        for path in self._path.iterdir():
            if path.name.startswith(".") or path.name.endswith(_UNFINISHED) or not path.is_file():
                continue
            status = path.stat()
            found[path.name] = (status.st_size, status.st_mtime_ns)
        return found

    async def _import(self, path: Path) -> None:
        status = await trio.to_thread.run_sync(path.stat)
        changed_ms = status.st_mtime_ns // 1_000_000
        source = f"folder:{path.name}@{changed_ms}-{status.st_size}"
        delivery = await self._importing.deliver(Found(path.name, source, changed_ms), partial(_opened, path))
        await trio.to_thread.run_sync(self._put_away, path, delivery)
        log.info("file taken from the watched folder", file=path.name, imported=delivery.is_done)

    def _put_away(self, path: Path, delivery: Delivery) -> None:
        target = self._path / (_DONE if delivery.is_done else _FAILED) / path.name
        report = target.with_name(f"{target.name}.report.json")
        part = report.with_name(f".{report.name}")
        part.write_bytes(delivery.report())
        part.rename(report)
        path.rename(target)


async def _opened(path: Path) -> AsyncIterator[bytes]:
    file = await trio.to_thread.run_sync(path.open, "rb")
    async for chunk in chunks_of(file.read, file.close):
        yield chunk
