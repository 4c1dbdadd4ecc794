"""The fields of one object as execution merges them: by response name, every fragment once.

Used where work is counted, so that counting follows execution and never takes longer than what it counts.
"""

from collections.abc import Iterable

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    SelectionSetNode,
)

Fragments = dict[str, FragmentDefinitionNode]


def fragments_of(document: DocumentNode) -> Fragments:
    """The fragments of a document by name."""
    return {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}


def merged_fields(
    selection_sets: Iterable[SelectionSetNode], fragments: Fragments
) -> tuple[dict[str, list[FieldNode]], int]:
    """Response name → its fields, in the order of execution; and how many selections were looked at.

    Type conditions are taken as fulfilled: no type of the schema has subtypes. Unknown fragments are left out.
    """
    fields: dict[str, list[FieldNode]] = {}
    spread: set[str] = set()
    looked_at = 0
    waiting = [iter(selection_set.selections) for selection_set in selection_sets][::-1]
    while waiting:
        selection = next(waiting[-1], None)
        if selection is None:
            waiting.pop()
            continue
        looked_at += 1
        if isinstance(selection, FieldNode):
            fields.setdefault((selection.alias or selection.name).value, []).append(selection)
        elif isinstance(selection, InlineFragmentNode):
            waiting.append(iter(selection.selection_set.selections))
        elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in spread:
            spread.add(selection.name.value)
            if fragment := fragments.get(selection.name.value):
                waiting.append(iter(fragment.selection_set.selections))
    return fields, looked_at


def selections_below(fields: Iterable[FieldNode]) -> list[SelectionSetNode]:
    """The selection sets of fields that are merged into one."""
    return [field.selection_set for field in fields if field.selection_set is not None]
