"""ETags and the headers that compare them.

Owns the text form of a revision (`"3"`, a strong tag) and the reading of If-Match and If-None-Match (RFC 9110 13.1).
Never looks a segment up.
"""

from __future__ import annotations

import re
from typing import Final

from segmentd.http.errors import InvalidRequest

_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
TAGS_MAX: Final = 64

ANY: Final = "*"
Tags = frozenset[str]


def etag(revision: int) -> str:
    """The entity tag of a revision."""
    return f'"{revision}"'


def parse_tags(field: str, header: str | None, *, weak_too: bool) -> Tags | None:
    """The tags of If-Match or If-None-Match; `ANY` among them for `*`; None if the header is missing.

    weak_too: whether `W/"3"` counts as `"3"` (If-None-Match compares weakly, If-Match strongly).
    Raises InvalidRequest: a tag without quotes, or too many.
    """
    if header is None:
        return None
    if header.strip() == ANY:
        return frozenset({ANY})
    parts = [part.strip() for part in header.split(",")]
    if len(parts) > TAGS_MAX:
        raise InvalidRequest(field, f"{field} has {len(parts)} tags; at most {TAGS_MAX} are read.")
    tags: set[str] = set()
    for part in parts:
        found = _TAG.fullmatch(part)
        if found is None:
            raise InvalidRequest(field, f'{field} must be * or quoted revisions such as "3"; got {part[:40]}.')
        if weak_too or not found[1]:
            tags.add(found[2])
    return frozenset(tags)


def matches(tags: Tags, revision: int | None) -> bool:
    """Whether `tags` name this revision; None: there is no segment, and nothing matches."""
    return revision is not None and (ANY in tags or str(revision) in tags)
