"""Everything is asked twice: of a store with all of it in this process, and of one that has to be waited for."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.graphql import fakes

# How long a case takes is for the bench to say; on a busy machine the default limit fails good ones.
settings.register_profile("segmentd", deadline=None)
settings.load_profile("segmentd")


@pytest.fixture(params=["embedded", "awaited"], scope="module", autouse=True)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """How `fakes.answered` reads."""
    fakes.READS.is_awaited = request.param == "awaited"
    yield request.param
    fakes.READS.is_awaited = False
