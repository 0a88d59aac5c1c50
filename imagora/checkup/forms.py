"""The forms of one instance beyond what viewers cannot do without, and attributes that are asked for by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

from federation.elements import BadPart10, UntaggableSyntax
from federation.errors import MemberError
from federation.model import Accept, Attributes, Deadline, Form, Target
from imagora.checkup.asking import INSTANCE_UID, SILENCE, Asking, Result
from registry.profiles import Feature

#: Attributes that an instance may have and that no search returns unasked (PS3.18 table 10.6.3-5).
_UNASKED = ("00280004", "00280101", "00080070", "00080012", "00080023", "00180015")


@dataclass(slots=True)
class Body:
    """What a retrieve of one instance brought."""

    media_type: str = ""
    parts: int = 0
    size: int = 0
    whole: bool = True
    elapsed_s: float = 0.0
    syntax: str = ""  # of Part-10
    instance_uid: str = ""  # of Part-10

    @property
    def amount(self) -> str:
        text = f"{self.size / 1e6:.1f} MB" if self.size >= 100_000 else f"{max(1, round(self.size / 1000))} kB"
        return text if self.whole else f"more than {text}, not read to its end"


class Forms:
    """`read` reads one instance to its end, or as far as one goes."""

    def __init__(self, asking: Asking, read: Callable[[Target, Accept], Awaitable[Body]]) -> None:
        self._asking = asking
        self._read = read

    async def examine(self, target: Target, attributes: Attributes) -> None:
        if Feature.AS_STORED not in self._asking.checkup.features:
            await self._as_stored(target)
        await self._single_part(target)
        await self._bulk_data(target, attributes)
        await self._includefield(target, attributes)

    async def _as_stored(self, target: Target) -> None:
        note, know = self._asking.checkup.note, self._asking.checkup.know
        try:
            await self._read(target, Accept(choices=(("application/dicom", "*"),)))
        except UntaggableSyntax:
            pass  # it came
        except BadPart10:
            know(Feature.AS_STORED, False)
            return
        except MemberError as error:
            know(Feature.AS_STORED, None if isinstance(error, SILENCE) else False)
            text = f"not given ({self._asking.why(error)}); it converts each image, which takes longer"
            note("as stored", Result.LIMIT, text)
            return
        know(Feature.AS_STORED, True)
        note("as stored", Result.OK, "an instance came in the transfer syntax that it is stored in")

    async def _single_part(self, target: Target) -> None:
        """Accept: application/dicom. Imagora asks for multipart, so nothing follows from it."""
        path = f"/studies/{target.study_uid}/series/{target.series_uid}/instances/{target.instance_uid}"
        async with self._asking.about("single part", Result.OK, "not needed", Feature.SINGLE_PART):
            deadline = Deadline(self._asking.deadline_s)
            status, media_type = await self._asking.member.answers("GET", path, "application/dicom", deadline)
            offered = status == 200 and media_type == "application/dicom"
            self._asking.checkup.know(Feature.SINGLE_PART, offered)
            text = "an instance comes without multipart too" if offered else "not offered, and not needed"
            self._asking.checkup.note("single part", Result.OK, text)

    async def _bulk_data(self, target: Target, attributes: Attributes) -> None:
        links = (self._asking.member.link_of(uri, target.study_uid) for uri in _references(attributes))
        link = next((link for link in links if link is not None), None)
        if link is None:
            return
        async with self._asking.about(
            "bulk data", Result.LIMIT, "documents and some images could not be shown", Feature.BULK_DATA
        ):
            wanted = replace(target, form=Form.BULKDATA, link=link)
            body = await self._read(wanted, Accept(choices=(("application/octet-stream", None),)))
            self._asking.checkup.know(Feature.BULK_DATA, True)
            self._asking.checkup.note("bulk data", Result.OK, f"came ({body.amount})", body.elapsed_s)

    async def _includefield(self, target: Target, attributes: Attributes) -> None:
        tag = next((tag for tag in _UNASKED if attributes.get(tag, {}).get("Value")), None)
        if tag is None:
            return
        consequence = "lists may lack what a viewer asks for"
        async with self._asking.about("includefield", Result.LIMIT, consequence, Feature.INCLUDEFIELD):
            path = f"/studies/{target.study_uid}/series/{target.series_uid}/instances"
            page = await self._asking.page(path, {INSTANCE_UID: target.instance_uid or ""}, include=(tag,), limit=1)
            honours = any(row.get(tag, {}).get("Value") for row in page.rows)
            self._asking.checkup.know(Feature.INCLUDEFIELD, honours if page.rows else None)
            if honours:
                self._asking.checkup.note("includefield", Result.OK, "rows have the attributes that are asked for")
            elif page.rows:
                text = f"rows lack an attribute that was asked for; {consequence}"
                self._asking.checkup.note("includefield", Result.LIMIT, text)


def _references(attributes: Attributes) -> Iterator[str]:
    for content in attributes.values():
        uri = content.get("BulkDataURI")
        if isinstance(uri, str):
            yield uri
