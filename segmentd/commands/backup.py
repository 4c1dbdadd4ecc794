"""`segmentd backup` and `segmentd restore`."""

from __future__ import annotations

from pathlib import Path

import click

from segmentd.commands.clusters import embedded_settings
from segmentd.commands.options import DONE, FAILED, Failure, configured


@click.command()
@configured
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
def backup(config: Path | None, data: str | None, target: Path) -> int:
    """Copy the data folder into DIR, also while it is served.

    The copy has everything that was acknowledged before the command began. It is a data folder itself: restore it, or
    serve it where it is. DIR must not exist or be empty, and gets its name only when the copy is whole. Run it on the
    machine of the server, with the same configuration; it needs no key.

    \b
    Examples:
      segmentd backup --config segmentd.toml backups/2026-11-23
      segmentd backup --data data backups/2026-11-23
    """
    from segmentd.storage.backup import back_up
    from segmentd.storage.errors import StorageError
    from segmentd.storage.folder import DataFolder

    storage = embedded_settings(config, data, "backed up").storage
    try:
        folder = DataFolder(
            Path(storage.path),
            journal_map_bytes=storage.journal_map_bytes,
            index_map_bytes=storage.index_map_bytes,
            create=False,
            lock=False,
        )
        size = back_up(folder, target, journal_map_bytes=storage.journal_map_bytes)
    except StorageError as error:
        raise Failure(str(error)) from None
    click.echo(f"{target}: {size} bytes", err=True)
    return DONE


@click.command()
@configured
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path))
def restore(config: Path | None, data: str | None, source: Path) -> int:
    """Make a data folder of the backup DIR.

    The data folder (--data, or [storage] path) must not exist or be empty. It is verified as `segmentd check` does, and
    gets its name only if there is no difference; the backup stays as it is.

    \b
    Example:
      segmentd restore --data data backups/2026-11-23
    """
    from segmentd.storage.backup import restore as restore_folder
    from segmentd.storage.errors import StorageError

    storage = embedded_settings(config, data, "restored").storage
    try:
        report = restore_folder(
            source,
            Path(storage.path),
            journal_map_bytes=storage.journal_map_bytes,
            index_map_bytes=storage.index_map_bytes,
        )
    except StorageError as error:
        raise Failure(str(error)) from None
    for difference in report.differences:
        click.echo(difference)
    if report.differences_total:
        click.echo(f"the backup has {report.differences_total} differences; nothing was restored", err=True)
        return FAILED
    click.echo(f"{storage.path}: {report.identifiers} identifiers, {report.members} members", err=True)
    return DONE
