"""Series, instances, and one small instance in each form that viewers and other hospitals ask for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from pydicom.uid import UID

from dicomweb.wire.media import EXPLICIT
from federation.elements import BadPart10, Changes, Head, UntaggableSyntax
from federation.errors import MemberError, MemberGarbage, MemberNotFound, MemberTimeout
from federation.identity import text_of
from federation.model import UID_PATTERN, Accept, Attributes, Deadline, Form, PartBegin, PartEnd, Target
from federation.part10 import HeadRewriter
from imagora.checkup.asking import (
    INSTANCE_UID,
    INSTANCES,
    MODALITIES,
    SERIES_UID,
    SILENCE,
    STUDY_UID,
    Asking,
    Result,
)
from imagora.checkup.forms import Body, Forms
from imagora.checkup.looking import MayRead
from registry.profiles import Feature

SOP_INSTANCE_UID = 0x0008_0018
ROWS_TAG, COLUMNS_TAG, BITS_TAG, SAMPLES_TAG, FRAMES_TAG = "00280010", "00280011", "00280100", "00280002", "00280008"
#: Modalities whose exams may have no pixels.
_WITHOUT_PIXELS = frozenset({"SR", "PR", "KO", "DOC", "AU", "ECG", "REG", "RTSTRUCT", "RTPLAN", "RTDOSE", "OT", "SEG"})
#: Most that is read of one instance.
_READ_MAX = 64 << 20
#: A body under way may take so many times the deadline of an answer.
_PATIENCE = 3
_SEEN = 5


class Images:
    def __init__(self, asking: Asking, rows: Sequence[Attributes], may_read: MayRead) -> None:
        self._asking = asking
        self._studies = sorted(rows, key=_effort)
        self._may_read = may_read
        self.attributes: Attributes = {}  # metadata of the instance that was tried

    async def examine(self) -> None:
        for study in self._studies:
            if await self._may_read(study):
                break
        else:
            text = "not tried: none of the exams that it listed may be shown, or its trace can't be written"
            self._asking.checkup.note("retrieve", Result.UNKNOWN, text)
            return
        study_uid = text_of(study, STUDY_UID)
        series = await self._rows(
            "series", f"/studies/{study_uid}/series", SERIES_UID, "lists the series of an exam", ()
        )
        asked = (SERIES_UID, ROWS_TAG, COLUMNS_TAG, BITS_TAG, SAMPLES_TAG, FRAMES_TAG)
        instances = await self._rows(
            "instances", f"/studies/{study_uid}/instances", INSTANCE_UID, "lists the instances of an exam", asked
        )
        await self._across(study_uid)
        known = {text_of(row, SERIES_UID) for row in series}
        chosen = min(
            (row for row in instances if UID_PATTERN.fullmatch(text_of(row, SERIES_UID))), key=_size, default=None
        )
        if chosen is None and len(known) == 1:
            chosen = instances[0] if instances else None
        if chosen is None:
            return
        series_uid = text_of(chosen, SERIES_UID) or known.pop()
        target = Target(study_uid=study_uid, series_uid=series_uid, instance_uid=text_of(chosen, INSTANCE_UID))
        frames = await self._metadata(target)
        await self._instance(target)
        await Forms(self._asking, self._read).examine(target, self.attributes)
        if frames:
            await self._frame(target)
            await self._rendered(target)
            await self._thumbnail(target)
        elif frames is not None:
            self._asking.checkup.note("images", Result.UNKNOWN, "the instance tried has no pixels")

    # Searches below the study -----------------------------------------------------------------------------------

    async def _rows(
        self, topic: str, path: str, uid_tag: str, does: str, include: Sequence[str]
    ) -> Sequence[Attributes]:
        note = self._asking.checkup.note
        async with self._asking.about(topic, Result.FAILED, "its exams could not be opened"):
            page = await self._asking.page(path, {}, include=include, limit=_SEEN, most=_SEEN)
            if not page.rows:
                note(topic, Result.FAILED, f"gives no {topic} of an exam that it listed")
            elif not all(UID_PATTERN.fullmatch(text_of(row, uid_tag)) for row in page.rows):
                note(topic, Result.FAILED, "rows lack their UID")
            else:
                note(topic, Result.OK, does, page.elapsed_s)
                return page.rows
        return ()

    async def _across(self, study_uid: str) -> None:
        """Searches for series and instances that name the study as a criterion only."""
        topic, failed = "wide searches", []
        know = self._asking.checkup.know
        for level, feature in (("series", Feature.SERIES_SEARCH), ("instances", Feature.INSTANCE_SEARCH)):
            try:
                page = await self._asking.page(f"/{level}", {STUDY_UID: study_uid}, limit=1, most=2)
                know(feature, bool(page.rows))
                if not page.rows:
                    failed.append(f"/{level} (no rows)")
            except MemberTimeout:
                failed.append(f"/{level} (no answer in time)")
            except MemberError as error:
                know(feature, None if isinstance(error, SILENCE) else False)
                failed.append(f"/{level} ({self._asking.why(error)})")
        if failed:
            text = f"not offered for {', '.join(failed)}; searches within one exam are"
            self._asking.checkup.note(topic, Result.LIMIT, text)
        else:
            self._asking.checkup.note(topic, Result.OK, "series and instances can be searched across exams")

    # Retrieves --------------------------------------------------------------------------------------------------

    async def _metadata(self, target: Target) -> int | None:
        """→ how many frames the instance has, 0 without pixels, None if that is not known."""
        note = self._asking.checkup.note
        frames: int | None = None
        async with self._asking.about("metadata", Result.FAILED, "viewers could not open its exams", Feature.METADATA):
            asked = time.monotonic()
            answer = await self._asking.member.metadata(target, deadline=Deadline(self._asking.deadline_s))
            data_sets = answer.rows
            elapsed_s = time.monotonic() - asked
            if [text_of(d, INSTANCE_UID) for d in data_sets] != [target.instance_uid]:
                note("metadata", Result.FAILED, "is not that of the one instance asked for")
            else:
                self._asking.checkup.know(Feature.METADATA, True)
                self.attributes = data_sets[0]
                note("metadata", Result.OK, "of one instance is there", elapsed_s)
                frames = _number(data_sets[0], FRAMES_TAG, 1) if text_of(data_sets[0], ROWS_TAG) else 0
        return frames

    async def _instance(self, target: Target) -> None:
        """As Imagora asks for clients: explicit VR, else as it is stored."""
        note, know, topic = self._asking.checkup.note, self._asking.checkup.know, "retrieve"
        first: str | None = None
        for syntax, feature in ((EXPLICIT, Feature.EXPLICIT), ("*", Feature.AS_STORED)):
            know(feature, False)  # unless a file comes, or nothing at all
            try:
                body = await self._read(target, Accept(choices=(("application/dicom", syntax),)))
            except SILENCE as error:
                know(feature, None)
                note(topic, Result.FAILED, self._asking.why(error))
                return
            except MemberError as error:
                first = first or self._asking.why(error)
                continue
            except UntaggableSyntax:
                first = first or "comes in implicit VR or big endian, which Web Services must not use (PS3.18 §8.7.3)"
                continue
            except BadPart10 as error:
                first = first or f"what comes is not a DICOM file: {error}"
                continue
            if body.parts != 1 or body.instance_uid != target.instance_uid:
                note(topic, Result.FAILED, "what comes is not the one instance asked for")
                return
            know(feature, True)
            self._asking.checkup.bytes_per_s = body.size / body.elapsed_s if body.elapsed_s > 0 else None
            if syntax == "*":
                text = f"one instance came ({body.amount}), but only as it is stored: {_name(body.syntax)}"
                note(topic, Result.LIMIT, f"{text}; asked for explicit VR: {first}", body.elapsed_s)
            else:
                text = f"one instance came ({body.amount}) in {_name(body.syntax)}"
                note(topic, Result.OK, text, body.elapsed_s)
            return
        note(topic, Result.FAILED, f"{first}; its exams could not be opened")

    async def _frame(self, target: Target) -> None:
        """As viewers ask: pixels in whatever form they are stored."""
        await self._picture(
            "frames",
            _form(target, Form.FRAMES),
            Accept(choices=(("application/octet-stream", "*"),)),
            "viewers could not show its images",
            Feature.FRAMES,
        )

    async def _rendered(self, target: Target) -> None:
        await self._picture(
            "rendered images",
            _form(target, Form.RENDERED),
            Accept(choices=(("image/jpeg", None),)),
            "there are no simple pictures of its images",
            Feature.RENDERED,
        )

    async def _thumbnail(self, target: Target) -> None:
        await self._picture(
            "thumbnails",
            replace(target, form=Form.THUMBNAIL),
            Accept(choices=(("image/jpeg", None),)),
            "lists of exams show no small pictures",
            Feature.THUMBNAIL,
        )

    async def _picture(self, topic: str, target: Target, accept: Accept, otherwise: str, feature: Feature) -> None:
        async with self._asking.about(topic, Result.LIMIT, otherwise, feature):
            body = await self._read(target, accept)
            if not body.size or body.parts != 1:
                raise MemberGarbage("what comes is not one frame")
            if target.form in (Form.RENDERED, Form.THUMBNAIL) and not body.media_type.startswith("image/"):
                raise MemberGarbage("what comes is no picture")
            self._asking.checkup.know(feature, True)
            self._asking.checkup.note(topic, Result.OK, f"the first frame came ({body.amount})", body.elapsed_s)

    async def _read(self, target: Target, accept: Accept) -> Body:
        """Raises `MemberError` and `BadPart10`."""
        body = Body()
        patience_s = self._asking.deadline_s * _PATIENCE
        asked = time.monotonic()
        try:
            async with asyncio.timeout(patience_s):
                await self._read_into(body, target, accept)
        except TimeoutError:
            raise MemberTimeout(f"{body.amount} within {patience_s:g} s") from None
        body.elapsed_s = time.monotonic() - asked
        return body

    async def _read_into(self, body: Body, target: Target, accept: Accept) -> None:
        heads: list[Head] = []

        def keep(head: Head) -> Changes:
            heads.append(head)
            return {}

        file = HeadRewriter(keep) if target.form is Form.DICOM else None
        deadline = Deadline(self._asking.deadline_s)
        async with self._asking.member.retrieve(target, accept, deadline=deadline) as delivery:
            body.media_type = delivery.media_type
            async for events in delivery.events():
                for event in events:
                    if isinstance(event, PartBegin):
                        body.parts += 1
                    elif not isinstance(event, PartEnd):
                        body.size += len(event)
                        if file is not None and body.parts == 1:
                            file.feed(event)
                if body.size > _READ_MAX or body.parts > 1:
                    body.whole = False
                    break
        if not body.size:
            raise MemberNotFound("nothing came")
        if file is not None:
            if body.whole:
                file.finish()
            if heads:
                body.syntax = heads[0].transfer_syntax
                body.instance_uid = heads[0].text(SOP_INSTANCE_UID)


def _form(target: Target, form: Form) -> Target:
    return Target(
        study_uid=target.study_uid,
        series_uid=target.series_uid,
        instance_uid=target.instance_uid,
        form=form,
        frames=(1,),
    )


def _name(syntax: str) -> str:
    """A transfer syntax's name where the standard has one."""
    return UID(syntax).name if UID(syntax).is_valid else "an unknown transfer syntax"


def _number(row: Attributes, tag: str, otherwise: int) -> int:
    text = text_of(row, tag).strip()
    return int(text) if text.isascii() and text.isdigit() else otherwise


def _effort(study: Attributes) -> tuple[bool, int]:
    """Studies with images first, small ones first."""
    values = study.get(MODALITIES, {}).get("Value") or []
    return (
        bool(values) and {str(v) for v in values} <= _WITHOUT_PIXELS,
        _number(study, INSTANCES, 1_000_000),
    )


def _size(instance: Attributes) -> tuple[bool, int]:
    """Instances with pixels first, small ones first."""
    size = 1
    for tag, otherwise in ((ROWS_TAG, 0), (COLUMNS_TAG, 1), (BITS_TAG, 16), (SAMPLES_TAG, 1), (FRAMES_TAG, 1)):
        size *= _number(instance, tag, otherwise)
    return size == 0, size
