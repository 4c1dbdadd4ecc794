"""The shipped configuration files say the truth: every setting, its default, its range."""

import re
import tomllib
from collections.abc import Iterator

import msgspec
import pytest

from segmentd.settings import Section, Settings, environment_names, load
from tests.sources import ROOT

DEFAULT = ROOT / "config" / "default.toml"
DEVELOPMENT = ROOT / "config" / "development.toml"


def fields() -> Iterator[tuple[str, msgspec.structs.FieldInfo]]:
    """(section, field) of every setting outside the named tables."""
    for section in msgspec.structs.fields(Settings):
        if isinstance(section.type, type) and issubclass(section.type, Section):
            yield from ((section.name, field) for field in msgspec.structs.fields(section.type))


def comment_above(section: str, key: str) -> str:
    text = DEFAULT.read_text(encoding="utf-8").split(f"\n[{section}]\n")[1]
    found = re.search(rf"((?:^#.*\n)+){key} = ", text, re.MULTILINE)
    assert found, f"[{section}] {key} has no comment"
    return found[1]


def test_the_default_file_equals_the_defaults() -> None:
    assert load(DEFAULT, {}) == Settings()


def test_the_default_file_lists_every_setting() -> None:
    document = tomllib.loads(DEFAULT.read_text(encoding="utf-8"))
    assert {(section, field.name) for section, field in fields()} == {
        (section, key) for section, table in document.items() for key in table if section not in {"identifiers", "keys"}
    }
    assert set(document) == {field.name for field in msgspec.structs.fields(Settings)}
    for table in document["identifiers"].values():
        assert set(table) == {"confidence", "lower_case"}


@pytest.mark.parametrize(("section", "field"), [pytest.param(s, f, id=f"{s}.{f.name}") for s, f in fields()])
def test_the_default_file_tells_the_range_of_every_number(section: str, field: msgspec.structs.FieldInfo) -> None:
    described = msgspec.inspect.type_info(field.type)
    while isinstance(described, msgspec.inspect.Metadata):
        described = described.type
    comment = comment_above(section, field.name)
    if isinstance(described, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        bounds = [described.ge, described.gt, described.le, described.multiple_of]
        assert described.le is not None
        assert described.ge is not None or described.gt is not None
        numbers = {int(number) for number in re.findall(r"\d+", comment)}
        assert {bound for bound in bounds if bound is not None} <= numbers
    elif isinstance(described, msgspec.inspect.LiteralType):
        assert all(f'"{value}"' in comment for value in described.values)


def test_every_setting_has_a_variable() -> None:
    names = environment_names()
    for section, field in fields():
        assert names[f"SEGMENTD_{section.upper()}_{field.name.upper()}"] == (section, field.name)
    assert names["SEGMENTD_KEYS"] == ("keys", None)


def test_the_development_file_starts_on_loopback_with_passthrough_and_the_development_keys() -> None:
    settings = load(DEVELOPMENT, {})
    assert settings.server.address == ("127.0.0.1", 8080)
    assert settings.passthrough.enabled
    assert settings.log.format == "human"
    assert {key_id: key.right for key_id, key in settings.keys.items()} == {
        "dev-public": "public",
        "dev-private": "private",
    }
