"""Our path templates as Quart's URL rules.

Owns the translation, and the form of a path in which Quart's map finds the same route as `routing.RouteTable` does for
the raw path: an encoded slash stays inside its part, and a verb belongs to a path whatever the method.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote

from werkzeug.routing import BaseConverter, Map

_NAME: Final = re.compile(r"\{(\w+)\}(:\w+)?")


class PartConverter(BaseConverter):
    """One part of a path, in which `%2F` and `%25` stand for themselves; `but`: verbs that other rules take."""

    def __init__(self, rules: Map, *but: str) -> None:
        super().__init__(rules)
        # Quart looks at the method first: without this, `GET x:validate` would be the segment called `x:validate`.
        self.regex = "".join(rf"(?!(?s:.+){re.escape(verb)}\Z)" for verb in but) + "[^/]+"

    def to_python(self, value: str) -> str:
        return unquote(value)


def rule_of(template: str, templates: Iterable[str]) -> str:
    """`/v3/segments/{segment_id}` as `/v3/segments/<part(":validate"):segment_id>`. templates: all that are served."""
    verbs = [other.removeprefix(template) for other in templates if other.startswith(f"{template}:")]

    def shown(found: re.Match[str]) -> str:
        name, verb = found.groups()
        but = ", ".join(f'"{other}"' for other in verbs)
        return f"<part({but}):{name}>{verb or ''}" if but else f"<part:{name}>{verb or ''}"

    return _NAME.sub(shown, template)


def raw_path_of(scope: Any) -> str:
    """The path as on the wire, without the query."""
    path: str = scope["raw_path"].decode("latin-1")
    if not path.startswith("/") and "://" in path:
        # A client that takes this for a proxy sends the whole address (RFC 9112 3.2.2).
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path


def routing_path(raw_path: str) -> str:
    """The path that Quart's map is asked for: decoded, but for what would be taken for a slash between parts."""
    if "%" not in raw_path and raw_path.startswith("/") and not raw_path.startswith("//"):
        return raw_path
    parts = [unquote(part, errors="replace") for part in raw_path.removeprefix("/").split("/")]
    path = "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)
    # Quart drops repeated slashes at the beginning, which would make another path of it.
    return f"/%2F{path}" if path.startswith("/") else f"/{path}"
