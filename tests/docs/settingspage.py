"""docs/settings.md, made of config/default.toml: every setting with its default and what stands above it there.

`python -m tests.docs.settingspage` writes the page; a test compares.
"""

import re
import tomllib
from pathlib import Path
from typing import Final

from tests.sources import ROOT

DEFAULT: Final = ROOT / "config" / "default.toml"
PAGE: Final = ROOT / "docs" / "settings.md"

_HEAD: Final = """# Settings

`segmentd serve --config FILE`. A file needs only what differs from the defaults. Every setting can also be given in the
environment as `SEGMENTD_SECTION_NAME`, for example `SEGMENTD_SERVER_LISTEN=[::1]:8080`, and wins over the file;
`--listen`, `--data` and `--followers` win over both. An unknown name is an error. Sizes are in bytes, times in seconds.

This page is made of [config/default.toml](../config/default.toml) by `python -m tests.docs.settingspage`.
"""
# Tables whose names their users choose: shown as they stand in the file.
_NAMED: Final = ("identifiers", "keys")
_SECTION: Final = re.compile(r"^\[(\w+)\]\n(.*?)(?=^\[\w+\]\n|\Z)", re.MULTILINE | re.DOTALL)
_SETTING: Final = re.compile(r"((?:^#.*\n)+)(\w+) = (.+)$", re.MULTILINE)


def page() -> str:
    """The page's text."""
    text = DEFAULT.read_text(encoding="utf-8")
    sections = [_named(name, text) if name in _NAMED else _section(name, text) for name in tomllib.loads(text)]
    return "\n".join([_HEAD, *sections])


def _section(name: str, text: str) -> str:
    body = next(body for section, body in _SECTION.findall(text) if section == name)
    rows = [f"| `{key}` | `{value}` | {_prose(comment)} |" for comment, key, value in _SETTING.findall(body)]
    return "\n".join([f"## {name}\n", "| setting | default | meaning and range |", "|---|---|---|", *rows, ""])


def _named(name: str, text: str) -> str:
    """The comment above the tables and the tables themselves."""
    end = re.search(rf"^\[{name}[\].](?:.|\n)*?(?=\n\n(?:#.*\n)*\[(?!{name})|\Z)", text, re.MULTILINE)
    assert end, name
    above = text[: end.start()].rpartition("\n\n")[2]
    return f"## {name}\n\n```toml\n{above}{end[0].strip()}\n```\n"


def _prose(comment: str) -> str:
    return (
        " ".join(line.removeprefix("#").strip() for line in comment.splitlines())
        .replace("|", "\\|")
        .replace("<", "&lt;")
    )


def main(page_file: Path = PAGE) -> None:
    """Write the page."""
    page_file.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
