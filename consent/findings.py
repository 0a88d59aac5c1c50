"""What deciding brings to light, kept until it is written down: near matches for the correspondents' queue, and studies
that turned out to be an opposition's. Nobody waits for it: what was found is withheld already. Bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from consent.model import NearMatch

_MOST = 50_000


class Findings:
    """`wake` is called when there is something to write."""

    def __init__(self) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._near: dict[tuple[int, str, str, str], NearMatch] = {}
        self._bound: set[tuple[int, str]] = set()
        self._told: set[tuple[object, ...]] = set()

    def near(self, matches: Iterable[NearMatch]) -> None:
        for match in matches:
            key = (match.opposition, match.emetteur, match.ipp, str(match.traits))
            if self._is_new(key):
                self._near[key] = match

    def bind(self, opposition: int, study_uid: str) -> None:
        if self._is_new((opposition, study_uid)):
            self._bound.add((opposition, study_uid))

    def _is_new(self, key: tuple[object, ...]) -> bool:
        if key in self._told:
            return False
        if len(self._told) >= _MOST:
            self._told.clear()  # costs writing some again, which changes nothing
        self._told.add(key)
        self.wake()
        return True

    def take_near(self) -> list[NearMatch]:
        taken, self._near = list(self._near.values()), {}
        return taken

    def take_bound(self) -> dict[int, list[str]]:
        """Study UIDs by opposition."""
        taken, self._bound = self._bound, set()
        bound: dict[int, list[str]] = {}
        for opposition, study_uid in sorted(taken):
            bound.setdefault(opposition, []).append(study_uid)
        return bound

    def put_back(self, near: Iterable[NearMatch], bound: dict[int, list[str]]) -> None:
        """It could not be written: later."""
        for match in near:
            self._near[(match.opposition, match.emetteur, match.ipp, str(match.traits))] = match
        self._bound |= {(opposition, uid) for opposition, uids in bound.items() for uid in uids}
