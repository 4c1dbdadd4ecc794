"""What the commands share: options, the settings they lead to, exit codes, and the two ways to fail.

Owns nothing else. Every command of its own size is a module beside this one; `segmentd.cli` puts them together.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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


_CONFIG = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Configuration in TOML. Without it: the defaults and the environment.",
)
_DATA = click.option("--data", metavar="DIR", help="Data folder, instead of [storage] path.")


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has which needs the settings."""
    return _CONFIG(_DATA(command))


def quiet_log() -> None:
    """A command says itself what it does; of the log only what is wrong is of interest, on stderr."""
    from segmentd import logs

    logs.configure("human", "warning")


def settings_of(
    config: Path | None, data: str | None, listen: str | None = None, followers: int | None = None
) -> Settings:
    from segmentd.settings import Override, SettingsError, load

    options = []
    if data is not None:
        options.append(Override("--data", "storage", "path", data))
    if listen is not None:
        options.append(Override("--listen", "server", "listen", listen))
    if followers is not None:
        options.append(Override("--followers", "server", "followers", followers))
    try:
        return load(config, os.environ, options)
    except SettingsError as error:
        raise Misconfiguration(str(error)) from None
