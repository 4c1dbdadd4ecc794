"""The command line: reads arguments, calls one function of the program, and turns its outcome into an exit code.

Owns the texts of `--help`, the one line on stderr that a failure ends with, and the exit codes. Never holds logic of
its own: what a command does stands where it belongs.

Invariants:
1. Exit codes: 0 done, 1 failed (or `check` found differences), 2 wrong usage or configuration. Nothing else.
2. stdout has what was asked for and nothing more, so that it can be piped; everything else goes to stderr.
3. A command imports what it needs when it runs, so that `version` and completion stay fast.

A small command is one function here; a larger one or a group is a module of `segmentd.commands`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from segmentd import __version__
from segmentd.commands.backup import backup, restore
from segmentd.commands.clusters import check_cluster
from segmentd.commands.completion import completion
from segmentd.commands.export import export
from segmentd.commands.imports import import_files
from segmentd.commands.keys import keys
from segmentd.commands.migrate import migrate
from segmentd.commands.options import DONE, FAILED, MISUSED, Failure, configured, settings_of
from segmentd.commands.send import send
from segmentd.logstream import keep_standard_streams


def main() -> None:
    """Run the command line of this process and end it."""
    keep_standard_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line without the program's name; returns the exit code."""
    try:
        outcome = commands.main(list(arguments), prog_name="segmentd", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return MISUSED
    except click.UsageError as error:
        place = error.ctx.command_path if error.ctx else "segmentd"
        return _fail(f"{' '.join(error.format_message().split())} (see {place} --help)", MISUSED)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.Abort:
        return _fail("interrupted", FAILED)
    return outcome if isinstance(outcome, int) else DONE


def _fail(reason: str, exit_code: int) -> int:
    click.echo(f"segmentd: {reason}", err=True)
    return exit_code


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="segmentd %(version)s")
def commands() -> None:
    """Keep audience memberships and answer who is in which segment.

    segmentd speaks the Optimizely Data Platform v3 API: events in, qualified segments out.

    \b
    Try it:
      segmentd serve --config config/development.toml

    Every setting can also be given in the environment as SEGMENTD_SECTION_NAME, for example
    SEGMENTD_LOG_LEVEL=debug.

    \b
    Exit codes:
      0  done
      1  failed, or `check` found differences
      2  wrong usage or configuration
    """


@commands.command()
@configured
@click.option("--listen", metavar="HOST:PORT", help="Address, instead of [server] listen. Port 0: any free port.")
@click.option(
    "--followers", metavar="N", type=int, help="Further processes that answer queries, instead of [server] followers."
)
def serve(config: Path | None, data: str | None, listen: str | None, followers: int | None) -> int:
    """Serve until SIGTERM or SIGINT.

    Prints "listening on http://HOST:PORT" on stdout as soon as it accepts connections, and the log on stderr; /readyz
    answers 200 when the data is read. On SIGTERM it stops accepting, finishes what it took, and exits with 0.

    \b
    Examples:
      segmentd serve --config config/development.toml
      segmentd serve --config segmentd.toml --data data --listen [::1]:8080
      segmentd serve --config segmentd.toml --followers 3
    """
    # Before the program itself, which takes a while to import: a wrong setting is named at once.
    settings = settings_of(config, data, listen, followers)
    from segmentd import service
    from segmentd.storage.errors import StorageError
    from segmentd.storekind import StartError

    try:
        return service.run(settings)
    except (StartError, StorageError) as error:
        raise Failure(str(error)) from None


@commands.command()
@configured
def check(config: Path | None, data: str | None) -> int:
    """Verify the data folder, or the cluster.

    Reads every record, counts every count again, and compares what is stored twice. Changes nothing. The server must
    be stopped; the nodes of a cluster may run, but what is written all the time may look like a difference. Prints one
    line for each difference (the first 20) and a summary; exits with 1 if there is any.

    \b
    Example:
      segmentd check --config segmentd.toml
    """
    settings = settings_of(config, data)
    if settings.store.is_cluster:
        return check_cluster(settings)
    from segmentd.storage.check import check as check_folder
    from segmentd.storage.errors import StorageError
    from segmentd.storage.folder import DataFolder

    storage = settings.storage
    try:
        with DataFolder(
            Path(storage.path),
            journal_map_bytes=storage.journal_map_bytes,
            index_map_bytes=storage.index_map_bytes,
            create=False,
        ) as folder:
            report = check_folder(folder)
    except StorageError as error:
        raise Failure(str(error)) from None
    for difference in report.differences:
        click.echo(difference)
    click.echo(
        f"{report.identifiers} identifiers, {report.memberships} memberships, {report.members} members, "
        f"{report.audiences} audiences, {report.segments} segments, {report.journal_records} journal records: "
        f"{report.differences_total or 'no'} difference{'' if report.differences_total == 1 else 's'}"
    )
    return FAILED if report.differences_total else DONE


@commands.command()
def version() -> None:
    """Print the version."""
    click.echo(f"segmentd {__version__}")


commands.add_command(keys)
commands.add_command(send)
commands.add_command(import_files)
commands.add_command(export)
commands.add_command(backup)
commands.add_command(restore)
commands.add_command(migrate)
commands.add_command(completion)
