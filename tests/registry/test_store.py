from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from registry.database import Database
from registry.entries import RegistryConflict
from registry.model import Folder, Quirks, Site, SiteStatus
from registry.store import LongPatientID, RegistryStore, StudyCopy, UnknownSite
from registry.table import Table

HISTORIQUE = Folder(name="MIRC historique", ae_title="MIRC_HIST")
ROMORANTIN = Site(emetteur="csrom41200", number=423, name="Romorantin (CH)", folder="MIRC historique")
ADDRESSED = replace(ROMORANTIN, dicomweb="http://127.0.0.1:8042/dicom-web")


async def test_the_regions_own_table_is_imported_in_its_order(store: RegistryStore, region: Table) -> None:
    changes = await store.import_csv(region)
    assert (len(changes.new_sites), len(changes.new_folders)) == (22, 2)
    directory = await store.load()
    assert directory.sites == region.sites
    assert len(directory.in_folder("mirc-centres-imagerie")) == 3
    assert not any(site.asked for site in directory.sites)


async def test_importing_again_changes_nothing(store: RegistryStore, region: Table) -> None:
    await store.import_csv(region)
    before = await store.load()
    assert (await store.import_csv(region)).empty
    after = await store.load()
    assert (after.sites, after.epoch) == (before.sites, before.epoch)


async def test_importing_again_updates_names_but_neither_resumes_nor_clears(store: RegistryStore) -> None:
    await store.seed([ADDRESSED], [HISTORIQUE])
    await store.set_status("CSROM41200", SiteStatus.SUSPENDED)
    said = replace(ROMORANTIN, emetteur="CSROM41200", number=424, name="Romorantin-Lanthenay", folder="Nouveau")
    changes = await store.import_csv(Table(sites=(said,), folders=(Folder(name="Nouveau"),)))
    assert "csrom41200 stays suspended" in changes.notes[0]
    site = (await store.load()).sites[0]
    assert (site.emetteur, site.number, site.name, site.folder) == (
        "csrom41200",
        424,
        "Romorantin-Lanthenay",
        "Nouveau",
    )
    assert site.status is SiteStatus.SUSPENDED
    assert site.dicomweb == ADDRESSED.dicomweb


async def test_an_import_may_exchange_the_numbers_of_two_sites(store: RegistryStore) -> None:
    first, second = Site(emetteur="a", number=1, name="A"), Site(emetteur="b", number=2, name="B")
    await store.import_csv(Table(sites=(first, second), folders=()))
    await store.import_csv(Table(sites=(replace(first, number=2), replace(second, number=1)), folders=()))
    assert [site.number for site in (await store.load()).sites] == [2, 1]


@pytest.mark.parametrize(
    ("sites", "problem"),
    [
        ([Site(emetteur="new", number=423, name="New")], "SITE 423 belongs to both csrom41200 and new"),
        ([Site(emetteur="MIRC_HIST", number=1, name="New")], "AE title 'mirc_hist'"),
        ([Site(emetteur="imagora", number=1, name="New")], "the node's AE title"),
        ([Site(emetteur="x", number=1, name="X"), Site(emetteur="X", number=2, name="X")], "stands twice"),
    ],
)
async def test_what_contradicts_the_registry_is_refused_whole(
    store: RegistryStore, sites: list[Site], problem: str
) -> None:
    await store.seed([ROMORANTIN], [HISTORIQUE])
    before = await store.load()
    good = Site(emetteur="good", number=7, name="Good")
    with pytest.raises(RegistryConflict, match=problem):
        await store.import_csv(Table(sites=(good, *sites), folders=()))
    with pytest.raises(RegistryConflict, match=problem):
        await store.seed([good, *sites])
    after = await store.load()
    assert (after.sites, after.epoch) == (before.sites, before.epoch)


async def test_the_file_creates_and_fills_but_never_overrides(
    store: RegistryStore, region: Table, caplog: pytest.LogCaptureFixture
) -> None:
    await store.import_csv(region)
    filled = replace(ADDRESSED, oid="1.2.3", deadline_s=20.0)
    new = Site(emetteur="csnew", number=999, name="Neuf")
    await store.seed([filled, new], [HISTORIQUE])
    directory = await store.load()
    assert directory.site("csrom41200") == filled
    assert directory.folders["mirc-historique"].ae_title == "MIRC_HIST"
    assert directory.sites[-1] == new

    other = replace(filled, name="Autre", number=1, dicomweb="http://other/", oid="1.2.4", deadline_s=1.0)
    with caplog.at_level(logging.INFO, "registry.store"):
        changes = await store.seed([other], [replace(HISTORIQUE, ae_title="OTHER")])
    assert changes.empty
    assert (await store.load()).site("csrom41200") == filled
    for key in ("number", "name", "dicomweb", "oid", "deadline_s", "ae_title"):
        assert f"{key} stays" in caplog.text


async def test_a_file_without_an_address_differs_in_nothing_from_one_given_elsewhere(store: RegistryStore) -> None:
    await store.seed([ADDRESSED], [HISTORIQUE])
    changes = await store.seed([ROMORANTIN], [HISTORIQUE])
    assert changes.empty
    assert changes.notes == ()


async def test_an_address_is_filled_whole_or_not_at_all(store: RegistryStore) -> None:
    await store.seed([ADDRESSED], [HISTORIQUE])
    dimse = replace(ROMORANTIN, aet="ROM", host="10.0.0.1", port=4242)
    assert (await store.seed([dimse], [HISTORIQUE])).empty
    assert (await store.load()).site("csrom41200") == ADDRESSED


async def test_a_suspended_site_stays_suspended_at_the_next_start(store: RegistryStore) -> None:
    await store.seed([ADDRESSED], [HISTORIQUE])
    await store.set_status("csrom41200", SiteStatus.SUSPENDED)
    changes = await store.seed([ADDRESSED], [HISTORIQUE])
    assert changes.notes == ("csrom41200: status stays 'suspended'; the file says 'member'",)
    site = (await store.load()).sites[0]
    assert site.status is SiteStatus.SUSPENDED
    assert not site.asked


async def test_an_unknown_site_is_told(store: RegistryStore) -> None:
    with pytest.raises(UnknownSite, match="'nobody'"):
        await store.set_status("nobody", SiteStatus.SUSPENDED)
    with pytest.raises(UnknownSite, match="'nobody'"):
        await store.save_quirks("nobody", Quirks())


async def test_what_was_learnt_of_a_member_is_kept(store: RegistryStore, database: Database) -> None:
    await store.seed([ADDRESSED], [HISTORIQUE])
    learnt = Quirks(names_ignore_case=True, honours_limit=False)
    await store.save_quirks("CSROM41200", learnt)
    assert (await store.load()).sites[0].quirks == learnt
    await database.execute("""UPDATE site SET quirks = quirks || '{"of_a_newer_program": true}'""")
    assert (await store.load()).sites[0].quirks == learnt


async def test_every_change_raises_the_epoch_and_nothing_else_does(store: RegistryStore, database: Database) -> None:
    epochs = [await store.epoch()]

    async def raised() -> bool:
        epochs.append(await store.epoch())
        return epochs[-1] > epochs[-2]

    await store.seed([ADDRESSED], [HISTORIQUE])
    assert await raised()
    await store.seed([ADDRESSED], [HISTORIQUE])
    assert not await raised()
    await store.set_status("csrom41200", SiteStatus.SUSPENDED)
    assert await raised()
    await store.set_status("csrom41200", SiteStatus.SUSPENDED)
    assert not await raised()
    await store.save_quirks("csrom41200", Quirks(honours_limit=True))
    assert await raised()
    await store.save_quirks("csrom41200", Quirks(honours_limit=True))
    assert not await raised()
    await database.execute("DELETE FROM site")
    assert await raised()
    await database.execute("DELETE FROM folder")
    assert await raised()
    assert (await store.load()).epoch == epochs[-1]


async def test_changes_at_once_do_not_block_each_other(store: RegistryStore, region: Table) -> None:
    await store.import_csv(region)
    names = [site.emetteur for site in region.sites if site.status is SiteStatus.MEMBER]
    await asyncio.gather(
        *(store.set_status(name, SiteStatus.SUSPENDED) for name in names),
        *(store.save_quirks(name, Quirks(honours_limit=True)) for name in reversed(names)),
        *(store.import_csv(region) for _ in range(3)),
    )
    sites = [site for site in (await store.load()).sites if site.emetteur in names]
    assert all(site.status is SiteStatus.SUSPENDED and site.quirks.honours_limit for site in sites)


async def test_a_secret_is_made_once_for_all_processes(store: RegistryStore) -> None:
    values = set(await asyncio.gather(*(store.secret("link_key") for _ in range(8))))
    assert len(values) == 1
    assert len(values.pop()) == 64
    assert await store.secret("other") != await store.secret("link_key")


async def test_long_patient_ids_are_remembered_once(store: RegistryStore) -> None:
    long_id = LongPatientID(hashed="h", ipp="1" * 64, emetteur="csrom41200")
    await store.remember_long_patient_id(long_id)
    await store.remember_long_patient_id(long_id)
    assert await store.long_patient_ids() == (long_id,)


async def test_the_latest_sight_of_a_copy_counts(store: RegistryStore) -> None:
    now = datetime.now(UTC)
    first = StudyCopy(study_uid="1.2", emetteur="csa", patient_id="7", person="p", series=("1.2.1",), seen_at=now)
    later = replace(first, series=("1.2.1", "1.2.2"), seen_at=now + timedelta(seconds=1))
    elsewhere = replace(first, emetteur="csb", series=(), origin="csa", accession="X1, 2", ins=("255084958815780",))
    await store.remember_copies([])
    await store.remember_copies([later, first, elsewhere])
    await store.remember_copies([first])
    assert set(await store.study_copies()) == {later, elsewhere}
