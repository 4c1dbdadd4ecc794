"""Imports into the embedded store, and into one that has to be waited for."""

from collections.abc import Iterator

import pytest

from tests.imports import test_model


@pytest.fixture(params=["embedded", "awaited"], scope="module")
def kind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Which of them `test_model.running` runs."""
    test_model.LISTS.are_awaited = request.param == "awaited"
    yield
    test_model.LISTS.are_awaited = False
