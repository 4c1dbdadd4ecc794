"""`segmentd export`: all members of a segment, from a server to standard output."""

from __future__ import annotations

import sys
from urllib.parse import quote, urlencode

import click

from segmentd.commands.imports import Server
from segmentd.commands.options import DONE, MISUSED


@click.command()
@click.argument("segment", metavar="SEGMENT")
@click.option("--url", metavar="URL", default="http://127.0.0.1:8080", show_default=True, help="The server.")
@click.option(
    "--key", metavar="SECRET", envvar="SEGMENTD_KEY", required=True, help="A private key. Better: $SEGMENTD_KEY."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "ndjson"]),
    default="csv",
    show_default=True,
    help="A list for imports (csv), or one event a line with its own time (ndjson).",
)
@click.option("--identifier", metavar="NAME", help="Only this identifier; needed for a CSV where there are several.")
@click.option("--gzip/--plain", "compressed", default=True, show_default=True, help="Compress the file.")
def export(segment: str, url: str, key: str, form: str, identifier: str | None, compressed: bool) -> int:
    """Write all members of SEGMENT to standard output.

    One consistent snapshot, in a form that `segmentd import` takes: the same members, all at the import's T. An export
    that breaks off ends with exit code 1: what was written by then is not the whole file.

    \b
    Examples:
      segmentd export beta_testers > audience_1.csv.gz
      segmentd export --format ndjson --plain beta_testers | head
    """
    if compressed and sys.stdout.isatty():
        click.echo("segmentd: a compressed file is not for a terminal; redirect it, or use --plain", err=True)
        return MISUSED
    fields = {"format": form, "gzip": "true" if compressed else "false"}
    if identifier is not None:
        fields["identifier"] = identifier
    Server(url, key).fetch(f"/v3/segments/{quote(segment, safe='')}/members?{urlencode(fields)}", sys.stdout.buffer)
    return DONE
