"""Looking at a life from all sides, and comparing with what was promised."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from segmentd.domain.membership import is_qualified
from segmentd.domain.segments import Segment
from segmentd.runtime.store import LocalStore
from segmentd.storage.check import check
from segmentd.storage.folder import DataFolder
from tests.simulation.life import MAP_BYTES, Life
from tests.simulation.promises import AUDIENCES, GHOSTS, MARKS, PEOPLE, Definition, Promises
from tests.simulation.worlds import BrokenPromiseError

Lookup = Callable[[bytes, Sequence[str]], list[int | None]]
"""(key, audiences) → what is held of each."""


def marks_of(request: str) -> tuple[str, str]:
    """The identifiers of the two marks of an upload."""
    return f"{request}-a", f"{request}-b"


def look(life: Life, promises: Promises) -> None:
    """What queries see of everything that is shared, at one moment. Raises BrokenPromiseError."""
    if life.dead:
        return
    for follower in life.followers.looking():
        with follower.reading():
            _look_at_cells(life, promises, follower.lookup)
            _look_at_segments(promises, follower.segments)
    if not life.store.publication.is_behind():
        # Else whoever asks the owner waits until it has merged what followers show already.
        _look_at_cells(life, promises, life.store.lookup)
        _look_at_segments(promises, life.catalog.segments)
    look_at_sizes(life.store)


def look_as_published(life: Life, promises: Promises) -> None:
    """What followers see of a record that their owner does not show yet. Raises BrokenPromiseError."""
    if life.dead:
        return
    for follower in life.followers.looking():
        with follower.reading():
            _look_at_cells(life, promises, follower.lookup)
            _look_at_segments(promises, follower.segments)
            _look_at_marks(life, promises, follower.lookup, whole=True)


def _look_at_cells(life: Life, promises: Promises, lookup: Lookup) -> None:
    for (who, audience), cell in promises.cells.items():
        v = lookup(life.key(who), [audience])[0]
        cell.seen(lambda state, v=v: state.v == v, v)  # type: ignore[misc]


def _look_at_segments(promises: Promises, segments: Mapping[str, Segment]) -> None:
    for segment_id, register in promises.segments.items():
        segment = segments.get(segment_id)
        found = Definition()
        if segment is not None:
            found = Definition(segment.revision, segment.definition.external_audience_id)
        register.seen(lambda state, found=found: _is_shown(state, found), found)  # type: ignore[misc]


def look_at_marks(life: Life, promises: Promises) -> None:
    """Every upload of events there ever was is there or not, as was told. Raises BrokenPromiseError."""
    if life.dead:
        return
    for follower in life.followers.looking():
        with follower.reading():
            _look_at_marks(life, promises, follower.lookup, whole=True)
    if not life.store.publication.is_behind():
        _look_at_marks(life, promises, life.store.lookup)


def _look_at_marks(life: Life, promises: Promises, lookup: Lookup, *, whole: bool = False) -> None:
    """whole: also what is under way is there whole or not at all, as in every process but the one that merges it."""
    for request in promises.fates:
        first, second = (lookup(life.key(mark), [MARKS])[0] is not None for mark in marks_of(request))
        if whole and first != second:
            raise BrokenPromiseError(f"a follower shows {request} by half")
        promises.marks_seen(request, (first, second))


def _is_shown(state: Definition, found: Definition) -> bool:
    """Whoever looks does not see the last revision of a segment that is deleted."""
    return found == (state if state.audience is not None else Definition())


def look_at_sizes(store: LocalStore) -> None:
    """Sizes are what a recount of all identifiers gives. Raises BrokenPromiseError."""
    counted = Counter(
        audience
        for shard in store._shards
        for key, _ in shard.items()
        for audience, v in store.memberships(key).items()
        if is_qualified(v)
    )
    for audience in (*AUDIENCES, MARKS):
        if store.size(audience) != counted[audience]:
            raise BrokenPromiseError(f"{audience} has the size {store.size(audience)}, and {counted[audience]} members")


def look_at_members(life: Life, promises: Promises, versions: dict[tuple[str, str], int]) -> None:
    """Pages of members from the index, just after `settled`: everything acknowledged before it is in there.

    versions: of the memberships before `settled`; those that something is or was under way for are not looked at.
    Raises BrokenPromiseError.
    """
    for audience in AUDIENCES:
        listed: dict[bytes, int] = {}
        after, more, total = b"", True, 0
        while more:
            page = life.reader.members(audience, after, 2)
            listed.update(page.members)
            after, more, total = (page.members[-1][0] if page.members else b""), page.has_more, page.total
        if total != len(listed):
            raise BrokenPromiseError(f"{audience} has {len(listed)} members in its pages, and they say {total}")
        for who in PEOPLE + GHOSTS:
            cell = promises.cells[who, audience]
            if versions.get((who, audience)) == cell.version:
                v = listed.get(life.key(who))
                cell.seen(lambda state, v=v: v == _member(state.v), f"member at {v}")  # type: ignore[misc]


def _member(v: int | None) -> int | None:
    return v if v is not None and is_qualified(v) else None


def look_at_files(life: Life) -> None:
    """What `segmentd check` says. Raises BrokenPromiseError."""
    if life.dead:
        return
    with DataFolder(
        life.folder, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES, create=False, lock=False
    ) as folder:
        if differences := check(folder).differences:
            raise BrokenPromiseError(f"segmentd check: {differences}")


def look_for_bytes(life: Life, gone: set[str]) -> None:
    """Nothing of identifiers that are forgotten for good is left in any file. Raises BrokenPromiseError."""
    if life.dead or not gone:
        return
    for file in life.folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            if left := [name for name in gone if name.encode() in content]:
                raise BrokenPromiseError(f"{left} were forgotten for good and are in {file.relative_to(life.folder)}")
