"""The settings page has every setting, as config/default.toml has it."""

import tomllib

from tests.docs.settingspage import DEFAULT, PAGE, page


def test_the_page_is_what_the_default_file_says() -> None:
    told = "docs/settings.md is out of date: run `python -m tests.docs.settingspage`"
    assert PAGE.read_text(encoding="utf-8") == page(), told


def test_the_page_has_every_setting() -> None:
    text = page()
    for section, table in tomllib.loads(DEFAULT.read_text(encoding="utf-8")).items():
        assert f"## {section}\n" in text
        if section not in {"identifiers", "keys"}:
            assert [key for key in table if f"\n| `{key}` | `" not in text.partition(f"## {section}\n")[2]] == []
