"""What an import does to the embedded store, one slice at a time, through the same committer, journal and shards as
events. Implements `segmentd.runtime.liststore.ListStore`.

An import as of T decides about every identifier: the listed ones are qualified at T, and for all others every
qualification from before T is void. So it has two writes besides the floor (`segmentd.domain.gate`): `v = 2T` for the
listed, and for members that are not listed a tombstone just below it, `2T - 1`. Being below 2T, the tombstone leaves
room for a qualification by an event at T itself, whichever of the two comes first: that is not older than the import.

Invariants: (1) an import never fills the journal or a queue that events need: it waits; (2) nothing is tried that is no
news, so that the same list once more costs no write; (3) every method may be repeated, with the same end.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import trio

from segmentd.domain.gate import Gate
from segmentd.domain.membership import V_BITS, find, is_qualified, unpack, v_of
from segmentd.domain.refusals import Overloaded, ShuttingDown, StoreUnavailable
from segmentd.domain.shard import Word
from segmentd.runtime.audiences import AudienceTable
from segmentd.runtime.checkpointing import Checkpointing
from segmentd.runtime.children import ChildDiedError, child
from segmentd.runtime.committer import Committer
from segmentd.runtime.liststore import AudienceGoneError, Compared, WholeList
from segmentd.runtime.router import Router
from segmentd.runtime.write import Write
from segmentd.settings import StorageSettings
from segmentd.storage.failpoints import hit
from segmentd.storage.importscan import ScanArguments, ScanReport
from segmentd.storage.journal import Journal

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_FOLD_CHANGES = 100_000
"""So many changes are worth a fold. The sweep waits for the last one; what is folded by then is not waited for."""
_KEYS_AT_ONCE = 250
"""Looked up before queries get their turn; a fraction of a millisecond."""
_PAUSE_SECONDS = 0.05
_PAUSE_UNAVAILABLE_SECONDS = 1.0
_RETRY_SECONDS_FIRST = 0.2
_RETRY_SECONDS_MAX = 30.0
_OUTCOME_SECONDS_MAX = 10.0
"""A commit is answered in milliseconds; a committer that died by a defect never answers."""


class WholeLists:
    """Plain calls, and waits for commits; used by one import at a time."""

    def __init__(
        self,
        *,
        packed_of: Callable[[bytes], bytes | None],
        audiences: AudienceTable,
        gate: Gate,
        committer: Committer,
        router: Router,
        journal: Journal,
        checkpointing: Checkpointing,
        index_path: Callable[[], Path],
        storage: StorageSettings,
    ) -> None:
        """packed_of: the words of a key in memory. index_path: the folder of the index now; a scrub moves it."""
        self._packed_of = packed_of
        self._audiences = audiences
        self._gate = gate
        self._committer = committer
        self._router = router
        self._journal = journal
        self._checkpointing = checkpointing
        self._index_path = index_path
        self._index_map_bytes = storage.index_map_bytes
        # Beyond twice what begins a fold an import waits until the journal is folded: so imports keep the checkpointer
        # busy, and leave the rest of the room to events.
        self._journal_bytes_max = 2 * storage.checkpoint_journal_bytes
        self._unfolded = 0
        """Changes since a fold was asked for."""

    async def number(self, audience_id: str) -> int | None:
        """See ListStore."""
        return self._audiences.number(audience_id)

    async def numbered(self, audience_id: str) -> int:
        """See ListStore."""
        return self._audiences.words([(b"", audience_id, 0)])[0][1] >> V_BITS

    async def floor(self, audience_id: str) -> int:
        """See ListStore."""
        number = self._audiences.number(audience_id)
        floor = 0 if number is None else self._gate.floors.get(number, 0)
        return max(floor, self._audiences.inherited_floor(audience_id))

    async def compare(self, listed: WholeList, output: Path | None) -> Compared:
        """See ListStore."""
        await self.barrier()
        pause = _RETRY_SECONDS_FIRST
        while True:
            report = await self._scanned(listed, output)
            if report.error is None:
                return Compared(report.members, report.outdated)
            log.error(
                "comparing a list with its members failed; trying again",
                audience=listed.audience_id,
                reason=report.error,
            )
            await trio.sleep(pause)
            pause = min(pause * 2, _RETRY_SECONDS_MAX)

    async def _scanned(self, listed: WholeList, output: Path | None) -> ScanReport:
        """What a child finds that walks along both."""
        assert listed.number is not None  # noqa: S101  # an audience without a number has nobody to compare
        arguments = ScanArguments(
            # Anew each time: the index may have moved.
            index=str(self._index_path()),
            index_map_bytes=self._index_map_bytes,
            audience=listed.number,
            staged=str(listed.staged),
            kind_number=listed.kind_number,
            v_floor=v_of(listed.as_of_ms, True),
            output=None if output is None else str(output),
        )
        try:
            async with child("segmentd.storage.importscan", arguments) as scanner:
                return await scanner.answer(ScanReport)
        except ChildDiedError as error:
            return ScanReport(error=str(error))

    async def qualify(self, listed: WholeList, keys: Sequence[bytes], *, dry_run: bool) -> int:
        """See ListStore."""
        words, qualified = await self.listed(keys, listed.number, listed.as_of_ms)
        if listed.number is not None:
            self._require(listed)
        if words and not dry_run:
            await self.write(words, listed.taken_ms)
            hit("import_qualifying")
        return qualified

    async def disqualify(self, listed: WholeList, keys: Sequence[bytes]) -> int:
        """See ListStore."""
        number = self._require(listed)
        words, swept = self.outdated(keys, number, listed.as_of_ms)
        if words:
            await self.write(words, listed.taken_ms)
            hit("import_sweeping")
        return swept

    def _require(self, listed: WholeList) -> int:
        """The number of the list's audience, which is what it was. Raises AudienceGoneError."""
        number = self._audiences.number(listed.audience_id)
        if number is None or number != listed.number:
            raise AudienceGoneError
        return number

    async def listed(self, keys: Sequence[bytes], number: int | None, as_of_ms: int) -> tuple[list[Word], int]:
        """(what it takes to have `keys` qualified at `as_of_ms`, how many of them become members).

        number: None for an audience that has nobody yet.
        """
        if number is None:
            return [], len(keys)
        target = v_of(as_of_ms, True)
        word = number << V_BITS | target
        packed_of = self._packed_of
        words: list[Word] = []
        qualified = 0
        last: bytes | None = None
        v: int | None = None
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            for key in keys[start : start + _KEYS_AT_ONCE]:
                packed = packed_of(key)
                if packed != last:
                    # Neighbours are often alike: the import before has given them one word.
                    v, last = self._v(packed, number), packed
                if v is None or v < target:
                    words.append((key, word))
                    qualified += v is None or v & 1
            await trio.lowlevel.checkpoint()
        return words, qualified

    def outdated(self, keys: Sequence[bytes], number: int, as_of_ms: int) -> tuple[list[Word], int]:
        """(tombstones for those of `keys` that are still outdated members, how many are or already were swept)."""
        target = v_of(as_of_ms, True)
        tombstone = number << V_BITS | (target - 1)
        words: list[Word] = []
        swept = 0
        for key in keys:
            v = self._v(self._packed_of(key), number)
            if v is None or v >= target:
                continue
            if is_qualified(v):
                words.append((key, tombstone))
            swept += is_qualified(v) or v == target - 1
        return words, swept

    @staticmethod
    def _v(packed: bytes | None, number: int) -> int | None:
        return find(unpack(packed), number) if packed else None

    async def write(self, words: Sequence[Word], taken_ms: int) -> None:
        """Make changes durable and visible, however long it takes. taken_ms: when the list was taken."""
        await self._commit(lambda: Write(imported=words, taken_ms=taken_ms))
        self._unfolded += len(words)
        if self._unfolded >= _FOLD_CHANGES:
            self._unfolded = 0
            self._checkpointing.wake()

    async def raise_floor(self, number: int, as_of_ms: int) -> None:
        """See ListStore."""
        floor = (number, v_of(as_of_ms, True))
        await self._commit(lambda: Write(floors=[floor]))
        # What was committed before the floor may still be on its way into the shards.
        await self._router.flush()

    async def barrier(self) -> None:
        """Wait until the index holds everything that is in the journal now."""
        await self._checkpointing.barrier()

    async def _commit(self, write: Callable[[], Write]) -> None:
        while True:
            if self._journal.bytes_held > self._journal_bytes_max:
                # What is folded is cut by the next commits, so after the barrier there is no need to look again.
                await self._checkpointing.barrier()
            try:
                wanted = write()
                self._committer.submit(wanted)
                await _outcome(wanted)
            except Overloaded:
                await trio.sleep(_PAUSE_SECONDS)
            except ShuttingDown:
                # The import goes on at the next start; whoever runs it is cancelled.
                await trio.sleep_forever()
            except StoreUnavailable as refusal:
                log.warning("an import waits", reason=refusal.message)
                await trio.sleep(_PAUSE_UNAVAILABLE_SECONDS)
            else:
                return


async def _outcome(write: Write) -> None:
    """What became of a write. Cancelling does not keep it from being done, so an import that is cancelled counts it."""
    with trio.move_on_after(_OUTCOME_SECONDS_MAX, shield=True):
        await write.reply.wait()
        return
    await write.reply.wait()
