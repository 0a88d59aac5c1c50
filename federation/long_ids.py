"""What the hashed form of an over-long qualified PatientID stands for (LO takes 64 characters, PS3.5 §6.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from federation.identity import Id


class LongPatientIDs:
    """In memory; `pending` is what the registry has yet to be told."""

    def __init__(self, stored: Mapping[str, Id] | None = None) -> None:
        self._known: dict[str, Id] = dict(stored or {})
        self._pending: dict[str, Id] = {}
        self.wake: Callable[[], None] = lambda: None

    def get(self, patient_id: str) -> Id | None:
        return self._known.get(patient_id)

    def note(self, patient_id: str, known_as: Id) -> None:
        if patient_id not in self._known:
            self._known[patient_id] = self._pending[patient_id] = known_as
            self.wake()

    def take_pending(self) -> list[tuple[str, Id]]:
        pending, self._pending = list(self._pending.items()), {}
        return pending

    def put_back(self, pending: Iterable[tuple[str, Id]]) -> None:
        """The registry could not be told of these."""
        self._pending = {**dict(pending), **self._pending}

    def add(self, patient_id: str, known_as: Id) -> None:
        """Take in what the registry knows."""
        self._known[patient_id] = known_as
