"""What commands that are about a data folder do where the store is in a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from segmentd.commands.options import DONE, FAILED, Failure, Misconfiguration, quiet_log, settings_of

if TYPE_CHECKING:
    from segmentd.settings import Settings


def check_cluster(settings: Settings) -> int:
    """`segmentd check`."""
    from segmentd.cluster.checking import check
    from segmentd.cluster.session import VisitError, visit

    quiet_log()
    try:
        report = visit(settings, check)
    except VisitError as error:
        raise Failure(str(error)) from None
    for difference in report.differences:
        click.echo(difference)
    click.echo(
        f"{report.partitions} partitions, {report.identifiers} identifiers, {report.memberships} memberships, "
        f"{report.members} members, {report.audiences} audiences, {report.segments} segments: "
        f"{report.differences_total or 'no'} difference{'' if report.differences_total == 1 else 's'}"
    )
    return FAILED if report.differences_total else DONE


def embedded_settings(config: Path | None, data: str | None, done: str) -> Settings:
    """The settings of a store in a data folder. done: what is done with that. Raises Misconfiguration."""
    settings = settings_of(config, data)
    if settings.store.is_cluster:
        raise Misconfiguration(
            f'[store] kind = "cluster": a cluster is not {done} by this command. Copy the append-only files of its'
            " servers (docs/cluster.md, Back up a cluster), or move it into a data folder with `segmentd migrate` and"
            " back that up."
        )
    return settings
