"""Reads the quality of each version's answers, and remembers it for a moment: what is asked for every few seconds, by
pages and by Prometheus, adds up a week of answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from shared.answer_sums import AnswerSums
from shared.drift import Comparison, comparisons
from shared.repositories.answer_histories import AnswerHistoryRepository, NamedVersion

_REST = 20.0  # times as long as reading took: it takes a twentieth of a processor at most


@dataclass(frozen=True)
class VersionQuality:
    """A version's answers of the last 24 hours, and those signals that could be compared with its first days."""

    version: NamedVersion
    sums: AnswerSums
    compared: Sequence[Comparison]


class QualityReader:
    """One per process. One thread reads at a time; the others wait for what it finds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str | None, tuple[float, list[VersionQuality]]] = {}

    def read(self, session: Session, project_id: str | None) -> list[VersionQuality]:
        """Of the versions of one project or of all that answered in the last 24 hours, the 100 that did most."""
        with self._lock:
            until, found = self._known.get(project_id, (0.0, []))
            begun = self._clock()
            if begun >= until:
                found = _read(session, project_id)
                ended = self._clock()
                self._known = {name: one for name, one in self._known.items() if one[0] > ended}
                self._known[project_id] = (ended + _REST * (ended - begun), found)
            return found


def _read(session: Session, project_id: str | None) -> list[VersionQuality]:
    histories = AnswerHistoryRepository(session).of_versions(project_id, time.time())
    return [
        VersionQuality(version, sum(history.recent, AnswerSums()), comparisons(history))
        for version, history in histories.items()
    ]
