"""A region that the tests of one module share: every test brings exams of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import enforced
import pytest


@pytest.fixture(scope="module")
def region(postgres: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[enforced.Region]:
    with enforced.region(postgres(), tmp_path_factory.mktemp("region")) as made:
        yield made
