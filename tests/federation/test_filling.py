"""What rows are completed with is the patient's own, and hangs on nothing that the requester may not see."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.datadict import tag_for_keyword
from scripted_region import Seen, answers
from slow_region import Ask, Habits, Held, Refusal, Region, Who
from support.values import BLOIS

from federation import levels
from federation.levels import told_by_instances
from federation.model import Level

MINE = Held(site=BLOIS.emetteur, series=(1, 2, 3))
#: Another person's under the same UID at the same site.
OTHERS = Held(site=BLOIS.emetteur, patient_id="2", person=7, series=(4, 5))
OPPOSED = Refusal(number=1, patient=("2", BLOIS.emetteur))


def seen(region: Region) -> Seen:
    ((answer, _),) = answers(region, [(Who(), Ask())])
    return answer


def counts(answer: Seen) -> list[tuple[int, int]]:
    return sorted((r["00201206"]["Value"][0], r["00201208"]["Value"][0]) for r in answer.rows if "00201206" in r)


def test_each_persons_series_are_counted_apart() -> None:
    answer = seen(Region(held=(MINE, OTHERS)))
    assert counts(answer) == [(2, 2), (3, 3)]
    assert all(r["00080061"]["Value"] == ["CT"] for r in answer.rows)


@pytest.mark.parametrize("habits", [Habits(), Habits(terse=True), Habits(ignores_filters=True), Habits(backwards=True)])
def test_an_opposed_persons_series_change_nothing(habits: Habits) -> None:
    with_them = Region(held=(MINE, OTHERS), refusals=(OPPOSED,), habits={BLOIS.emetteur: habits})
    without = replace(with_them, held=(MINE,))
    assert replace(seen(with_them), questions={}) == replace(seen(without), questions={})
    assert counts(seen(with_them)) == ([] if habits.terse else [(3, 3)])


def test_keywords_of_the_levels_are_the_standards() -> None:
    for text in (levels._STUDY, levels._SERIES):
        assert [keyword for keyword in text.split() if tag_for_keyword(keyword) is None] == []


@pytest.mark.parametrize(
    ("level", "keyword", "yes"),
    [
        (Level.STUDY, "StudyDescription", True),
        (Level.STUDY, "ProcedureCodeSequence", True),
        (Level.STUDY, "Modality", False),
        (Level.STUDY, "Rows", False),
        (Level.SERIES, "Modality", True),
        (Level.SERIES, "StudyDescription", True),
        (Level.SERIES, "Rows", False),
        (Level.INSTANCE, "Rows", True),
        (Level.INSTANCE, "PixelData", False),
        *((level, "PatientID", False) for level in Level),
        *((level, "OtherPatientIDsSequence", False) for level in Level),
        *((level, "InstitutionCodeSequence", False) for level in Level),
        *((level, "RetrieveURL", False) for level in Level),
        *((level, "NumberOfStudyRelatedInstances", False) for level in Level),
    ],
)
def test_an_instance_tells_what_all_have_alike(level: Level, keyword: str, yes: bool) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    assert told_by_instances(level, f"{tag:08X}") is yes


def test_private_attributes_are_not_read() -> None:
    assert not told_by_instances(Level.INSTANCE, "00091001")
