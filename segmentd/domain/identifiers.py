"""Identifiers: which names exist, how sure they are, and the key that stands for a (name, value) pair.

A key is one byte (the number of the kind) and the normalised value in UTF-8. The number of a kind is chosen once and
kept in the store, so that renaming or reordering the configuration never changes the meaning of stored keys.
"""

import enum
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

# Room for the audience number (4 bytes) and the kind (1 byte) inside LMDB's 511-byte key limit.
KEY_VALUE_BYTES_MAX: Final = 500
KIND_NUMBER_MAX: Final = 255

# C0 and C1 controls and DEL: nothing that a person typed, and poison for logs, CSV and terminals.
# Lone surrogates have no UTF-8 form.
_FORBIDDEN_CHARACTERS: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Confidence(enum.Enum):
    """Whether an identifier names one person for sure (`HIGH`) or only a device or session (`LOW`)."""

    HIGH = "high"
    LOW = "low"


class IdentifierKind(msgspec.Struct, frozen=True):
    """A configured identifier name."""

    name: str
    confidence: Confidence
    number: int
    """0..255, unique, stable on disk."""
    lower_case: bool = False
    """Values are compared in lower case (e-mail addresses)."""

    @property
    def is_high(self) -> bool:
        return self.confidence is Confidence.HIGH


class IdentifierSchema:
    """The configured kinds, and the only place that makes and reads keys."""

    def __init__(self, kinds: Iterable[IdentifierKind], value_bytes_max: int = 256) -> None:
        """kinds: unique names and numbers. value_bytes_max: 1..500, UTF-8 bytes of a normalised value."""
        listed = list(kinds)
        if len({kind.name for kind in listed}) != len(listed) or len({kind.number for kind in listed}) != len(listed):
            raise ValueError("identifier names and numbers must be unique")
        if not 1 <= value_bytes_max <= KEY_VALUE_BYTES_MAX:
            raise ValueError(f"value_bytes_max must be 1..{KEY_VALUE_BYTES_MAX}")
        self.kinds: Mapping[str, IdentifierKind] = MappingProxyType({kind.name: kind for kind in listed})
        self.value_bytes_max = value_bytes_max
        self._names = {kind.number: kind.name for kind in listed}
        self._prefixes = {kind.name: bytes([kind.number]) for kind in listed}

    def key(self, kind: IdentifierKind, value: str) -> bytes:
        """The key of (kind, value). Raises ValueError with the reason: empty, forbidden character, too long."""
        if not value:
            raise ValueError("must not be empty")
        # isprintable() is one fast call and true for nearly every real identifier; the rest is looked at closely.
        if not value.isprintable() and (found := _FORBIDDEN_CHARACTERS.search(value)):
            raise ValueError(f"has the forbidden character U+{ord(found[0]):04X} at position {found.start()}")
        key = self._prefixes[kind.name] + (value.lower() if kind.lower_case else value).encode()
        if len(key) > self.value_bytes_max + 1:
            raise ValueError(f"is {len(key) - 1} bytes long in UTF-8; at most {self.value_bytes_max} are allowed")
        return key

    def parse_key(self, key: bytes) -> tuple[str, str]:
        """(name, value) of a stored key. A kind that is no longer configured is shown as `#<number>`."""
        return self._names.get(key[0], f"#{key[0]}"), key[1:].decode()
