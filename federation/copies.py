"""Studies known to be held at several sites as one person's, so that an exam keeps its patient's id while the
holder that gives it is down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from federation.identity import Identity, LongIds, Record, no_long_ids, resolve
from registry import Directory, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One holder's copy: its own PatientID there, and the series that it had when last seen."""

    study_uid: str
    emetteur: str
    patient_id: str  # as the holder has it
    person: str  # copies of one study with one `person` are one person's
    series: frozenset[str] = frozenset()
    ipp: str | None = None
    authority: str | None = None  # EMETTEUR whose IPP it is
    origin: str | None = None  # EMETTEUR; its data may name one that its PatientID does not
    accession: str = ""
    ins: tuple[str, ...] = ()  # in canonical form


class Copies:
    """What was learnt, in memory; `pending` is what the registry has yet to be told. Bounded."""

    def __init__(self, stored: Iterable[Copy] = (), *, most: int = 200_000) -> None:
        self._by_study: dict[str, dict[tuple[str, str], Copy]] = {}
        self._most = most
        self._pending: dict[tuple[str, str, str], Copy] = {}
        self.wake: Callable[[], None] = lambda: None
        #: Returns once others are told what was learnt by now, or soon: no answer leaves before.
        self.told: Callable[[], Awaitable[None]] = _at_once
        #: Told of each copy that the registry knows of.
        self.heard_of: Callable[[Copy], None] = lambda _copy: None
        for copy in stored:
            self._put(copy)

    def _put(self, copy: Copy) -> None:
        if copy.study_uid not in self._by_study and len(self._by_study) >= self._most:
            self._by_study.pop(next(iter(self._by_study)))
        self._by_study.setdefault(copy.study_uid, {})[(copy.emetteur, copy.patient_id)] = copy

    def take_pending(self) -> list[Copy]:
        pending, self._pending = list(self._pending.values()), {}
        return pending

    def put_back(self, copies: Iterable[Copy]) -> None:
        """The registry could not be told of these."""
        for copy in copies:
            self._pending.setdefault((copy.study_uid, copy.emetteur, copy.patient_id), copy)

    def add(self, copy: Copy) -> None:
        """Take in what the registry knows, but for what it has yet to be told."""
        if (copy.study_uid, copy.emetteur, copy.patient_id) not in self._pending:
            self._put(copy)
        self.heard_of(copy)

    def learn(self, study_uid: str, identity: Identity, series: dict[str, frozenset[str]] | None = None) -> None:
        """Note an identity that several holders vouch for. `series` by EMETTEUR, where known."""
        if len(identity.records) < 2 or len({r.holder.emetteur for r in identity.records}) < 2:
            return
        person = "@".join(identity.main.id)
        for record in identity.records:
            key = (record.holder.emetteur, record.raw_patient_id)
            standing = self._by_study.get(study_uid, {}).get(key)
            have = (series or {}).get(record.holder.emetteur)
            if have is None:
                have = standing.series if standing is not None else frozenset()
            copy = Copy(
                study_uid=study_uid,
                emetteur=key[0],
                patient_id=key[1],
                person=person,
                series=have,
                ipp=record.ipp,
                authority=record.authority.emetteur,
                origin=record.origin.emetteur,
                # Not every row gives these: what one gave stands until another gives something else.
                accession=record.accession or (standing.accession if standing is not None else ""),
                ins=record.ins or (standing.ins if standing is not None else ()),
            )
            if copy != standing:
                self._put(copy)
                self._pending[(study_uid, *key)] = copy
        if self._pending:
            self.wake()

    def knows(self, study_uid: str) -> bool:
        return study_uid in self._by_study

    def absent(
        self,
        study_uid: str,
        present: Sequence[Record],
        heard: set[str],
        directory: Directory,
        long_ids: LongIds = no_long_ids,
    ) -> list[Record]:
        """Records of holders that are one person with a present one, but of those in `heard` (EMETTEURs that answered
        now): the others are down, or out of the scope that was asked. Whose an exam is depends on neither."""
        copies = self._by_study.get(study_uid)
        if not copies:
            return []
        records = []
        for record in present:
            mine = copies.get((record.holder.emetteur, record.raw_patient_id))
            if mine is None:
                continue
            for copy in copies.values():
                holder = directory.site(copy.emetteur)
                if copy.person != mine.person or copy.emetteur in heard or holder is None:
                    continue
                ipp, authority, origin = _whose(copy, holder, directory, long_ids)
                records.append(
                    Record(
                        holder=holder,
                        raw_patient_id=copy.patient_id,
                        ipp=ipp,
                        authority=authority,
                        origin=origin,
                        name=record.name,
                        birth_date=record.birth_date,
                        sex=record.sex,
                        shown_name=record.shown_name,
                        study_uid=study_uid,
                        accession=copy.accession,
                        ins=copy.ins,
                    )
                )
        return records

    def series_at(self, study_uid: str, emetteur: str) -> frozenset[str]:
        """Series that a holder had when last seen."""
        copies = self._by_study.get(study_uid, {})
        return frozenset(s for (e, _), c in copies.items() if e == emetteur for s in c.series)


async def _at_once() -> None:
    return


def _whose(copy: Copy, holder: Site, directory: Directory, long_ids: LongIds) -> tuple[str, Site, Site]:
    """→ (IPP, whose IPP it is, origin), as its own data said."""
    coded = directory.site(copy.origin or "")
    ipp, authority, origin = resolve(copy.patient_id, holder, directory, coded_origin=coded, long_ids=long_ids)
    told = directory.site(copy.authority or "")
    if copy.ipp and told is not None and told.emetteur != authority.emetteur:
        return copy.ipp, told, origin
    return ipp, authority, origin
