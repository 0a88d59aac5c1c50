"""What the tests of operations share: a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ops_postgres import Postgres, postgres_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server
