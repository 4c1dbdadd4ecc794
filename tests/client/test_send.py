"""`segmentd send` beside a real server: what it prints, its exit codes, and that nobody is in doubt about a line."""

import gzip
import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from segmentd.client import Report
from segmentd.client.report import Problem
from segmentd.commands.sendreport import Sent, table
from tests.client.conftest import Serve, command, environ, event, members, ndjson, run_send

WAIT_SECONDS_MAX = 60.0


def rows(stdout: bytes) -> list[list[str]]:
    """The cells of the table, without the head."""
    return [re.split(r" {2,}", line) for line in stdout.decode().splitlines()[1:]]


def test_files_and_standard_input_go_in_and_the_table_counts_them(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    plain = ndjson(tmp_path / "plain.ndjson", [event(number) for number in range(600)])
    packed = tmp_path / "packed.ndjson.gz"
    packed.write_bytes(gzip.compress(f"{json.dumps(event(1_000))}\n\n".encode()))
    done = run_send(server.url, "--gzip", plain, packed, "-", stdin=json.dumps(event(2_000)).encode())
    assert (done.returncode, done.stderr) == (0, b"")
    assert rows(done.stdout) == [
        [str(plain), "sent", "600", "0", "600"],
        [str(packed), "sent", "1", "0", "1"],
        ["standard input", "sent", "1", "0", "1"],
    ]
    assert len(members(server)) == 602
    assert run_send(server.url, stdin=b"").returncode == 0


def test_an_invalid_event_is_named_and_from_line_goes_on_where_it_stopped(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    events = [event(number) for number in range(1, 31)]
    events[16]["action"] = "qualfy"
    file, after = ndjson(tmp_path / "a.ndjson", events), ndjson(tmp_path / "b.ndjson", [event(99)])
    done = run_send(server.url, "--batch", "5", file, after)
    assert done.returncode == 1
    head, *rest = rows(done.stdout)
    assert head == [str(file), "stopped", "15", "0", "15"]
    assert rest[0] == [str(after), "not sent", "0", "0", "0"]
    assert rest[1][0].startswith(f"{file}, line 17: action: ")
    assert rest[-1] == [f"{file}: nothing from line 16 on was applied; go on with --from-line 16"]
    assert members(server) == {f"u{number}" for number in range(1, 16)}
    events[16]["action"] = "qualify"
    done = run_send(server.url, "--from-line", "16", ndjson(file, events))
    assert (done.returncode, rows(done.stdout)) == (0, [[str(file), "sent", "15", "0", "30"]])
    assert len(members(server)) == 30


def test_with_rejects_all_others_are_sent_and_the_bad_ones_kept_with_their_reasons(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve()
    late = event(5) | {"data": {"audience_id": "vip", "ts": 9_999_999_999}}
    file = ndjson(tmp_path / "a.ndjson", [event(1), "{broken", "", event(4), late, event(6)])
    rejects = tmp_path / "rejects.ndjson"
    done = run_send(server.url, "--rejects", rejects, file)
    assert done.returncode == 1
    assert rows(done.stdout) == [
        [str(file), "sent", "3", "2", "6"],
        [f"{file}: 2 invalid and not sent, see {rejects}"],
    ]
    broken, out_of_range = map(json.loads, rejects.read_text(encoding="utf-8").splitlines())
    assert (broken["file"], broken["line"], broken["event"]) == (str(file), 2, "{broken")
    assert "no valid JSON" in broken["problems"][0]["message"]
    assert (out_of_range["line"], json.loads(out_of_range["event"])) == (5, late)
    assert out_of_range["problems"][0]["field"] == "data.ts"
    assert members(server) == {"u1", "u4", "u6"}


def test_a_wrong_key_and_a_missing_server_end_with_the_reason(serve: Serve, tmp_path: Path, unused_port: int) -> None:
    server = serve()
    file = ndjson(tmp_path / "a.ndjson", [event(1)])
    done = run_send(server.url, file, key="wrong")
    assert (done.returncode, rows(done.stdout)[1]) == (1, [f"{file}: Forbidden (status 403)"])
    done = run_send(f"http://127.0.0.1:{unused_port}", "--give-up-after", "0.5", file)
    assert done.returncode == 1
    assert re.fullmatch(rf"{re.escape(str(file))}: .*refused; given up after \d+ tries", rows(done.stdout)[1][0])
    assert done.stderr.count(b"\n") == 1
    assert b"refused; trying again for up to 0.5 seconds" in done.stderr


def test_a_file_that_cannot_be_read_on_is_told_with_the_line(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    torn = tmp_path / "torn.gz"
    torn.write_bytes(gzip.compress(b"".join(json.dumps(event(n)).encode() + b"\n" for n in range(100)))[:-4])
    done = run_send(server.url, "--batch", "10", torn)
    assert done.returncode == 1
    assert re.search(r"torn.gz: it cannot be read after line \d+: ", done.stdout.decode())
    taken = int(rows(done.stdout)[0][2])
    assert members(server) == {f"u{number}" for number in range(taken)}
    missing = run_send(server.url, tmp_path / "missing")
    assert (missing.returncode, rows(missing.stdout)[1]) == (1, [f"{tmp_path}/missing: No such file or directory"])


@pytest.mark.parametrize(
    "arguments",
    [["--from-line", "2", "a", "b"], ["-", "-"], ["--url", "nowhere"], ["--rejects", "/no/such/folder/file", "-"]],
)
def test_wrong_usage_is_told_in_one_line(arguments: list[str]) -> None:
    done = run_send("http://127.0.0.1:1", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_with_the_table_and_the_table_is_true(serve: Serve, number: signal.Signals) -> None:
    server = serve()
    child = subprocess.Popen(
        command(server.url, "--batch", "10"), env=environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    # 25 events: two requests go out, the third one waits for more.
    child.stdin.write(b"".join(json.dumps(event(n)).encode() + b"\n" for n in range(1, 26)))
    child.stdin.flush()
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while len(members(server)) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(number)
    stdout = child.communicate(timeout=WAIT_SECONDS_MAX)[0]
    assert child.returncode == 1
    [name, state, acknowledged, rejected, through], *remarks = rows(stdout)
    assert (name, state, rejected) == ("standard input", "interrupted", "0")
    assert acknowledged == through
    # The answer of the second request may not have been read yet; then the table says so.
    assert (acknowledged, "not known whether lines 11 to 20" in str(remarks)) in {("20", False), ("10", True)}
    assert members(server) == {f"u{n}" for n in range(1, 21)}


def test_a_server_that_is_killed_in_the_middle_and_comes_back_gets_every_line(
    serve: Serve, tmp_path: Path, unused_port: int
) -> None:
    server = serve(port=unused_port)
    file = ndjson(tmp_path / "a.ndjson", [event(number) for number in range(8_000)])
    child = subprocess.Popen(
        command(server.url, "--batch", "5", file), env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not members(server):
        assert time.monotonic() < deadline
    assert child.poll() is None, "the file is too short for this test"
    server.restart()
    stdout, stderr = child.communicate(timeout=WAIT_SECONDS_MAX * 2)
    assert (child.returncode, rows(stdout)) == (0, [[str(file), "sent", "8000", "0", "8000"]])
    assert b"trying again" in stderr
    assert len(members(server)) == 8_000


def test_on_a_terminal_there_is_a_bar_with_the_rate(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    file = ndjson(tmp_path / "a.ndjson", [event(number) for number in range(100)])
    ours, terminal = pty.openpty()
    try:
        with subprocess.Popen(
            command(server.url, file), env=environ() | {"TERM": "xterm"}, stdout=subprocess.PIPE, stderr=terminal
        ) as child:
            child.communicate(timeout=WAIT_SECONDS_MAX)
        shown = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(terminal)
    assert child.returncode == 0
    assert "100%" in shown
    assert "rows/s" in shown


def test_the_table_tells_which_lines_are_in_doubt_and_cuts_a_long_list() -> None:
    report = Report(next_number=501, acknowledged=500, unknown=(501, 1_000))
    file = Sent("a.ndjson", report)
    file.stop("stopped", "no answer", [Problem(600 + n, "data.ts", "X", "Wrong.") for n in range(30)])
    remarks = list(table([file], None))[2:]
    assert remarks[0] == "a.ndjson, line 600: data.ts: Wrong."
    assert remarks[20:] == [
        "a.ndjson: and 10 more",
        "a.ndjson: no answer",
        "a.ndjson: it is not known whether lines 501 to 1000 were applied, all of them or none; "
        "sending them again is safe",
        "a.ndjson: nothing from line 1001 on was applied; go on with --from-line 501",
    ]
