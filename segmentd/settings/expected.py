"""Says in words what a setting's type and range are, for the message of whoever gave something else.

Pure: reads the types of `model.py`, nothing else.
"""

from __future__ import annotations

from typing import Any

from msgspec import inspect


def expected(kind: Any) -> str:
    """`kind`, the type of a field in `model.py`, as the object of "expected ..."."""
    return _describe(plain(kind))


def plain(kind: Any) -> inspect.Type:
    """What msgspec knows about `kind`."""
    described = inspect.type_info(kind)
    while isinstance(described, inspect.Metadata):
        described = described.type
    return described


def _describe(described: inspect.Type) -> str:
    match described:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            multiple = f", a multiple of {described.multiple_of}" if described.multiple_of else ""
            return f"an integer from {described.ge} to {described.le}{multiple}"
        case inspect.FloatType():
            above = f"above {described.gt}" if described.gt is not None else f"from {described.ge}"
            return f"a number {above}, at most {described.le}"
        case inspect.LiteralType():
            return " or ".join(f'"{value}"' for value in described.values)
        case inspect.StrType():
            return _describe_text(described)
        case inspect.VarTupleType():
            return f"an array of at most {described.max_length}, each {_describe(described.item_type)}"
    raise NotImplementedError(f"model.py has a type that this module cannot put into words: {described}")


def _describe_text(described: inspect.StrType) -> str:
    if described.pattern:
        return f"a string like {described.pattern}"
    return f"a string of {described.min_length} to {described.max_length} characters"
