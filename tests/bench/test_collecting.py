"""What the collector is given is what the bench says it is."""

import pytest
from graphql import FieldNode, Visitor, parse, visit

from bench.collecting import document
from segmentd.graphql.engine import GraphQLRequest
from tests.graphql.fakes import shop


class _Fields(Visitor):
    count = 0

    def enter_field(self, _node: FieldNode, *_: object) -> None:
        self.count += 1


@pytest.mark.parametrize("planned", [True, False])
def test_a_document_has_27_fields_and_a_plan_or_none(planned: bool) -> None:
    fields = _Fields()
    visit(parse(document(1, planned=planned)), fields)
    assert fields.count == 27
    assert shop().engine.is_planned(GraphQLRequest(query=document(1, planned=planned))) is planned


def test_no_two_documents_are_alike() -> None:
    assert len({document(number, planned=planned) for number in range(10) for planned in (True, False)}) == 20
