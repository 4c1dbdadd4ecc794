"""Request bodies exactly as the public SDKs send them.

Owns the two texts (a test compares the first with the installed SDK). Never decides what is asked.
"""

import json
from collections.abc import Sequence

from bench.world import IDENTIFIER_NAME


def python_sdk_body(value: str, segments: Sequence[str]) -> str:
    """The Python SDK's body: one constant text, everything that varies in variables."""
    text = (
        "query($userId: String, $audiences: [String]) {"
        f"customer({IDENTIFIER_NAME}: $userId) "
        "{audiences(subset: $audiences) {edges {node {name state}}}}}"
    )
    return json.dumps({"query": text, "variables": {"userId": value, "audiences": list(segments)}})


def javascript_sdk_body(value: str, segments: Sequence[str]) -> str:
    """The JavaScript SDK's body: the values are pasted into the text, so every user has a document of their own."""
    subset = ",".join(f'\\"{segment}\\"' for segment in segments)
    return (
        '{"query" : "query {customer'
        f'({IDENTIFIER_NAME} : \\"{value}\\") '
        "{audiences"
        f"(subset: [{subset}])"
        ' {edges {node {name state}}}}}"}'
    )
