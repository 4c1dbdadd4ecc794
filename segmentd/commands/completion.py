"""`segmentd completion`: the script that teaches a shell to complete segmentd's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

_SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
_VARIABLE = "_SEGMENTD_COMPLETE"  # by which the script asks `segmentd` for what may come next


@click.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands and options.

    bash needs version 4.4 or newer.

    \b
    Examples:
      segmentd completion bash > ~/.local/share/bash-completion/completions/segmentd
      segmentd completion zsh > "${fpath[1]}/_segmentd"
      segmentd completion fish > ~/.config/fish/completions/segmentd.fish
    """
    click.echo(_SHELLS[shell](context.find_root().command, {}, "segmentd", _VARIABLE).source())
