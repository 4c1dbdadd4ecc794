"""Keys: the file, the keyring, rotation while the server runs."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from segmentd import keyfile
from segmentd.domain.refusals import StoreUnavailable
from segmentd.http.auth import WATCH_SECONDS, Key, Keyring
from segmentd.keyfile import KeyFileError
from tests.http.world import hashed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return keyfile.path_in(tmp_path / "data")


def test_a_made_key_opens_what_its_right_allows(path: Path) -> None:
    web, public = keyfile.create(path, "public", "web")
    ops, private = keyfile.create(path, "private")
    keyring = Keyring({}, path)
    assert keyring.authenticate(public) == Key(web, "public")
    assert keyring.authenticate(private) == Key(ops, "private")
    assert [(key.may("public"), key.may("private")) for key in (Key("a", "public"), Key("b", "private"))] == [
        (True, False),
        (True, True),
    ]


@pytest.mark.parametrize("secret", [None, "", "wrong", "x" * 100_000, "é"])
def test_anything_else_opens_nothing(path: Path, secret: str | None) -> None:
    keyfile.create(path, "public")
    assert Keyring({}, path).authenticate(secret) is None


def test_the_file_has_no_secret_and_nobody_else_may_read_it(path: Path) -> None:
    _, secret = keyfile.create(path, "private", "ops")
    assert len(secret) >= 22, "128 bits at least"
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["keys"]["ops"].keys() == {"right", "salt", "sha256", "created"}


def test_the_file_keeps_its_mode_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        keyfile.create(path, "private")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_equal_rights_have_different_salts_and_secrets(path: Path) -> None:
    made = [keyfile.create(path, "public") for _ in range(3)]
    assert len({secret for _, secret in made}) == len({key_id for key_id, _ in made}) == 3
    assert len({key.salt for _, key in keyfile.list_keys(path)}) == 3


def test_revoking_takes_one_key_away(path: Path) -> None:
    keyfile.create(path, "public", "old")
    _, secret = keyfile.create(path, "public", "new")
    keyfile.revoke(path, "old")
    assert [key_id for key_id, _ in keyfile.list_keys(path)] == ["new"]
    assert Keyring({}, path).authenticate(secret) == Key("new", "public")


def test_mistakes_are_named_with_the_file(path: Path) -> None:
    keyfile.create(path, "public", "web")
    for mistake in (
        lambda: keyfile.create(path, "public", "web"),
        lambda: keyfile.create(path, "public", "a b"),
        lambda: keyfile.revoke(path, "other"),
    ):
        with pytest.raises(KeyFileError, match=str(path)):
            mistake()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"version":2,"keys":{}}', '{"version":1}', '{"version":1,"keys":{"a":{"right":"root"}}}'],
)
def test_a_file_that_is_none_is_an_error_and_not_no_keys(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(KeyFileError, match=str(path)):
        Keyring({}, path)
    with pytest.raises(KeyFileError, match=str(path)):
        keyfile.create(path, "public")
    assert path.read_text() == content


def test_keys_made_at_the_same_time_are_all_kept(path: Path) -> None:
    threads = [threading.Thread(target=keyfile.create, args=(path, "public", f"key-{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keyfile.list_keys(path)) == 8


def test_configured_keys_and_those_of_the_file_hold_side_by_side(path: Path) -> None:
    _, secret = keyfile.create(path, "private", "ops")
    keyring = Keyring({"web": hashed("public", "configured")}, path)
    assert keyring.authenticate("configured") == Key("web", "public")
    assert keyring.authenticate(secret) == Key("ops", "private")
    assert len(keyring) == 2


def test_a_changed_file_is_noticed_and_a_remembered_secret_forgotten(path: Path) -> None:
    keyring = Keyring({}, path)
    assert not keyring.refresh_if_changed()
    _, secret = keyfile.create(path, "public", "web")
    assert keyring.authenticate(secret) is None
    assert keyring.refresh_if_changed()
    assert keyring.authenticate(secret) == Key("web", "public")
    assert not keyring.refresh_if_changed()
    keyfile.revoke(path, "web")
    assert keyring.refresh_if_changed()
    assert keyring.authenticate(secret) is None


def test_a_removed_file_takes_its_keys_away(path: Path) -> None:
    _, secret = keyfile.create(path, "public")
    keyring = Keyring({}, path)
    path.unlink()
    assert keyring.refresh_if_changed()
    assert keyring.authenticate(secret) is None


def test_a_broken_file_leaves_the_former_keys_in_force(path: Path) -> None:
    _, secret = keyfile.create(path, "public", "web")
    keyring = Keyring({}, path)
    path.write_text("{")
    assert not keyring.refresh_if_changed()
    assert keyring.authenticate(secret) == Key("web", "public")


async def test_the_watch_sees_a_change_within_a_second(
    path: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    keyring = Keyring({}, path)
    nursery.start_soon(keyring.watch)
    await trio.testing.wait_all_tasks_blocked()
    _, secret = keyfile.create(path, "public", "web")
    await trio.sleep(2 * WATCH_SECONDS)
    assert 2 * WATCH_SECONDS <= 1
    assert keyring.authenticate(secret) == Key("web", "public")


def test_the_development_keys_are_recognised_whatever_they_are_called() -> None:
    keys = {"a": hashed("public", "dev-public"), "b": hashed("private", "dev-private"), "c": hashed("public", "mine")}
    assert Keyring(keys).development_keys() == ["a", "b"]
    assert Keyring({"c": keys["c"]}).development_keys() == []


class Source:
    """Keys that are somewhere else; every look takes a moment."""

    def __init__(self) -> None:
        self.keys: dict[str, keyfile.StoredKey] = {}
        self.refusal: StoreUnavailable | None = None
        self._seen: dict[str, keyfile.StoredKey] | None = None

    async def changed(self) -> dict[str, keyfile.StoredKey] | None:
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal
        if self.keys == self._seen:
            return None
        self._seen = dict(self.keys)
        return self._seen

    def make(self, right: keyfile.Right, key_id: str) -> str:
        made = keyfile.new_key(right, key_id, keyfile.Rates())
        assert made is not None
        self.keys[made.id] = made.stored
        return made.secret


async def test_keys_of_a_source_are_in_force_within_a_second_and_so_is_their_revocation(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    source = Source()
    secret = source.make("public", "web")
    keyring = Keyring({"ops": hashed("private", "configured")}, source=source)
    assert keyring.authenticate(secret) is None
    await keyring.refresh()
    assert keyring.authenticate(secret) == Key("web", "public")
    assert keyring.authenticate("configured") == Key("ops", "private")
    nursery.start_soon(keyring.watch)
    del source.keys["web"]
    later = source.make("private", "later")
    await trio.sleep(2 * WATCH_SECONDS)
    assert keyring.authenticate(secret) is None
    assert keyring.authenticate(later) == Key("later", "private")
    assert keyring.authenticate("configured") == Key("ops", "private")


async def test_a_source_that_cannot_be_reached_changes_nothing_and_is_told_of_once() -> None:
    source = Source()
    secret = source.make("public", "web")
    keyring = Keyring({}, source=source)
    await keyring.refresh()
    source.refusal = StoreUnavailable("The cluster is away.", 3)
    source.keys.clear()
    with capture_logs() as logs:
        for _ in range(3):
            await keyring.refresh()
    assert keyring.authenticate(secret) == Key("web", "public")
    assert [entry["reason"] for entry in logs] == ["The cluster is away."]
    source.refusal = None
    await keyring.refresh()
    assert keyring.authenticate(secret) is None


@pytest.mark.parametrize("key_id", ["", "a b", "x" * 65, "é"])
def test_no_store_takes_an_id_that_is_not_allowed(path: Path, key_id: str) -> None:
    store: keyfile.KeyStore = keyfile.KeyFile(path)
    assert keyfile.new_key("public", key_id, keyfile.Rates()) is None
    with pytest.raises(keyfile.KeyStoreError, match="is not 1 to 64"):
        store.create("public", key_id)
    assert store.list_keys() == []
