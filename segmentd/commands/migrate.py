"""`segmentd migrate`: an embedded store into a cluster, and back."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segmentd.commands.options import DONE, FAILED, Failure, quiet_log, settings_of

if TYPE_CHECKING:
    from segmentd.migration.move import Report


@click.command()
@click.option(
    "--config", "source", metavar="FROM.toml", required=True, type=click.Path(path_type=Path), help="What is moved."
)
@click.option("--to", "target", metavar="TO.toml", required=True, type=click.Path(path_type=Path), help="Where to.")
@click.option("--dry-run", is_flag=True, help="Count what would be moved, and change nothing.")
@click.option("--merge", is_flag=True, help="Also into a target that holds something already.")
@click.option(
    "--sample",
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="The share of the identifiers that is compared in the end.",
)
def migrate(source: Path, target: Path, dry_run: bool, merge: bool, sample: float) -> int:
    """Move everything from an embedded store into a cluster, or back.

    The [store] sections of the two configurations say which is which. All memberships, tombstones, audiences, floors,
    forgotten identifiers, segments, keys and the history of imports are moved; FROM is only read. Neither side may be
    served: data folders are locked, and the nodes of a cluster have to be stopped by whoever runs this.

    An interrupted migration is started again and goes on. In the end both sides are counted and compared; whatever
    differs is listed (the first 20), and the exit code is 1.

    \b
    Example:
      segmentd migrate --config segmentd.toml --to cluster.toml
    """
    from segmentd.cluster.session import VisitError
    from segmentd.keyfile import KeyStoreError
    from segmentd.migration.contents import MigrationError
    from segmentd.migration.move import Wishes, migrate
    from segmentd.storage.errors import StorageError

    settings = settings_of(source, None), settings_of(target, None)
    quiet_log()
    try:
        with ExitStack() as stack:
            report = migrate(*settings, Wishes(dry_run, merge, sample), _Bars(stack).show)
    except OSError as error:
        raise Failure(f"{error.filename or 'a file'}: {error.strerror or error}") from None
    except (MigrationError, StorageError, VisitError, KeyStoreError) as error:
        raise Failure(str(error)) from None
    return _told(report, dry_run=dry_run)


class _Bars:
    """A progress bar for each thing that is done, one after the other."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._what = ""
        self._bar: Any = None

    def show(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._stack.close()
            self._bar = self._stack.enter_context(click.progressbar(length=total, label=what, file=sys.stderr))
            self._what = what
        self._bar.update(min(done, total) - self._bar.pos)


def _told(report: Report, *, dry_run: bool) -> int:
    contents, counts = report.contents, report.counts
    living = sum(audience.is_living for audience in contents.audiences.values())
    segments = sum(record.definition is not None for record in contents.segments.values())
    for difference in report.differences.listed:
        click.echo(difference)
    click.echo(
        f"{counts.identifiers} identifiers, {counts.memberships} memberships, {living} audiences, {segments} segments, "
        f"{len(contents.keys)} keys, {len(contents.forgotten)} forgotten, {len(contents.jobs)} imports"
    )
    if dry_run:
        click.echo(f"would be moved from {report.source} to {report.target}; nothing was changed")
        return DONE
    total = report.differences.total
    click.echo(
        f"moved from {report.source} to {report.target}; {report.compared} identifiers compared: "
        f"{total or 'no'} difference{'' if total == 1 else 's'}"
    )
    return FAILED if total else DONE
