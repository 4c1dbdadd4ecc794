"""GraphQL errors as clients see them.

Every error, of whatever phase, leaves with `extensions {code, classification}`: the code is ours, the classification is
graphql-java's vocabulary, which the Optimizely SDKs read. What was not foreseen becomes INTERNAL without details; the
details go to the log.
"""

from collections.abc import Iterable
from typing import Any, Final

import structlog
from graphql import GraphQLError, GraphQLSyntaxError

# A message repeats names from the document; a document may be one long name.
MESSAGE_CHARS_MAX: Final = 1_000
INTERNAL_MESSAGE: Final = "Internal error: the details are in the service's log."

_log = structlog.get_logger(__name__)


class ReadError(GraphQLError):
    """A field that cannot be answered, for a reason that the client can act on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, extensions={"code": code, "classification": "DataFetchingException"})


class LimitError(GraphQLError):
    """A document that asks for more than a [graphql] setting allows."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, extensions={"code": code, "classification": "ExecutionAborted"})


class RequestRefused(Exception):  # not every refusal is an error of ours
    """The request was not executed; `errors` say why, each with its extensions."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors[0]["message"])
        self.errors = errors


def syntax_refused(error: GraphQLSyntaxError) -> RequestRefused:
    """The text is no GraphQL document."""
    return RequestRefused([_shaped(error, "INVALID_SYNTAX", "InvalidSyntax")])


def validation_refused(errors: Iterable[GraphQLError]) -> RequestRefused:
    """The document does not fit the schema."""
    return RequestRefused([_shaped(error, "VALIDATION_ERROR", "ValidationError") for error in errors])


def limit_refused(error: LimitError) -> RequestRefused:
    """The document asks for too much."""
    return RequestRefused([_shaped(error, "LIMIT_EXCEEDED", "ExecutionAborted")])


def operation_refused(errors: Iterable[GraphQLError]) -> RequestRefused:
    """The document has no such operation, or several and none was chosen."""
    return RequestRefused([_shaped(error, "UNKNOWN_OPERATION", "ValidationError") for error in errors])


def variables_refused(errors: Iterable[GraphQLError]) -> RequestRefused:
    """The variables do not fit the operation."""
    return RequestRefused([_shaped(error, "INVALID_VARIABLES", "ValidationError") for error in errors])


def field_error(error: GraphQLError) -> dict[str, Any]:
    """An error of one field, beside the data."""
    if not error.extensions and not _is_foreseen(error):
        _log.error("graphql_field_failed", path=error.path, exc_info=error.original_error)
        shaped = _shaped(error, "INTERNAL", "DataFetchingException")
        shaped["message"] = INTERNAL_MESSAGE
        return shaped
    return _shaped(error, "INVALID_ARGUMENT", "ValidationError")


def internal_error() -> dict[str, Any]:
    """An error of the engine itself, without a place."""
    return {
        "message": INTERNAL_MESSAGE,
        "extensions": {"code": "INTERNAL", "classification": "DataFetchingException"},
    }


def _is_foreseen(error: GraphQLError) -> bool:
    """Whether graphql-core itself raised it (arguments that do not fit), rather than a resolver failing."""
    original = error.original_error
    return original is None or isinstance(original, GraphQLError)


def _shaped(error: GraphQLError, code: str, classification: str) -> dict[str, Any]:
    shaped: dict[str, Any] = {"message": _printable(error.message)}
    if error.locations:
        shaped["locations"] = [{"line": at.line, "column": at.column} for at in error.locations]
    if error.path is not None:
        shaped["path"] = [str(step) for step in error.path]
    shaped["extensions"] = dict(error.extensions or {"code": code, "classification": classification})
    return shaped


def _printable(message: str) -> str:
    """Cut, and without lone surrogates, which no JSON encoder takes and variables may bring."""
    if len(message) > MESSAGE_CHARS_MAX:
        message = message[: MESSAGE_CHARS_MAX - 1] + "…"
    return message.encode("utf-8", "backslashreplace").decode()
