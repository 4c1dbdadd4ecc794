"""Everything is asked twice: of a store with all of it in this process, and of one that has to be waited for."""

from collections.abc import Iterator

import pytest

from tests.graphql import fakes


@pytest.fixture(params=["embedded", "awaited"], scope="module", autouse=True)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """How `fakes.answered` reads."""
    fakes.READS.is_awaited = request.param == "awaited"
    yield request.param
    fakes.READS.is_awaited = False
