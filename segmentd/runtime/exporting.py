"""Exports: a child process for each, and its output as chunks for whoever asked.

Invariants: (1) at most `running_max` children at a time; (2) a child ends with its `Export`, whatever happens; (3) a
file that is not whole ends in an error, never as if it were.
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial

import msgspec
import trio

from segmentd.domain.refusals import Overloaded, StoreUnavailable
from segmentd.runtime.children import start_process
from segmentd.runtime.seam import ExportBrokenError, SeveralIdentifiersError
from segmentd.storage.exporter import ExporterArguments, ExportHeader

CHUNK_BYTES = 65_536
_HEADER_BYTES_MAX = 65_536


class ChildExport:
    """What a child writes. Implements `segmentd.runtime.seam.Export`."""

    def __init__(self, process: trio.Process, release: Callable[[], None]) -> None:
        self._process = process
        self._release = release
        self._buffer = b""

    async def header(self) -> ExportHeader:
        """The child's first line. Raises ExportBrokenError."""
        assert self._process.stdout is not None  # noqa: S101
        while b"\n" not in self._buffer:
            received = await self._process.stdout.receive_some(CHUNK_BYTES)
            if not received or len(self._buffer) > _HEADER_BYTES_MAX:
                raise ExportBrokenError(f"the exporter ended with status {await self._process.wait()}")
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return msgspec.json.decode(line, type=ExportHeader)

    async def chunks(self) -> AsyncIterator[bytes]:
        """See Export."""
        assert self._process.stdout is not None  # noqa: S101
        if self._buffer:
            yield self._buffer
        while chunk := await self._process.stdout.receive_some(CHUNK_BYTES):
            yield bytes(chunk)
        status = await self._process.wait()
        if status:
            raise ExportBrokenError(f"the exporter ended with status {status}")

    async def aclose(self) -> None:
        """End the child if it still runs."""
        with trio.CancelScope(shield=True):
            self._release()
            self._release = _nothing
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            assert self._process.stdout is not None  # noqa: S101
            await self._process.stdout.aclose()


class Exporter:
    """Starts exports."""

    def __init__(self, running_max: int, retry_after_seconds: int) -> None:
        self._limiter = trio.CapacityLimiter(running_max)
        self._retry_after_seconds = retry_after_seconds

    async def start(self, arguments: ExporterArguments) -> ChildExport:
        """Raises SeveralIdentifiersError, Overloaded, StoreUnavailable."""
        place = object()
        try:
            self._limiter.acquire_on_behalf_of_nowait(place)
        except trio.WouldBlock:
            message = f"{self._limiter.total_tokens:.0f} exports are running ([members] exports_running_max)."
            raise Overloaded(message, self._retry_after_seconds) from None
        export: ChildExport | None = None
        try:
            command = [sys.executable, "-m", "segmentd.storage.exporter", msgspec.json.encode(arguments).decode()]
            process = await start_process(command, stdin=subprocess.DEVNULL)
            export = ChildExport(process, partial(self._limiter.release_on_behalf_of, place))
            self._check(await export.header())
        except (ExportBrokenError, OSError) as error:
            await self._give_up(export, place)
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreUnavailable(f"The export could not begin: {reason}.", self._retry_after_seconds) from None
        except BaseException:
            await self._give_up(export, place)
            raise
        return export

    def _check(self, header: ExportHeader) -> None:
        if header.identifiers:
            raise SeveralIdentifiersError(header.identifiers)
        if header.error is not None:
            raise StoreUnavailable(f"The export could not begin: {header.error}", self._retry_after_seconds)

    async def _give_up(self, export: ChildExport | None, place: object) -> None:
        if export is None:
            self._limiter.release_on_behalf_of(place)
        else:
            await export.aclose()


def _nothing() -> None:
    """There is nothing more to release."""
