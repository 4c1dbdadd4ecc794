"""The command line: what each command prints, where, and the exit code that a script can rely on."""

import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from segmentd import __version__, keyfile
from segmentd.cli import commands, run
from segmentd.storage.folder import DataFolder
from tests.sources import ROOT

DEVELOPMENT = str(ROOT / "config" / "development.toml")
MAP_BYTES = 1 << 20
SMALL_MAPS = {
    "SEGMENTD_STORAGE_JOURNAL_MAP_BYTES": str(MAP_BYTES),
    "SEGMENTD_STORAGE_JOURNAL_BYTES_MAX": "65536",
    "SEGMENTD_STORAGE_CHECKPOINT_JOURNAL_BYTES": "65536",
    "SEGMENTD_STORAGE_INDEX_MAP_BYTES": str(MAP_BYTES),
}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the variables that a test sets itself."""
    for name in [name for name in os.environ if name.startswith("SEGMENTD_")]:
        monkeypatch.delenv(name)


def line_on_stderr(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.rstrip("\n")


def segmentd(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "segmentd", *arguments]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=60)


# Help and version


@pytest.mark.parametrize(
    "path", [[], ["serve"], ["check"], ["version"], ["keys"], ["keys", "create"], ["keys", "list"], ["keys", "revoke"]]
)
def test_every_command_explains_itself(path: Sequence[str]) -> None:
    for flag in ("-h", "--help"):
        result = CliRunner().invoke(commands, [*path, flag], prog_name="segmentd")
        assert result.exit_code == 0
        assert result.output.startswith(f"Usage: {' '.join(['segmentd', *path])} [OPTIONS]")
        assert "Show this message and exit." in result.output


def test_every_command_that_takes_settings_shows_an_example() -> None:
    for path in (["serve"], ["check"], ["keys", "create"], ["keys", "list"], ["keys", "revoke"]):
        assert f"  segmentd {' '.join(path)} " in CliRunner().invoke(commands, [*path, "--help"]).output


def test_the_help_tells_the_exit_codes() -> None:
    output = CliRunner().invoke(commands, ["--help"]).output
    assert "0  done" in output
    assert "1  failed" in output
    assert "2  wrong usage or configuration" in output


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_the_version_is_printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    assert capsys.readouterr().out == f"segmentd {__version__}\n"


def test_the_version_needs_none_of_the_libraries_of_the_server() -> None:
    heavy = "{'trio', 'quart', 'hypercorn', 'lmdb', 'graphql', 'msgspec', 'prometheus_client'}"
    program = f"import sys; from segmentd.cli import run; run(['version']); assert not {heavy} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, f"segmentd {__version__}\n")


def test_the_version_of_the_package_is_that_of_the_program() -> None:
    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


# Wrong usage and configuration: 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sing"], "segmentd: No such command 'sing'. (see segmentd --help)"),
        (["serve", "--port", "1"], "segmentd: No such option '--port'. (see segmentd serve --help)"),
        (["check", "x"], "segmentd: Got unexpected extra argument (x) (see segmentd check --help)"),
        (
            ["keys", "create"],
            "segmentd: Missing option '--right'. Choose from: public, private (see segmentd keys create --help)",
        ),
        (["keys", "revoke"], "segmentd: Missing argument 'ID'. (see segmentd keys revoke --help)"),
        (["serve", "--config", "nowhere.toml"], "segmentd: nowhere.toml: cannot be read: No such file or directory"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert line_on_stderr(capsys) == message


@pytest.mark.parametrize("arguments", [[], ["keys"]])
def test_without_a_command_the_help_goes_to_stderr_with_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: segmentd")


@pytest.mark.parametrize("command", [["serve"], ["check"], ["keys", "list"]])
def test_a_wrong_setting_is_named_with_exit_code_2(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "x.toml"
    config.write_text("[server]\nlisten = 8080\n", encoding="utf-8")
    assert run([*command, "--config", str(config)]) == 2
    assert line_on_stderr(capsys).startswith(f"segmentd: {config}: [server] listen: expected ")


def test_a_wrong_variable_is_named_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGMENTD_SERVER_LISTN", "127.0.0.1:1")
    assert run(["check"]) == 2
    assert line_on_stderr(capsys).startswith("segmentd: SEGMENTD_SERVER_LISTN: unknown environment variable")


def test_a_wrong_address_on_the_command_line_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--listen", "nowhere"]) == 2
    assert line_on_stderr(capsys).startswith("segmentd: --listen: [server] listen: expected HOST:PORT")


@pytest.mark.parametrize(
    ("folder", "kind", "found"),
    [("index", "cluster", "an embedded store"), ("outbox", "embedded", "a node of a cluster")],
)
def test_a_data_folder_of_the_other_kind_of_store_is_not_taken_for_an_empty_one(
    folder: str,
    kind: str,
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = DataFolder(tmp_path, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES)
    if folder == "index":
        data.open_journal().close()
        data.open_index().close()
    else:
        (tmp_path / folder).mkdir()
    data.close()
    monkeypatch.setenv("SEGMENTD_STORE_KIND", kind)
    monkeypatch.setenv("SEGMENTD_STORE_ADDRESSES", '["127.0.0.1:1"]')
    arguments = ["serve", "--config", DEVELOPMENT, "--data", str(tmp_path), "--listen", "127.0.0.1:0"]
    assert run(arguments) == 1
    line = line_on_stderr(capsys)
    assert f"{tmp_path}: is the folder of {found}" in line
    assert "segmentd migrate" in line


def test_the_development_keys_are_not_served_to_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--config", DEVELOPMENT, "--data", str(tmp_path), "--listen", "0.0.0.0:0"]) == 2
    assert line_on_stderr(capsys).startswith("segmentd: --listen: [server] listen: 0.0.0.0:0 is not a loopback address")
    assert list(tmp_path.iterdir()) == []


# Keys


def test_a_created_key_is_printed_once_and_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "create", "--data", str(tmp_path), "--right", "public", "--id", "shop"]) == 0
    captured = capsys.readouterr()
    secret = captured.out.rstrip("\n")
    assert "the public key shop" in captured.err
    stored = keyfile.read(keyfile.path_in(tmp_path))["shop"]
    assert stored.right == "public"
    assert keyfile.hash_of(bytes.fromhex(stored.salt), secret).hex() == stored.sha256
    assert secret not in keyfile.path_in(tmp_path).read_text(encoding="utf-8")
    assert stat.S_IMODE(keyfile.path_in(tmp_path).stat().st_mode) == 0o600


def test_the_list_shows_keys_of_both_places_and_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", DEVELOPMENT, "--data", str(tmp_path)]
    assert run(["keys", "create", *options, "--right", "private", "--id", "nightly"]) == 0
    secret = capsys.readouterr().out.strip()
    assert run(["keys", "list", *options]) == 0
    output = capsys.readouterr().out
    rows = [line.split()[:2] for line in output.splitlines()]
    assert rows == [["ID", "RIGHT"], ["dev-private", "private"], ["dev-public", "public"], ["nightly", "private"]]
    assert secret not in output


def test_a_revoked_key_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(tmp_path)]
    assert run(["keys", "create", *data, "--right", "public", "--id", "shop"]) == 0
    assert run(["keys", "revoke", *data, "shop"]) == 0
    assert keyfile.read(keyfile.path_in(tmp_path)) == {}
    capsys.readouterr()
    assert run(["keys", "revoke", *data, "shop"]) == 1
    assert line_on_stderr(capsys).endswith("there is no key 'shop'")


def test_a_key_of_the_configuration_is_neither_made_again_nor_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--config", DEVELOPMENT, "--data", str(tmp_path)]
    assert run(["keys", "create", *options, "--right", "public", "--id", "dev-public"]) == 1
    assert line_on_stderr(capsys) == "segmentd: the key 'dev-public' is in the configuration already"
    assert run(["keys", "revoke", *options, "dev-public"]) == 1
    assert line_on_stderr(capsys).endswith("is in the configuration: remove [keys.dev-public] there")


def test_a_key_id_that_is_taken_or_not_allowed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create = ["keys", "create", "--data", str(tmp_path), "--right", "public", "--id"]
    assert run([*create, "shop"]) == 0
    capsys.readouterr()
    assert run([*create, "shop"]) == 1
    assert line_on_stderr(capsys).endswith("there is a key 'shop' already")
    assert run([*create, "a b"]) == 1
    assert "'a b'" in line_on_stderr(capsys)


def test_a_broken_key_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = keyfile.path_in(tmp_path)
    path.write_text("{", encoding="utf-8")
    assert run(["keys", "list", "--data", str(tmp_path)]) == 1
    assert line_on_stderr(capsys).startswith(f"segmentd: {path}: ")


# Check


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder with small maps."""
    for name, value in SMALL_MAPS.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "data"
    with DataFolder(path, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES) as folder:
        folder.open_journal().close()
        folder.open_index().close()
    return path


def test_a_sound_folder_is_clean(data_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--data", str(data_folder)]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("0 segments, 0 journal records: no differences\n")
    assert captured.err == ""


def test_a_difference_is_printed_with_exit_code_1(data_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with DataFolder(data_folder, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES) as folder:
        index = folder.open_index()
        with index.writing() as transaction:
            transaction.put(b"\x00user", b"odd", db=index.memberships_db)
        index.close()
    assert run(["check", "--data", str(data_folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("memberships: #0:'user' has 3 bytes")
    assert lines[-1].endswith(": 1 difference")


def test_a_folder_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--data", str(tmp_path)]) == 1
    assert line_on_stderr(capsys).startswith(f"segmentd: {tmp_path}: this is no data folder")


def test_a_folder_in_use_is_named(data_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with DataFolder(data_folder, journal_map_bytes=MAP_BYTES, index_map_bytes=MAP_BYTES):
        assert run(["check", "--data", str(data_folder)]) == 1
    assert str(data_folder) in line_on_stderr(capsys)


# As a process


def test_the_module_runs_as_a_program() -> None:
    result = segmentd("version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"segmentd {__version__}\n", "")


def test_a_failure_of_the_program_is_one_line_without_a_trace(tmp_path: Path) -> None:
    result = segmentd("check", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == "segmentd: data: this is no data folder of segmentd (format.json is missing)\n"


def test_a_misconfiguration_of_the_program_is_one_line_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[limits]\naudiences_max = -1\n", encoding="utf-8")
    result = segmentd("serve", "--config", "x.toml", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "segmentd: x.toml: [limits] audiences_max: expected an integer from 1 to 1000000 (got -1)\n"
