"""The command line: reads arguments, calls one function of the program, and turns its outcome into an exit code.

Owns the texts of `--help`, the one line on stderr that a failure ends with, and the exit codes. Never holds logic of
its own: what a command does stands where it belongs.

Invariants:
1. Exit codes: 0 done, 1 failed (or `check` found differences), 2 wrong usage or configuration. Nothing else.
2. stdout has what was asked for and nothing more, so that it can be piped; everything else goes to stderr.
3. A command imports what it needs when it runs, so that `version` and completion stay fast.

A new command is one function here, below `commands` or below a group as `keys` is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from segmentd import __version__

if TYPE_CHECKING:
    from segmentd.settings import Settings

DONE = 0
FAILED = 1
MISUSED = 2


class Failure(click.ClickException):
    """The command could not do what was asked."""

    exit_code = FAILED


class Misconfiguration(click.ClickException):
    """A setting is wrong; the message names it."""

    exit_code = MISUSED


def main() -> None:
    """Run the command line of this process and end it."""
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


_CONFIG = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Configuration in TOML. Without it: the defaults and the environment.",
)
_DATA = click.option("--data", metavar="DIR", help="Data folder, instead of [storage] path.")


def _configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has which needs the settings."""
    return _CONFIG(_DATA(command))


def _settings(config: Path | None, data: str | None, listen: str | None = None) -> Settings:
    from segmentd.settings import Override, SettingsError, load

    options = []
    if data is not None:
        options.append(Override("--data", "storage", "path", data))
    if listen is not None:
        options.append(Override("--listen", "server", "listen", listen))
    try:
        return load(config, os.environ, options)
    except SettingsError as error:
        raise Misconfiguration(str(error)) from None


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
@_configured
@click.option("--listen", metavar="HOST:PORT", help="Address, instead of [server] listen. Port 0: any free port.")
def serve(config: Path | None, data: str | None, listen: str | None) -> int:
    """Serve until SIGTERM or SIGINT.

    Prints "listening on http://HOST:PORT" on stdout when requests are accepted, and the log on stderr. On SIGTERM it
    stops accepting, finishes what it took, and exits with 0.

    \b
    Examples:
      segmentd serve --config config/development.toml
      segmentd serve --config segmentd.toml --data data --listen [::1]:8080
    """
    # Before the program itself, which takes a while to import: a wrong setting is named at once.
    settings = _settings(config, data, listen)
    from segmentd import service
    from segmentd.storage.errors import StorageError

    try:
        return service.run(settings)
    except (service.StartError, StorageError) as error:
        raise Failure(str(error)) from None


@commands.command()
@_configured
def check(config: Path | None, data: str | None) -> int:
    """Verify the data folder.

    Reads every record, counts every count again, and compares what is stored twice. Changes nothing. The server must
    be stopped. Prints one line for each difference (the first 20) and a summary; exits with 1 if there is any.

    \b
    Example:
      segmentd check --config segmentd.toml
    """
    from segmentd.storage.check import check as check_folder
    from segmentd.storage.errors import StorageError
    from segmentd.storage.folder import DataFolder

    storage = _settings(config, data).storage
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


@commands.group()
def keys() -> None:
    """Create, list and revoke API keys.

    A "public" key sends events and reads GraphQL: it is meant for SDKs and web pages. A "private" key may do
    everything. Keys are in keys.json in the data folder, as hashes; a running server sees a change within a second.

    \b
    To rotate a key: create the new one, move the clients over, revoke the old one.
    """


@keys.command("create")
@_configured
@click.option("--right", type=click.Choice(["public", "private"]), required=True, help="What the key may do.")
@click.option("--id", "key_id", metavar="ID", help="Name of the key, to list and revoke it by. Without it: at random.")
def create_key(config: Path | None, data: str | None, right: Literal["public", "private"], key_id: str | None) -> None:
    """Create a key and print its secret.

    The secret is shown this once and stored nowhere.

    \b
    Examples:
      segmentd keys create --config segmentd.toml --right public --id shop
      SECRET=$(segmentd keys create --config segmentd.toml --right private --id nightly-import)
    """
    from segmentd import keyfile

    settings = _settings(config, data)
    if key_id in settings.keys:
        raise Failure(f"the key {key_id!r} is in the configuration already")
    path = keyfile.path_in(Path(settings.storage.path))
    try:
        created, secret = keyfile.create(path, right, key_id)
    except keyfile.KeyFileError as error:
        raise Failure(str(error)) from None
    click.echo(f"created the {right} key {created} in {path}; its secret is not shown again:", err=True)
    click.echo(secret)


@keys.command("list")
@_configured
def list_keys(config: Path | None, data: str | None) -> None:
    """List the keys.

    Id, right, when it was created, and where it is: in the configuration or in the data folder.

    \b
    Example:
      segmentd keys list --config segmentd.toml
    """
    from segmentd import keyfile

    settings = _settings(config, data)
    path = keyfile.path_in(Path(settings.storage.path))
    try:
        stored = keyfile.list_keys(path)
    except keyfile.KeyFileError as error:
        raise Failure(str(error)) from None
    rows = [("ID", "RIGHT", "CREATED", "WHERE")]
    rows += [(key_id, key.right, "-", "configuration") for key_id, key in sorted(settings.keys.items())]
    rows += [(key_id, key.right, key.created, str(path)) for key_id, key in stored]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for key_id, right, created, where in rows:
        click.echo(f"{key_id:<{widths[0]}}  {right:<{widths[1]}}  {created:<{widths[2]}}  {where}")


@keys.command("revoke")
@_configured
@click.argument("key_id", metavar="ID")
def revoke_key(config: Path | None, data: str | None, key_id: str) -> None:
    """Revoke the key ID.

    A running server refuses it within a second.

    \b
    Example:
      segmentd keys revoke --config segmentd.toml shop
    """
    from segmentd import keyfile

    settings = _settings(config, data)
    if key_id in settings.keys:
        raise Failure(f"the key {key_id!r} is in the configuration: remove [keys.{key_id}] there")
    try:
        keyfile.revoke(keyfile.path_in(Path(settings.storage.path)), key_id)
    except keyfile.KeyFileError as error:
        raise Failure(str(error)) from None
    click.echo(f"revoked the key {key_id}", err=True)
