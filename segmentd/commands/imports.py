"""`segmentd import`: send whole lists to a server and watch them go in."""

from __future__ import annotations

import http.client
import json
import select
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

import click

from segmentd.commands.options import DONE, FAILED, Failure, Misconfiguration

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK_BYTES = 1 << 18
_POLL_SECONDS = 0.2
_TIMEOUT_SECONDS = 300.0
_ENDED = {"completed", "failed", "cancelled"}
_COLUMNS = ("rows", "qualified", "disqualified", "unchanged", "rejected")

Job = dict[str, Any]


class Server:
    """The HTTP API, as far as imports need it."""

    def __init__(self, url: str, key: str) -> None:
        """Raises Misconfiguration."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Misconfiguration(f"--url {url}: expected http://HOST:PORT or https://HOST:PORT")
        kind: Any = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connect: Callable[[], http.client.HTTPConnection] = lambda: kind(
            parts.netloc.rpartition("@")[2], timeout=_TIMEOUT_SECONDS
        )
        self._base = parts.path.rstrip("/")
        self._url = url
        self._headers = {"x-api-key": key}

    def send(self, path: Path, target: str, sent: Callable[[int], None]) -> Job:
        """Send a file; `sent` is told of each chunk's bytes. Raises Failure."""
        kind = "application/x-ndjson" if {".ndjson", ".jsonl"} & set(path.suffixes) else "text/csv"
        headers = {**self._headers, "content-type": kind, "content-length": str(path.stat().st_size)}
        with closing(self._connect()) as connection, path.open("rb") as file:
            try:
                connection.putrequest("POST", self._base + target)
                for name, value in headers.items():
                    connection.putheader(name, value)
                connection.endheaders()
                _send(connection, file, sent)
                return _job(connection.getresponse(), 202)
            except (OSError, http.client.HTTPException) as error:
                raise Failure(f"{self._url}: {error or type(error).__name__}") from None

    def job(self, job_id: str) -> Job:
        """The present state of a job. Raises Failure."""
        with closing(self._connect()) as connection:
            try:
                connection.request("GET", f"{self._base}/v3/imports/{job_id}", headers=self._headers)
                return _job(connection.getresponse(), 200)
            except (OSError, http.client.HTTPException) as error:
                raise Failure(f"{self._url}: {error or type(error).__name__}; the import {job_id} goes on") from None

    def fetch(self, target: str, out: BinaryIO) -> None:
        """Copy an answer of 200 to `out` as it comes. Raises Failure, also where the answer breaks off."""
        with closing(self._connect()) as connection:
            try:
                connection.request("GET", self._base + target, headers=self._headers)
                response = connection.getresponse()
                if response.status != 200:
                    _job(response, 200)
                while chunk := response.read(_CHUNK_BYTES):
                    out.write(chunk)
                out.flush()
            except (OSError, http.client.HTTPException) as error:
                raise Failure(f"{self._url}: {error or type(error).__name__}") from None


def _send(connection: http.client.HTTPConnection, file: Any, sent: Callable[[int], None]) -> None:
    while chunk := file.read(_CHUNK_BYTES):
        if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            return  # the server has answered already: something is wrong, and the answer says what
        try:
            connection.send(chunk)
        except (BrokenPipeError, ConnectionResetError):
            return
        sent(len(chunk))


def _job(response: http.client.HTTPResponse, expected: int) -> Job:
    body = response.read()
    try:
        answer = json.loads(body)
    except ValueError:
        answer = {}
    if response.status == expected and isinstance(answer, dict):
        return answer
    detail = answer.get("detail") if isinstance(answer, dict) else None
    reason = detail.get("message") if isinstance(detail, dict) else answer.get("message")
    raise Failure(f"{reason or 'no reason was given'} (status {response.status})")


@click.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The server.")
@click.option("--key", envvar="SEGMENTD_KEY", required=True, help="A private key. Better: $SEGMENTD_KEY.")
@click.option("--audience", metavar="ID", help="The audience; without it: the file's name up to .csv or .ndjson.")
@click.option("--identifier", metavar="NAME", help="The column that counts, where there are several.")
@click.option("--as-of", metavar="SECONDS", help="When the list was true. Without it: the largest ts inside, or now.")
@click.option("--dry-run", is_flag=True, help="Count, and change nothing.")
@click.option("--force", is_flag=True, help="Disqualify however many it takes.")
@click.option("--max-shrink", metavar="SHARE", help="The share of the members that may be disqualified, 0 to 1.")
@click.option("--no-wait", is_flag=True, help="Return when the list is taken; do not wait until it is through.")
def import_files(  # one parameter an option
    files: tuple[Path, ...],
    url: str,
    key: str,
    audience: str | None,
    identifier: str | None,
    as_of: str | None,
    dry_run: bool,
    force: bool,
    max_shrink: str | None,
    no_wait: bool,
) -> int:
    """Import whole lists: as of T, these are exactly the members.

    Whoever is listed qualifies, whoever is not and became a member before T is disqualified. A file is CSV or NDJSON,
    plain or gzip; its header is an identifier's name alone, or type,action,audience_id,ts,<identifier>.

    \b
    Examples:
      segmentd import vip_customers.csv.gz
      segmentd import --audience vip --as-of 1748851070 --dry-run export.csv
    """
    server = Server(url, key)
    audiences = [(file, audience or _audience_id(file)) for file in files]
    wishes = {"identifier": identifier, "as_of": as_of, "max_shrink": max_shrink}
    fields = {name: value for name, value in wishes.items() if value is not None}
    fields |= {name: "true" for name, wanted in (("dry_run", dry_run), ("force", force)) if wanted}
    jobs: list[tuple[Path, Job]] = []
    for file, audience_id in audiences:
        target = f"/v3/audiences/{quote(audience_id, safe='')}/imports" + (f"?{urlencode(fields)}" if fields else "")
        # One file that goes wrong is no reason to leave the others.
        job = _not_taken(audience_id)
        try:
            job = _upload(server, file, target)
            job = job if no_wait else _watch(server, job)
        except OSError as error:
            job = {**job, "state": "failed", "reason": error.strerror or str(error)}
        except Failure as failure:
            job = {**job, "state": "failed" if not job["id"] else "unknown", "reason": failure.format_message()}
        jobs.append((file, job))
    for line in _table(jobs):
        click.echo(line)
    return FAILED if any(job["state"] in {"failed", "cancelled", "unknown"} for _, job in jobs) else DONE


def _not_taken(audience_id: str) -> Job:
    return {"id": "", "audience_id": audience_id, "state": "failed", "rejects": [], **dict.fromkeys(_COLUMNS, 0)}


def _audience_id(file: Path) -> str:
    from segmentd.domain.wholelist import audience_id_of

    audience_id = audience_id_of(file.name)
    if audience_id is None:
        raise Misconfiguration(f"{file}: its name tells no audience (<audience id>.csv or .csv.gz); give --audience")
    return audience_id


def _upload(server: Server, file: Path, target: str) -> Job:
    with click.progressbar(length=file.stat().st_size, label=f"send {file.name}", file=sys.stderr) as bar:
        return server.send(file, target, bar.update)


def _watch(server: Server, job: Job) -> Job:
    """Wait until a job has ended."""
    start = time.monotonic()
    label = f"import {job['audience_id']}"
    with click.progressbar(length=1000, label=label, file=sys.stderr, item_show_func=_shown_rate) as bar:
        while job["state"] not in _ENDED:
            time.sleep(_POLL_SECONDS)
            job = server.job(job["id"])
            done = job["qualified"] + job["unchanged"]
            rate = f"{done / (time.monotonic() - start):,.0f} rows/s"
            bar.update(int(job["progress"] * 1000) - bar.pos, rate)
        bar.update(1000 - bar.pos)
    return job


def _shown_rate(rate: object) -> str:
    return str(rate or "")


def _table(jobs: list[tuple[Path, Job]]) -> Iterator[str]:
    rows = [("FILE", "AUDIENCE", "STATE", *(name.upper() for name in _COLUMNS), "IMPORT")]
    for file, job in jobs:
        counts = (str(job[name]) for name in _COLUMNS)
        rows.append((file.name, job["audience_id"], job["state"], *counts, job["id"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for file, job in jobs:
        if job["reason"]:
            yield f"{file.name}: {job['reason']}"
        for reject in job["rejects"]:
            yield f"{file.name}, line {reject['line']}: {reject['reason']}"
