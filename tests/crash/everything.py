"""Everything at once for a server that is about to die: events, segments, whole lists, backups, folds, reads.

Owns what was promised over all lives of one data folder, and the look whether it is kept. Knows nothing of segmentd's
own code. Each client has a random generator of its own, made from the seed.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random

import httpx

from tests.crash.inspection import inspect, segments_of
from tests.crash.load import Clients, create_segments
from tests.crash.model import MARKER, Model
from tests.crash.wholelists import (
    Decisions,
    Thread,
    TooManyWaitError,
    all_ended,
    exported,
    jobs,
    look,
    raise_if_timeout,
    show,
    upload,
)
from tests.serverprocess import ServerProcess

PEOPLE = 3_000
LISTED_SHARE = 0.7
BUSY_SECONDS = 0.1
MARKERS_ASKED = 200


class ListClient:
    """Uploads one whole list after the other."""

    def __init__(self, seed: str) -> None:
        self.decisions = Decisions()
        self._random = Random(seed)
        self._people = [f"listed-{number:05d}" for number in range(PEOPLE)]
        self._as_of = 0
        self._open: dict[int, frozenset[str]] = {}
        self._taken: set[str] = set()

    def run(self, server: ServerProcess) -> None:
        """Until the connection breaks."""
        with server.client(server.private_key) as client:
            while self._upload(client):
                pass

    def inspect(self, client: httpx.Client) -> None:
        """What was acknowledged is there; of what was not it shows which was taken."""
        found = {job["as_of"]: job["id"] for job in jobs(client)}
        assert self._taken <= set(found.values()), "an acknowledged import is gone"
        for as_of, people in self._open.items():
            if as_of in found:
                self._took(as_of, people, found[as_of])
        self._open.clear()

    def inspect_end(self, client: httpx.Client) -> None:
        """Once all have ended, the members are those of the rule."""
        ended = all_ended(client)
        assert {job["state"] for job in ended.values()} <= {"completed"}, ended
        found, expected = exported(client), self.decisions.members()
        assert sorted(found) == sorted(expected)
        assert look(client, []) == (len(expected), set())

    def _upload(self, client: httpx.Client) -> bool:
        self._as_of += 1_000
        people = frozenset(self._random.sample(self._people, int(PEOPLE * LISTED_SHARE)))
        self._open[self._as_of] = people
        try:
            job_id = upload(client, sorted(people), self._as_of)
        except httpx.TransportError as error:
            raise_if_timeout(error)
            return False
        except TooManyWaitError:
            del self._open[self._as_of]
            time.sleep(BUSY_SECONDS)
            return True
        self._took(self._as_of, self._open.pop(self._as_of), job_id)
        return True

    def _took(self, as_of: int, people: frozenset[str], job_id: str) -> None:
        self.decisions.lists[as_of] = people
        self._taken.add(job_id)


class BackupClient:
    """Takes one backup after the other, and knows of each what it must have."""

    def __init__(self, folder: Path) -> None:
        self.whole: list[tuple[Path, list[str]]] = []
        """(backup, markers that were acknowledged before it began)."""
        self.environ: Mapping[str, str] = {}
        """For the command, beside the inherited one."""
        self._folder = folder
        self._started = 0
        self._running: subprocess.Popen[str] | None = None
        self._ended = False

    def run(self, server: ServerProcess, clients: Clients) -> None:
        """Until `kill`, which may come in the middle of one."""
        self._ended = False
        while not self._ended:
            self._started += 1
            target = self._folder / str(self._started)
            markers = [marker for client in clients.events for marker in client.acknowledged]
            command = server.command("backup", str(target))
            environ = {**os.environ, **self.environ}
            self._running = subprocess.Popen(
                command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            output = self._running.communicate()[0]
            if self._running.returncode == 0:
                self.whole.append((target, markers))
            else:
                assert self._ended, f"a backup failed: {output}"

    def kill(self) -> None:
        """It shall not outlive the server."""
        self._ended = True
        if self._running is not None:
            self._running.kill()


class Everything:
    """All clients over all lives."""

    def __init__(self, folder: Path, seed: str, backups: Path) -> None:
        """backups: a folder for them that need not be there."""
        self.model = Model()
        self.clients = Clients(seed)
        self.lists = ListClient(f"{seed} lists")
        self.backups = BackupClient(backups)
        self._random = Random(f"{seed} inspection")
        self._folder = folder

    def begin(self, server: ServerProcess) -> None:
        """The segments through which memberships are seen."""
        create_segments(server)
        with server.client(server.private_key) as client:
            show(client)

    @contextmanager
    def sending(self, server: ServerProcess) -> Iterator[None]:
        """Load while the body runs; the body must end the server."""
        threads = [
            Thread(lambda: self.lists.run(server)),
            Thread(lambda: self.backups.run(server, self.clients)),
        ]
        for thread in threads:
            thread.start()
        try:
            with self.clients.sending(server, self.model):
                yield
                self.backups.kill()
        finally:
            self.backups.kill()
            for thread in threads:
                thread.end()

    def inspect(self, server: ServerProcess) -> None:
        """All that was promised is there, and nothing that was refused."""
        inspect(server, self.model, self.clients.segment.model, set(self.model.winners))
        with server.client(server.private_key) as client:
            self.lists.inspect(client)

    def inspect_end(self, server: ServerProcess) -> None:
        """Likewise, when everything that was begun has come to its end; and there was something to look at."""
        self.inspect(server)
        gone = [str(path) for path, _ in self.backups.whole if not path.is_dir()]
        assert not gone, f"backups that were completed are gone: {gone}"
        with server.client(server.private_key) as client:
            self.lists.inspect_end(client)
        assert self.model.size(MARKER) > 0, "no request was ever acknowledged; the test showed nothing"
        assert self.lists.decisions.lists, "no list was ever acknowledged"

    def inspect_backup(self) -> None:
        """One of the backups: brought back it is clean and has what was acknowledged before it began."""
        backup, markers = self._random.choice(self.backups.whole)
        restored = ServerProcess(_made(self._folder / "restored"))
        command = [*restored.command("restore", str(backup))]
        brought_back = subprocess.run(command, capture_output=True, text=True, check=False)
        assert brought_back.returncode == 0, brought_back.stdout + brought_back.stderr
        asked = self._random.sample(markers, min(MARKERS_ASKED, len(markers)))
        with restored, restored.client(restored.private_key) as client:
            wrong = {key: names for key, names in segments_of(client, asked).items() if names != [MARKER]}
            assert not wrong, f"acknowledged before backup {backup.name}, but not in it: {wrong}"
            restored.kill()
        shutil.rmtree(restored.data)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def wait_for_backups(everything: Everything, count: int, seconds_max: float) -> None:
    """Until so many are whole: a short test shall have one to look at."""
    deadline = time.monotonic() + seconds_max
    while len(everything.backups.whole) < count:
        assert time.monotonic() < deadline, "no backup ever came to its end"
        time.sleep(0.02)
