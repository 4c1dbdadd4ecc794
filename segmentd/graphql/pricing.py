"""What is left of a cost when its operation has been compiled (`cost.py`): arithmetic over variables and segments.

Prices and numbers are nothing that the garbage collector has to look through, as plans are (`writers.py`); they keep no
part of the document, unless it looks up a type by a variable.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from segmentd.graphql.members import FIRST_DEFAULT

Variables = Mapping[str, Any]
Measure = Callable[[Any], int | None]


class Price(Protocol):
    """A part of a cost that depends on the request."""

    def at(self, variables: Variables, segments: int) -> int:
        """variables: raw, possibly wrong ones. segments: how many there are."""
        ...


class Number(Protocol):
    """The value, or the length, of an argument."""

    def of(self, variables: Variables) -> int | None:
        """None where it sets no bound."""
        ...


class Cost(Struct, frozen=True, gc=False):
    """A compiled cost: what is always there, and what depends on the request."""

    fixed: int
    varying: tuple[Price, ...] = ()

    def at(self, variables: Variables, segments: int) -> int:
        """variables: raw, possibly wrong ones (then the request is refused later). segments: how many there are."""
        cost = self.fixed
        for price in self.varying:
            cost += price.at(variables, segments)
        return cost


class Literal(Struct, frozen=True, gc=False):
    """A number that stands in the text, or none."""

    value: int | None

    def of(self, _variables: Variables) -> int | None:
        return self.value


class Variable(Struct, frozen=True, gc=False):
    """A number that a variable has. default: what counts where the variable is not given."""

    name: str
    measure: Measure
    default: Number

    def of(self, variables: Variables) -> int | None:
        return self.measure(variables[self.name]) if self.name in variables else self.default.of(variables)


class AllSegments(Struct, frozen=True, gc=False):
    """A list of all there are."""

    def at(self, _variables: Variables, segments: int) -> int:
        return segments


class Subset(Struct, frozen=True, gc=False):
    """A list of those that are named, of all if it is null."""

    names: Number

    def at(self, variables: Variables, segments: int) -> int:
        names = self.names.of(variables)
        return segments if names is None else names


class Connection(Struct, frozen=True, gc=False):
    """Finding the items of a list, and a page of them. bounds: `first` and `last`, if given. each: cost of an edge."""

    listed: Price
    bounds: tuple[Number, ...]
    each: Cost

    def at(self, variables: Variables, segments: int) -> int:
        # Finding the items is work even where the page shows few of them.
        listed = self.listed.at(variables, segments)
        size = min(listed, segments)
        for number in self.bounds:
            bound = number.of(variables)
            if bound is not None and bound < size:
                size = bound
        return listed + max(0, size) * self.each.at(variables, segments)


class MembersConnection(Struct, frozen=True, gc=False):
    """A page of members, as large as is asked for; what is too much is told by the resolver."""

    first: Number
    each: Cost

    def at(self, variables: Variables, segments: int) -> int:
        size = self.first.of(variables)
        size = FIRST_DEFAULT if size is None else max(0, size)
        return size + size * self.each.at(variables, segments)


class NamedType(Struct, frozen=True, gc=False):
    """`__type` of a name that a variable has. walk: the cost of looking through the type of a name."""

    walk: Callable[[Any], int]
    variable: str
    default: str | None

    def at(self, variables: Variables, _segments: int) -> int:
        return self.walk(variables.get(self.variable, self.default))
