"""Links of the OpenAPI document: which answer names what another operation takes, for tools that follow on."""

from __future__ import annotations

from typing import Final

from segmentd.http.openapi_parts import Json

_SEGMENT: Final = {"segment_id": "$request.path.segment_id"}
_IMPORT: Final = {"import_id": "$response.body#/id"}
_AUDIENCE: Final = {"audience_id": "$request.path.audience_id"}

# (operation, status) → the operations that can follow, with where their parameters come from.
LINKS: Final[dict[tuple[str, str], dict[str, dict[str, str]]]] = {
    **{
        ("putSegment", status): {"getSegment": _SEGMENT, "getMembers": _SEGMENT, "deleteSegment": _SEGMENT}
        for status in ("200", "201")
    },
    ("deleteSegment", "200"): {"getSegment": _SEGMENT, "putSegment": _SEGMENT},
    ("importAudience", "202"): {
        "getImport": _IMPORT,
        "cancelImport": _IMPORT,
        "deleteImport": _IMPORT,
        "getAudience": _AUDIENCE,
    },
    ("deleteAudience", "202"): {
        "getDeletion": {**_AUDIENCE, "deletion_id": "$response.body#/id"},
        "getAudience": _AUDIENCE,
    },
    ("forget", "202"): {
        "getForgetting": {"law": "$request.path.law", "request_id": "$response.body#/request_id"},
    },
}


def add_links(paths: Json) -> None:
    """Put the links into the answers that they belong to. Raises KeyError for an operation that is not there."""
    operations = {
        operation["operationId"]: operation
        for item in paths.values()
        for operation in item.values()
        if isinstance(operation, dict) and "operationId" in operation
    }
    for (name, status), following in LINKS.items():
        operations[name]["responses"][status]["links"] = {
            other: {"operationId": operations[other]["operationId"], "parameters": parameters}
            for other, parameters in following.items()
        }
