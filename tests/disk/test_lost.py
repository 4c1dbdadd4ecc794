"""What was promised and cannot be read any more stops the start and is named; nothing is removed or begun anew."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from segmentd.settings import StorageSettings
from segmentd.storage.checkpointer import FoldReport, arguments_of
from segmentd.storage.scrubber import ScrubberArguments, ScrubReport
from tests.disk.test_damaged import check
from tests.serverprocess import ServerProcess

SECONDS_MAX = 60


def serve(data: Path) -> subprocess.CompletedProcess[str]:
    """A start that must be refused."""
    command = [sys.executable, "-m", "segmentd", "serve", "--data", str(data), "--listen", "127.0.0.1:0"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_MAX)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that says why."""
    assert done.returncode == 1, done
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    return line


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of a server that has run once and was stopped."""
    with ServerProcess(tmp_path) as server, server.client(server.private_key) as client:
        event = {"type": "passthrough", "action": "qualify", "identifiers": {"fs_user_id": "ada"}}
        assert client.post("/v3/events", json={**event, "data": {"audience_id": "vip"}}).status_code == 202
        server.terminate()
        return server.data


@pytest.mark.parametrize("part", ["journal", "index"])
@pytest.mark.parametrize("empty", [True, False], ids=["empty", "absent"])
def test_a_store_without_its_file_is_not_begun_anew(data: Path, part: str, empty: bool) -> None:
    file = data / part / "data.mdb"
    whole = file.read_bytes()
    file.unlink()
    if empty:
        file.touch()
    reason = f"segmentd: {file}: is damaged: it is {'empty' if empty else 'not there'}; restore a backup"
    assert refusal(serve(data)).startswith(reason)
    assert check(data).stderr.startswith(reason)
    assert file.exists() == empty, "a refused start makes nothing"
    file.write_bytes(whole)
    assert check(data).returncode == 0


def test_a_folder_that_was_being_made_when_the_power_went_is_made(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    for part in ("journal", "index"):
        (server.data / part).mkdir(parents=True)
        (server.data / part / "data.mdb").touch()
    (server.data / "format.json").write_text('{"format": 1}')
    with server:
        assert json.loads((server.data / "format.json").read_bytes()) == {"format": 1, "made": True}


@pytest.mark.parametrize("kind", ["imports", "compliance"])
def test_what_was_promised_and_cannot_be_read_stops_the_start_and_stays(data: Path, kind: str) -> None:
    file = data / ("imports/018f-1/job.json" if kind == "imports" else "compliance/018f-1.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b'{"id": "018f-1", ')
    if kind == "imports":
        (file.parent / "staged").write_bytes(b"ada\n")
    line = refusal(serve(data))
    assert line.startswith(f"segmentd: {file}: is damaged: ")
    assert "put the file back" in line
    assert file.read_bytes() == b'{"id": "018f-1", '
    assert kind != "imports" or (file.parent / "staged").exists()


@pytest.mark.parametrize("kind", ["checkpointer", "scrubber"])
def test_a_child_that_cannot_open_the_store_answers_with_the_reason(data: Path, kind: str) -> None:
    file = data / "journal" / "data.mdb"
    file.write_bytes(b"\xff" * 8_192)
    arguments = arguments_of(data, StorageSettings())
    report: type[FoldReport | ScrubReport] = FoldReport
    asked = "fold 1\n"
    encoded = msgspec.json.encode(arguments)
    if kind == "scrubber":
        report, asked = ScrubReport, "copy\n"
        fields = msgspec.structs.asdict(arguments)
        encoded = msgspec.json.encode(ScrubberArguments(**fields, generation="new"))
    command = [sys.executable, "-m", f"segmentd.storage.{kind}", encoded.decode()]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
    assert done.stderr == ""
    error = msgspec.json.decode(done.stdout, type=report).error
    assert error is not None
    assert error.startswith(f"{file}: is damaged")
