"""Which attributes are of a study or of a series: all instances below have them alike, so one tells them. Pure."""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword

from federation.locate import IDENTITY_TAGS
from federation.matching import OURS
from federation.merge import COUNTS
from federation.model import Level

MODALITIES = "00080061"
#: PS3.3 C.7.1.1 Patient, C.7.2.1 General Study, C.7.2.2 Patient Study.
_STUDY = """
PatientBirthTime OtherPatientNames EthnicGroup PatientComments PatientSpeciesDescription PatientSpeciesCodeSequence
PatientBreedDescription PatientBreedCodeSequence ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization
PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence ReferencedPatientSequence
StudyDate StudyTime StudyID ReferringPhysicianName ReferringPhysicianIdentificationSequence ConsultingPhysicianName
IssuerOfAccessionNumberSequence StudyDescription PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence
NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence RequestingService
RequestingServiceCodeSequence ProcedureCodeSequence ReasonForPerformedProcedureCodeSequence ReferencedStudySequence
AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence PatientAge PatientSize PatientWeight
PatientSizeCodeSequence PatientBodyMassIndex MeasuredAPDimension MeasuredLateralDimension MedicalAlerts Allergies
SmokingStatus PregnancyStatus LastMenstrualDate PatientState Occupation AdditionalPatientHistory AdmissionID
IssuerOfAdmissionIDSequence ServiceEpisodeID ServiceEpisodeDescription IssuerOfServiceEpisodeIDSequence
PatientSexNeutered ReasonForVisit ReasonForVisitCodeSequence
"""
#: C.7.3.1 General Series, C.7.5.1 General Equipment, C.7.4.1 Frame of Reference.
_SERIES = """
Modality SeriesNumber Laterality SeriesDate SeriesTime PerformingPhysicianName PerformingPhysicianIdentificationSequence
ProtocolName SeriesDescription SeriesDescriptionCodeSequence OperatorsName OperatorIdentificationSequence
ReferencedPerformedProcedureStepSequence BodyPartExamined PatientPosition AnatomicalOrientationType
RequestAttributesSequence PerformedProcedureStepID PerformedProcedureStepStartDate PerformedProcedureStepStartTime
PerformedProcedureStepEndDate PerformedProcedureStepEndTime PerformedProcedureStepDescription
PerformedProtocolCodeSequence CommentsOnThePerformedProcedureStep Manufacturer InstitutionAddress StationName
InstitutionalDepartmentName InstitutionalDepartmentTypeCodeSequence ManufacturerModelName DeviceSerialNumber
SoftwareVersions GantryID DeviceUID DateOfLastCalibration TimeOfLastCalibration FrameOfReferenceUID
PositionReferenceIndicator
"""


def _tags(keywords: str) -> frozenset[str]:
    tags = [tag_for_keyword(keyword) for keyword in keywords.split()]
    return frozenset(f"{tag:08X}" for tag in tags if tag is not None)


_OF_STUDY = _tags(_STUDY)
_OF_SERIES = _OF_STUDY | _tags(_SERIES)
#: Whose it is and where it is are written by us; counts are counted.
_NEVER = IDENTITY_TAGS | OURS | COUNTS.keys() | {MODALITIES, "00080005", "00080056", "00081190", "0020000D"}


def told_by_instances(level: Level, tag: str) -> bool:
    """May this attribute of a row be read from one instance below it (of an instance, from itself)?"""
    if tag in _NEVER:
        return False
    if level is Level.INSTANCE:
        # No pixels, no waveforms; what private attributes mean, their creator says, who is not asked for.
        return int(tag[:4], 16) % 2 == 0 and tag[:4] not in ("0002", "7FE0", "5400")
    return tag in (_OF_STUDY if level is Level.STUDY else _OF_SERIES)
