"""`segmentd send`: files of events to a server, and exactly which lines it took."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, Self

import click

from segmentd.commands.options import DONE, FAILED, Misconfiguration
from segmentd.commands.sendreport import Progress, Sent, table

if TYPE_CHECKING:
    from segmentd.client import Client, Line, Options, Problem

_STDIN = "-"
_LINE_BYTES_MAX = 1 << 20  # what the server takes as a whole request unless it is told otherwise


@click.command()
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The server.")
@click.option("--key", envvar="SEGMENTD_KEY", required=True, help="A key, public or private. Better: $SEGMENTD_KEY.")
@click.option("--from-line", type=click.IntRange(min=1), default=1, help="Begin with this line of the only file.")
@click.option(
    "--rejects",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Add invalid events to FILE and send all others.",
)
@click.option("--gzip", "compressed", is_flag=True, help="Compress requests; for a slow way to the server.")
@click.option(
    "--batch", metavar="EVENTS", type=click.IntRange(1, 10_000), default=500, show_default=True, help="For one request."
)
@click.option(
    "--give-up-after",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    help="How long one request is tried again.",
)
def send(
    files: tuple[str, ...],
    url: str,
    key: str,
    from_line: int,
    rejects: Path | None,
    compressed: bool,
    batch: int,
    give_up_after: float,
) -> int:
    """Send events from files, or from standard input without any (or for -).

    A file has one event a line (NDJSON), as POST /v3/events takes them; plain or gzip; blank lines are left out.
    Lines go out in order. A request that is not answered, or answered with 429 or 503, is repeated as it is, which
    is safe: of two decisions the later data.ts wins. So give every event its data.ts; without one it gets the time
    at which it is received.

    A request is taken whole or not at all. An invalid event ends the sending: it is named by file and line, and
    nothing of its request is applied. With --rejects all others are sent; FILE gets one JSON object a line: file,
    line, problems, event. Either way, and also after Ctrl-C or SIGTERM, a table says which lines were acknowledged,
    that is, are on disk and visible, and with which one to go on (--from-line).

    \b
    Examples:
      segmentd send decisions.ndjson.gz
      segmentd send --rejects rejects.ndjson monday.ndjson tuesday.ndjson
      psql --tuples-only --no-align --file=decisions.sql | segmentd send
    \b
    Exit codes:
      0  every line was acknowledged
      1  not every line, or some were rejected; the table says which
      2  wrong usage
    """
    from segmentd.client import Options, Report

    names = files or (_STDIN,)
    if from_line > 1 and len(names) > 1:
        raise Misconfiguration("--from-line needs exactly one file")
    if names.count(_STDIN) > 1:
        raise Misconfiguration("standard input can be read only once")
    options = Options(gzip=compressed, events_per_request_max=batch, give_up_seconds=give_up_after)
    sent = [Sent(name, Report(from_line)) for name in names]
    with ExitStack() as stack:
        rejected = None if rejects is None else stack.enter_context(_Rejects(rejects))
        stack.enter_context(_sigterm_interrupts())
        progress = Progress(give_up_after)
        client = stack.enter_context(_client(url, key, options, progress))
        _send_all(client, sent, progress, rejected)
    for line in table(sent, rejects):
        click.echo(line)
    return DONE if all(file.state == "sent" and not file.report.rejected for file in sent) else FAILED


def _client(url: str, key: str, options: Options, progress: Progress) -> Client:
    from segmentd.client import Client

    try:
        return Client(url, key, options, on_step=progress.step)
    except ValueError as error:
        raise Misconfiguration(f"--url or --key: {error}") from None


def _send_all(client: Client, sent: Sequence[Sent], progress: Progress, rejects: _Rejects | None) -> None:
    """Send one file after the other, up to the first that cannot be sent whole."""
    from segmentd.client import ClientError, InvalidEvents
    from segmentd.client.lines import UnreadableFile

    for file in sent:
        try:
            _send_file(client, file, progress, None if rejects is None else rejects.of(file.name))
        except InvalidEvents as error:
            file.stop("stopped", f"{len({problem.number for problem in error.problems})} invalid", error.problems)
        except (ClientError, UnreadableFile) as error:
            file.stop("stopped", str(error))
        except OSError as error:
            file.stop("stopped", error.strerror or str(error))
        except KeyboardInterrupt:
            file.stop("interrupted", "interrupted")
        else:
            file.state = "sent"
            continue
        return


def _send_file(
    client: Client, file: Sent, progress: Progress, reject: Callable[[Line, Sequence[Problem]], None] | None
) -> None:
    from segmentd.client.lines import inflated, read_lines

    with _opened(file.name) as raw:
        status = os.fstat(raw.fileno())
        bytes_total = status.st_size if stat.S_ISREG(status.st_mode) else None
        with progress.of(file, bytes_total, raw.tell):
            lines = read_lines(inflated(raw), from_line=file.report.next_number, line_bytes_max=_LINE_BYTES_MAX)
            client.send_lines(lines, report=file.report, reject=reject)


def _opened(name: str) -> io.BufferedReader:
    # Standard input by its number: `sys.stdin` may be a wrapper that cannot be peeked into.
    return open(sys.stdin.fileno(), "rb", closefd=False) if name == _STDIN else Path(name).open("rb")


class _Rejects:
    """The file of the invalid events; what is in it stays."""

    def __init__(self, path: Path) -> None:
        """Raises Misconfiguration."""
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise Misconfiguration(f"--rejects {path}: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def of(self, name: str) -> Callable[[Line, Sequence[Problem]], None]:
        """What takes the invalid events of one file."""

        def take(line: Line, problems: Sequence[Problem]) -> None:
            entry: dict[str, Any] = {
                "file": name,
                "line": line.number,
                "problems": [{"field": p.field, "reason": p.reason, "message": p.message} for p in problems],
                "event": line.text.decode(errors="replace"),
            }
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()

        return take


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does, so that both end with the table."""

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
