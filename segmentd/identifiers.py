"""From the configured identifiers to the schema that events and queries are read with; owner and followers need it."""

from segmentd.domain.identifiers import Confidence, IdentifierKind, IdentifierSchema
from segmentd.settings import Settings


def identifier_schema(settings: Settings, numbers: dict[str, int]) -> IdentifierSchema:
    """The configured identifiers with their stored numbers."""
    kinds = [
        IdentifierKind(
            name=name, confidence=Confidence(kind.confidence), number=numbers[name], lower_case=kind.lower_case
        )
        for name, kind in settings.identifiers.items()
    ]
    return IdentifierSchema(kinds, settings.limits.identifier_bytes_max)
