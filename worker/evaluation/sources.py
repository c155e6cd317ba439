"""What the documents hold about each question, for the columns that answer from them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from shared.embeddings import embedder_of
from shared.errors import FinetunedError, IndexUnavailable
from shared.messages import Turn
from shared.retrieval.index import IndexReader
from shared.retrieval.prompt import prompt_of
from shared.retrieval.searching import Hit, Retrieval
from worker.evaluation.contenders import Contender
from worker.evaluation.material import Item
from worker.evaluation.work import Work

_MOST_KEPT = 64  # questions whose hits are remembered: one is asked of one column after the other


@dataclass(frozen=True)
class Sources:
    """The hits of one question, the best first, and how long they were looked for."""

    hits: tuple[Hit, ...]
    search_ms: float

    def halved(self, times: int) -> tuple[Hit, ...]:
        """The better half, so many times, of at least one hit."""
        return self.hits[: max(1, len(self.hits) >> times)]


class Library:
    """The project's documents."""

    def __init__(self, work: Work) -> None:
        index = IndexReader(work.settings.resolved_retrieval_url)
        self._work = work
        self._retrieval = Retrieval(work.job.database, index, embedder_of(work.settings))
        self._kept: OrderedDict[int, Sources] = OrderedDict()

    def without_rag(self, contenders: Sequence[Contender]) -> list[Contender]:
        """The contenders, without those that answer from documents where there are none to be found; the report then
        notes why."""
        if not any(one.is_rag for one in contenders):
            return list(contenders)
        try:
            problem: FinetunedError | None = None
            if not self._retrieval.has_any(self._work.project):
                problem = self._retrieval.nothing_indexed(self._work.project)
        except IndexUnavailable as error:
            problem = error
        except ImportError:
            problem = IndexUnavailable("The training worker cannot read the index: install lancedb there.")
        if problem is None:
            return list(contenders)
        named = ", ".join(one.label for one in contenders if one.is_rag)
        self._work.note(f"{named}: left out: {problem.detail}", problem)
        return [one for one in contenders if not one.is_rag]

    def of(self, item: Item) -> Sources:
        """Raises `IndexUnavailable`."""
        if item.number not in self._kept:
            started_at = time.monotonic()
            found = self._retrieval.search(self._work.project, item.turns[-1].content, self._work.parameters.top_k)
            self._kept[item.number] = Sources(found.hits, 1000 * (time.monotonic() - started_at))
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return self._kept[item.number]


def with_sources(turns: Sequence[Turn], hits: Sequence[Hit]) -> tuple[Turn, ...]:
    """The conversation, whose last question is asked with what was found about it, if anything was."""
    if not hits:
        return tuple(turns)
    *before, last = turns
    return (*before, Turn(role=last.role, content=prompt_of(last.content, hits)))
