"""Oppositions and near matches for people (a table) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import orjson

from consent.bindings import Binding, OppositionKind
from consent.oppositions import NearMatchStatus, Opposition, QueuedMatch
from imagora.commands.tables import count, table

_HEAD = ("ID", "BINDS", "STUDIES", "DECLARED", "CHANNEL", "RECORDED", "BY", "STATUS", "REASON")
_QUEUE_HEAD = ("ID", "SITE", "IPP", "FOUND", "RECORDED", "DIFFERENCE", "OPPOSITION", "STUDY", "SINCE", "STATUS")


def as_table(oppositions: Sequence[Opposition]) -> str:
    lines = [table([_HEAD, *map(_row, oppositions)]), ""] if oppositions else []
    lifted = sum(not o.active for o in oppositions)
    said = f"{count(len(oppositions), 'opposition')}{f'; {lifted} lifted' if lifted else ''}."
    return "\n".join([*lines, said])


def queue_as_table(matches: Sequence[QueuedMatch]) -> str:
    lines = [table([_QUEUE_HEAD, *map(_queue_row, matches)]), ""] if matches else []
    pending = sum(m.status is NearMatchStatus.PENDING and m.lifted_at is None for m in matches)
    said = f"{pending} to be decided." if pending else "Nothing is to be decided."
    return "\n".join([*lines, said])


def as_json(items: Sequence[Opposition] | Sequence[QueuedMatch]) -> str:
    """An array. Moments are UTC."""
    objects = [_object(i) if isinstance(i, Opposition) else _queue_object(i) for i in items]
    return orjson.dumps(objects, option=orjson.OPT_INDENT_2).decode()


def _row(o: Opposition) -> tuple[str, ...]:
    return (
        str(o.id),
        str(o.binding),
        _studies(o),
        o.declared_on.isoformat(),
        o.channel.value,
        _day(o.recorded_at),
        f"{o.recorded_by} {_person(o.recorder)} ({o.recorded_at_site})",
        "active" if o.lifted_at is None else f"lifted {_day(o.lifted_at)} by {o.lifted_by}",
        o.reason if o.active or not o.lift_reason else f"{o.reason} / {o.lift_reason}".removeprefix(" / "),
    )


def _studies(o: Opposition) -> str:
    match o.binding.kind:
        case OppositionKind.STUDY:
            return str(len(o.binding.study_uids))
        case OppositionKind.PERSON:
            return "all"
        case _:
            return f"{len(o.found)}{'' if o.resolved_at is not None else ', not all known yet'}"


def _queue_row(m: QueuedMatch) -> tuple[str, ...]:
    recorded = _traits(m.recorded_name or "", m.recorded_birth_date or "", m.recorded_sex or "")
    status = m.status.value if m.decided_at is None else f"{m.status} {_day(m.decided_at)} by {m.decided_by}"
    return (
        str(m.id),
        m.emetteur,
        m.ipp,
        _traits(m.name, m.birth_date, m.sex),
        recorded or f"INS {m.recorded_ins}",
        m.difference,
        f"{m.opposition}{' (lifted)' if m.lifted_at is not None else ''}",
        m.study_uid,
        _day(m.found_at),
        status,
    )


def _traits(name: str, birth_date: str, sex: str) -> str:
    return " ".join(filter(None, (name, birth_date, sex)))


def _person(name: str) -> str:
    return " ".join(name.replace("^", " ").split())


def _day(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d}"


def _object(o: Opposition) -> Mapping[str, object]:
    return {
        "id": o.id,
        "active": o.active,
        **_binding_object(o.binding),
        "studies_found": list(o.found),
        "resolved_at": _utc(o.resolved_at),
        "declared_on": o.declared_on,
        "channel": o.channel.value,
        "reason": o.reason,
        "recorded_by": o.recorded_by,
        "recorder": o.recorder,
        "recorded_at_site": o.recorded_at_site,
        "recorded_at": _utc(o.recorded_at),
        "lifted_by": o.lifted_by,
        "lifted_at": _utc(o.lifted_at),
        "lift_reason": o.lift_reason,
    }


def _binding_object(b: Binding) -> Mapping[str, object]:
    return {
        "kind": b.kind.value,
        "study_uids": list(b.study_uids),
        "emetteur": b.emetteur,
        "accession": b.accession,
        "ipp": b.ipp,
        "name": b.name,
        "birth_date": b.birth_date,
        "sex": b.sex,
        "ins": b.ins,
    }


def _queue_object(m: QueuedMatch) -> Mapping[str, object]:
    return {
        "id": m.id,
        "opposition": m.opposition,
        "opposition_lifted": m.lifted_at is not None,
        "status": m.status.value,
        "emetteur": m.emetteur,
        "found": {"ipp": m.ipp, "name": m.name, "birth_date": m.birth_date, "sex": m.sex, "study_uid": m.study_uid},
        "recorded": {
            "name": m.recorded_name,
            "birth_date": m.recorded_birth_date,
            "sex": m.recorded_sex,
            "ins": m.recorded_ins,
        },
        "difference": m.difference,
        "found_at": _utc(m.found_at),
        "decided_by": m.decided_by,
        "decided_at": _utc(m.decided_at),
    }


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment is not None else None
