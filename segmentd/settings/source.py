"""Where settings come from: a TOML file, then the environment, then the command line; the later one wins.

Owns the reading and the naming of mistakes. Never holds a default or a range (`model.py` does).

Invariants:
1. Nothing is ignored: an unknown section, key or SEGMENTD_ variable is an error that names the nearest known one.
2. Every value remembers its origin, so that a mistake is named where it was made.
3. The values of [keys] are never repeated in a message: somebody may have put a secret there by mistake.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from segmentd.settings.checks import Conflict, conflicts
from segmentd.settings.expected import expected, plain
from segmentd.settings.model import IdentifierSettings, KeySettings, Settings
from segmentd.settings.section import Section

ENVIRONMENT_PREFIX = "SEGMENTD_"

# No settings of the server: the key of commands that are its clients, which may be exported in the same shell, and
# what storage/failpoints.py reads for the crash tests.
NO_SETTINGS = frozenset({"SEGMENTD_KEY", "SEGMENTD_FAILPOINT"})

# Tables whose keys are names that the operator chooses. They are replaced whole.
NAMED_TABLES: Mapping[str, type[Section]] = {"identifiers": IdentifierSettings, "keys": KeySettings}


class SettingsError(Exception):
    """A setting that cannot be used. The message is one line: origin, section, key, reason."""


class Override(NamedTuple):
    """A value that replaces the file's. `key` is None for a whole table; `origin` is what the user typed."""

    origin: str
    section: str
    key: str | None
    value: object


def load(path: Path | None, environ: Mapping[str, str], options: Sequence[Override] = ()) -> Settings:
    """Read the settings.

    path: a TOML file, or None for the defaults alone.
    environ: as os.environ; only names that begin with SEGMENTD_ are looked at.
    options: what the command line says, the strongest of the three.
    Raises SettingsError: unreadable file, unknown name, wrong type, out of range, or two settings that contradict.
    """
    builder = _Builder(str(path) if path else "defaults")
    if path:
        for section, table in _read(path).items():
            builder.take_section(str(path), section, table)
    for override in [*_environment(environ), *options]:
        builder.take(override)
    return builder.build()


class _Builder:
    """Collects values by section, checks each one alone, and remembers where it came from."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._values: dict[str, dict[str, Any]] = {}
        self._origins: dict[tuple[str, str], str] = {}

    def take_section(self, origin: str, section: str, table: object) -> None:
        if section not in _SECTIONS:
            raise SettingsError(f"{origin}: [{section}]: unknown section{_nearest(section, _SECTIONS, '[{}]')}")
        if not isinstance(table, dict):
            raise SettingsError(f"{origin}: [{section}]: expected a table, got {_kind(table)}")
        if section in NAMED_TABLES:
            self._take_named_table(origin, section, table)
            return
        for key, value in table.items():
            self.take(Override(origin, section, key, value))

    def take(self, override: Override) -> None:
        origin, section, key, value = override
        if key is None:
            self.take_section(origin, section, value)
            return
        checked = _checked(f"{origin}: [{section}]", _SECTIONS[section], key, value)
        self._values.setdefault(section, {})[key] = checked
        self._origins[section, key] = origin

    def _take_named_table(self, origin: str, section: str, table: Mapping[str, object]) -> None:
        entries: dict[str, Any] = {}
        for name, entry in table.items():
            place = f"{origin}: [{section}.{name}]"
            if not isinstance(entry, dict):
                raise SettingsError(f"{place}: expected a table, got {_kind(entry)}")
            entries[name] = _struct(place, NAMED_TABLES[section], entry)
            self._origins[section, name] = origin
        self._values[section] = entries
        self._origins[section, ""] = origin

    def build(self) -> Settings:
        sections: dict[str, Any] = {
            name: values if name in NAMED_TABLES else _SECTIONS[name](**values) for name, values in self._values.items()
        }
        settings = Settings(**sections)
        for conflict in conflicts(settings):
            raise SettingsError(self._describe(conflict))
        return settings

    def _describe(self, conflict: Conflict) -> str:
        section, key, reason = conflict
        origin = self._origins.get((section, key), self._origin)
        if section in NAMED_TABLES:
            return f"{origin}: [{section}{'.' if key else ''}{key}]: {reason}"
        return f"{origin}: [{section}] {key}: {reason}"


def _struct(place: str, kind: type[Section], entry: Mapping[str, object]) -> Section:
    values = {key: _checked(place, kind, key, value) for key, value in entry.items()}
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in values:
            raise SettingsError(f"{place} {field.name}: missing")
    return kind(**values)


def _checked(place: str, kind: type[Section], key: str, value: object) -> object:
    """`value` as the type of the field `key` of `kind`, its range checked. Raises SettingsError that names it."""
    types = _types(kind)
    if key not in types:
        raise SettingsError(f"{place} {key}: unknown setting{_nearest(key, types, '{}')}")
    shown = "" if kind is KeySettings else f" (got {value!r})"
    try:
        converted = msgspec.convert(value, types[key])
    except msgspec.ValidationError:
        raise SettingsError(f"{place} {key}: expected {expected(types[key])}{shown}") from None
    # NaN is neither too small nor too large.
    if isinstance(converted, float) and math.isnan(converted):
        raise SettingsError(f"{place} {key}: expected {expected(types[key])}{shown}")
    return converted


def _types(kind: type[Section]) -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is no TOML: {error}") from None


def _environment(environ: Mapping[str, str]) -> Iterable[Override]:
    known = environment_names()
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in NO_SETTINGS:
            continue
        if name not in known:
            raise SettingsError(f"{name}: unknown environment variable{_nearest(name, known, '{}')}")
        section, key = known[name]
        kind = None if key is None else _types(_SECTIONS[section])[key]
        yield Override(name, section, key, _environment_value(name, kind, environ[name]))


def environment_names() -> dict[str, tuple[str, str | None]]:
    """Every environment variable that is understood, with its section and key (None: the whole table)."""
    names: dict[str, tuple[str, str | None]] = {}
    for section, kind in _SECTIONS.items():
        if section in NAMED_TABLES:
            names[f"{ENVIRONMENT_PREFIX}{section.upper()}"] = (section, None)
            continue
        for field in msgspec.structs.fields(kind):
            names[f"{ENVIRONMENT_PREFIX}{section}_{field.name}".upper()] = (section, field.name)
    return names


def _environment_value(name: str, kind: Any, text: str) -> object:
    """The text of a variable as TOML would have it; a string needs no quotes, a list may be separated by commas."""
    described = None if kind is None else plain(kind)
    if isinstance(described, msgspec.inspect.StrType | msgspec.inspect.LiteralType):
        return text
    if isinstance(described, msgspec.inspect.VarTupleType) and not text.lstrip().startswith("["):
        return [entry.strip() for entry in text.split(",") if entry.strip()]
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        document = {}
    if list(document) != ["value"]:
        wanted = f"{expected(kind)} (got {text!r})" if described else "an inline table: {name = {...}, ...}"
        raise SettingsError(f"{name}: expected {wanted}")
    return document["value"]


def _nearest(name: str, known: Iterable[str], form: str) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f" (the nearest known one is {form.format(found[0])})" if found else ""


def _kind(value: object) -> str:
    return f"`{type(value).__name__}`"


_SECTIONS: dict[str, Any] = {name: NAMED_TABLES.get(name, kind) for name, kind in _types(Settings).items()}
