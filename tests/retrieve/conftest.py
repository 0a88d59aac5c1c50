"""What several modules of these tests look at, started once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from retrieve_bulk import STUDY, Bulk, plain
from retrieve_files import Archive, archive_of
from retrieve_member import Holder
from support.serving import Serving, serving, settings_for


@pytest.fixture(scope="session")
def archive(postgres: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """pydicom's files in real Orthancs."""
    folder = tmp_path_factory.mktemp("archive")
    with archive_of(lambda members: serving(settings_for(members, folder), postgres())) as running:
        yield running


@pytest.fixture(scope="module")
def bulk_holder() -> Iterator[Holder]:
    with Holder(STUDY, other=plain()) as member:
        yield member


@pytest.fixture(scope="module")
def bulk_server(bulk_holder: Holder, serve_module) -> Serving:
    running: Serving = serve_module({"csrom41200": bulk_holder.url, "cpsax18000": None})
    return running


@pytest.fixture
def bulk(bulk_holder: Holder, bulk_server: Serving) -> Bulk:
    made = Bulk(bulk_holder, bulk_server)
    made.unlearn()
    return made
