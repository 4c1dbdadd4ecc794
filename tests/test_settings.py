"""Settings: a wrong one is named where it was made, the shipped files say the truth, the environment reaches all."""

from collections.abc import Callable
from pathlib import Path

import pytest

from segmentd.settings import Override, Settings, SettingsError, load
from tests.sources import ROOT

DEFAULT = ROOT / "config" / "default.toml"
DEVELOPMENT = ROOT / "config" / "development.toml"

Write = Callable[[str], Path]

KEY = f'right = "public"\nsalt = "{"ab" * 16}"\nsha256 = "{"0" * 64}"\n'


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes `x.toml` into the working directory, so that messages name it as short as a user would."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str) -> Path:
        path = Path("x.toml")
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def message_of(path: Path | None, **environ: str) -> str:
    with pytest.raises(SettingsError) as raised:
        load(path, environ)
    return str(raised.value)


# The file


def test_without_a_file_the_defaults_hold() -> None:
    assert load(None, {}) == Settings()


def test_what_a_file_leaves_out_has_its_default(write: Write) -> None:
    settings = load(write("[limits]\naudiences_max = 5\n"), {})
    assert settings.limits.audiences_max == 5
    assert settings.limits.segments_max == Settings().limits.segments_max
    assert settings.server == Settings().server


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[serve]", "[serve]: unknown section (the nearest known one is [server])"),
        ("server = 1", "[server]: expected a table, got `int`"),
        ("[server]\nlistn = 1", "[server] listn: unknown setting (the nearest known one is listen)"),
        ("[server]\nlisten = 8080", "[server] listen: expected a string of 1 to 300 characters (got 8080)"),
        ("[server]\nconnections_max = 0", "[server] connections_max: expected an integer from 1 to 1000000 (got 0)"),
        (
            "[server]\nshutdown_seconds_max = nan",
            "[server] shutdown_seconds_max: expected a number above 0, at most 3600 (got nan)",
        ),
        ("[passthrough]\nenabled = 1", "[passthrough] enabled: expected true or false (got 1)"),
        ('[log]\nlevel = "loud"', '[log] level: expected "debug" or "error" or "info" or "warning" (got \'loud\')'),
        ("[identifiers]\nvuid = 1", "[identifiers.vuid]: expected a table, got `int`"),
        ("[identifiers.vuid]", "[identifiers.vuid] confidence: missing"),
        (
            '[identifiers.vuid]\nconfidence = "mid"',
            '[identifiers.vuid] confidence: expected "high" or "low" (got \'mid\')',
        ),
        (
            '[identifiers.vuid]\nconfidence = "high"\ncase = 1',
            "[identifiers.vuid] case: unknown setting (the nearest known one is lower_case)",
        ),
        (
            "[storage]\njournal_map_bytes = 1",
            "[storage] journal_map_bytes: "
            "expected an integer from 1048576 to 17592186044416, a multiple of 4096 (got 1)",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_file_and_key(write: Write, text: str, reason: str) -> None:
    assert message_of(write(text)) == f"x.toml: {reason}"


def test_an_origin_that_is_no_origin_is_named(write: Write) -> None:
    assert message_of(write('[cors]\norigins = ["*", "shop.example"]')).startswith("x.toml: [cors] origins: expected")


def test_text_that_is_no_toml_is_named_with_its_line(write: Write) -> None:
    message = message_of(write("[server]\nlisten = \n"))
    assert message.startswith("x.toml: is no TOML: ")
    assert "line 2" in message


def test_bytes_that_are_no_text_are_named(write: Write) -> None:
    path = write("")
    path.write_bytes(b"[server]\nlisten = '\xff'")
    assert message_of(path).startswith("x.toml: is no TOML: ")


def test_a_file_that_is_not_there_is_named() -> None:
    assert message_of(Path("nowhere.toml")) == "nowhere.toml: cannot be read: No such file or directory"


# Settings that cannot stand together


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (
            "[storage]\njournal_bytes_max = 9_000_000_000",
            "[storage] journal_bytes_max: expected less than journal_map_bytes",
        ),
        (
            "[storage]\njournal_bytes_max = 65_536",
            "[storage] checkpoint_journal_bytes: expected at most journal_bytes_max",
        ),
        ('[storage]\npath = "a\\u0000b"', "[storage] path: expected a path without NUL"),
        (
            "[limits]\nbodies_bytes_max = 1048575",
            "[limits] bodies_bytes_max: expected at least events_body_bytes_max (1048576), got 1048575",
        ),
        (
            "[limits]\nevents_inflated_bytes_max = 1024",
            "[limits] events_inflated_bytes_max: expected at least events_body",
        ),
        (
            "[limits]\ngraphql_body_bytes_max = 1024",
            "[graphql] document_bytes_max: expected at most [limits] graphql_body",
        ),
        (
            "[runtime]\ngroup_changes_max = 499",
            "[runtime] group_changes_max: expected at least [limits] events_per_req",
        ),
        (
            "[runtime]\ncommit_queue_changes_max = 999",
            "[runtime] commit_queue_changes_max: expected at least group_changes",
        ),
        ("[identifiers]", "[identifiers]: expected at least one identifier with"),
        ('[identifiers.vuid]\nconfidence = "low"', "[identifiers]: expected at least one identifier with"),
        ('[identifiers._a]\nconfidence = "high"', "[identifiers._a]: expected a name"),
        ('[identifiers.1a]\nconfidence = "high"', "[identifiers.1a]: expected a name"),
        ('[identifiers.a-b]\nconfidence = "high"', "[identifiers.a-b]: expected a name"),
        (f'[keys."a b"]\n{KEY}', "[keys.a b]: expected an id"),
    ],
)
def test_a_contradiction_is_named_where_it_would_be_mended(write: Write, text: str, place: str) -> None:
    assert message_of(write(text)).startswith(f"x.toml: {place}")


def test_at_most_200_identifiers_fit_into_the_byte_that_names_them_on_disk(write: Write) -> None:
    tables = [f'[identifiers.name_{number}]\nconfidence = "high"\n' for number in range(201)]
    assert len(load(write("".join(tables[:200])), {}).identifiers) == 200
    assert message_of(write("".join(tables))) == "x.toml: [identifiers]: expected at most 200 identifiers, got 201"


# Where it listens


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65_535)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),  # noqa: S104  # parsed, not bound
    ],
)
def test_an_address_is_a_host_and_a_port(write: Write, listen: str, address: tuple[str, int]) -> None:
    assert load(write(f'[server]\nlisten = "{listen}"'), {}).server.address == address


@pytest.mark.parametrize(
    "listen",
    [
        "8080",
        ":8080",
        "host",
        "host:",
        "host:x",
        "host:65536",
        "host:-1",
        "::1:80",
        "[host]",
        "[::1]",
        "[]:80",
        "host:١",
    ],
)
def test_an_address_without_a_host_or_a_port_is_refused(write: Write, listen: str) -> None:
    assert message_of(write(f'[server]\nlisten = "{listen}"')).startswith("x.toml: [server] listen: expected ")


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "localhost:1"])
def test_the_development_keys_serve_loopback(listen: str) -> None:
    assert load(DEVELOPMENT, {"SEGMENTD_SERVER_LISTEN": listen}).server.listen == listen


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "server.example:1"])
def test_the_development_keys_serve_nothing_but_loopback(listen: str) -> None:
    message = message_of(DEVELOPMENT, SEGMENTD_SERVER_LISTEN=listen)
    assert message.startswith(f"SEGMENTD_SERVER_LISTEN: [server] listen: {listen} is not a loopback address")
    assert "'dev-public'" in message


# Keys


def test_keys_of_the_configuration_are_read(write: Write) -> None:
    key = load(write(f"[keys.shop]\n{KEY}"), {}).keys["shop"]
    assert (key.right, key.salt, key.sha256) == ("public", "ab" * 16, "0" * 64)


@pytest.mark.parametrize(
    "wrong",
    ['salt = "abc"', 'salt = "AB12AB12AB12AB12"', 'sha256 = "my-secret"', 'sha256 = "00"', 'secret = "my-secret"'],
)
def test_a_wrong_key_is_named_and_its_value_is_not_repeated(write: Write, wrong: str) -> None:
    name, _, value = wrong.partition(" = ")
    lines = [line for line in KEY.splitlines() if not line.startswith(f"{name} ")]
    message = message_of(write("\n".join(["[keys.shop]", *lines, wrong])))
    assert message.startswith(f"x.toml: [keys.shop] {name}: ")
    assert value.strip('"') not in message


@pytest.mark.parametrize("missing", ["right", "salt", "sha256"])
def test_a_key_without_one_of_its_parts_is_named(write: Write, missing: str) -> None:
    lines = [line for line in KEY.splitlines() if not line.startswith(f"{missing} ")]
    assert message_of(write("\n".join(["[keys.shop]", *lines]))) == f"x.toml: [keys.shop] {missing}: missing"


# The environment


@pytest.mark.parametrize(
    ("name", "text", "section", "key", "value"),
    [
        ("SEGMENTD_SERVER_LISTEN", "[::1]:1", "server", "listen", "[::1]:1"),
        ("SEGMENTD_LIMITS_AUDIENCES_MAX", "5", "limits", "audiences_max", 5),
        ("SEGMENTD_LIMITS_AUDIENCES_MAX", "1_000", "limits", "audiences_max", 1_000),
        ("SEGMENTD_SERVER_SHUTDOWN_SECONDS_MAX", "0.5", "server", "shutdown_seconds_max", 0.5),
        ("SEGMENTD_PASSTHROUGH_ENABLED", "true", "passthrough", "enabled", True),
        ("SEGMENTD_LOG_FORMAT", "human", "log", "format", "human"),
        (
            "SEGMENTD_CORS_ORIGINS",
            "https://a.example, https://b.example",
            "cors",
            "origins",
            ("https://a.example", "https://b.example"),
        ),
        ("SEGMENTD_CORS_ORIGINS", '["https://a.example"]', "cors", "origins", ("https://a.example",)),
        ("SEGMENTD_CORS_ORIGINS", "", "cors", "origins", ()),
    ],
)
def test_the_environment_wins_over_the_file(
    write: Write, name: str, text: str, section: str, key: str, value: object
) -> None:
    path = write('[server]\nlisten = "127.0.0.1:9"\n[limits]\naudiences_max = 7\n[cors]\norigins = ["*"]\n')
    assert getattr(getattr(load(path, {name: text}), section), key) == value


def test_the_identifiers_can_be_given_in_the_environment() -> None:
    settings = load(None, {"SEGMENTD_IDENTIFIERS": '{user = {confidence = "high", lower_case = true}}'})
    assert {name: kind.lower_case for name, kind in settings.identifiers.items()} == {"user": True}


def test_the_keys_can_be_given_in_the_environment() -> None:
    text = "{shop = {" + ", ".join(KEY.strip().splitlines()) + "}}"
    assert list(load(None, {"SEGMENTD_KEYS": text}).keys) == ["shop"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        (
            "LIMITS_AUDIENCE_MAX",
            "5",
            "unknown environment variable (the nearest known one is SEGMENTD_LIMITS_AUDIENCES_MAX)",
        ),
        ("LIMITS_AUDIENCES_MAX", "5x", "expected an integer from 1 to 1000000 (got '5x')"),
        ("LIMITS_AUDIENCES_MAX", "", "expected an integer from 1 to 1000000 (got '')"),
        ("LIMITS_AUDIENCES_MAX", "5\nx = 1", "expected an integer from 1 to 1000000 (got '5\\nx = 1')"),
        ("LIMITS_AUDIENCES_MAX", "0", "[limits] audiences_max: expected an integer from 1 to 1000000 (got 0)"),
        ("PASSTHROUGH_ENABLED", "yes", "expected true or false (got 'yes')"),
        ("IDENTIFIERS", "user", "expected an inline table: {name = {...}, ...}"),
        ("IDENTIFIERS", "5", "[identifiers]: expected a table, got `int`"),
        (
            "IDENTIFIERS",
            '{a = {confidence = "low"}}',
            '[identifiers]: expected at least one identifier with confidence = "high"',
        ),
    ],
)
def test_a_wrong_variable_is_named(name: str, text: str, reason: str) -> None:
    assert message_of(None, **{f"SEGMENTD_{name}": text}) == f"SEGMENTD_{name}: {reason}"


def test_other_variables_the_clients_key_and_the_failpoint_of_the_crash_tests_are_left_alone() -> None:
    environ = {"HOME": "x", "segmentd_x": "y", "SEGMENTD_KEY": "z", "SEGMENTD_FAILPOINT": "before_commit"}
    assert load(None, environ) == Settings()


def test_an_option_wins_over_the_environment_and_is_named() -> None:
    environ = {"SEGMENTD_SERVER_LISTEN": "127.0.0.1:1"}
    assert load(None, environ, [Override("--listen", "server", "listen", "[::1]:2")]).server.listen == "[::1]:2"
    with pytest.raises(SettingsError, match=r"^--listen: \[server\] listen: expected HOST:PORT"):
        load(None, environ, [Override("--listen", "server", "listen", "nowhere")])
