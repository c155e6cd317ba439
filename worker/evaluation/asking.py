"""Generated answers: every question to every column, by the inference workers and behind whoever asks them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from shared.disk import DiskRoom
from shared.errors import FinetunedError, Superseded
from shared.messages import Question, Sampling
from shared.retrieval.prompt import NOTHING_FOUND
from shared.streams import replies_of
from worker.batches.answering import Answerer, answer_lines
from worker.batches.native import QUESTION_SECONDS
from worker.batches.output import OutputFile, Result
from worker.batches.questions import BackgroundQuestions, connect
from worker.batches.reporting import Capacity
from worker.evaluation.answers import Asked, Given, Place, final_answers, read_answers, result_of, too_long, written
from worker.evaluation.contenders import Contender
from worker.evaluation.material import Material
from worker.evaluation.sources import Library, with_sources
from worker.evaluation.work import Progress, Work

PATIENCE_SECONDS = 60.0  # without any inference worker, before the report comes without answers
_ANSWER_BYTES = 8192  # on disk, at the most that is usual


@dataclass
class _Patience:
    """Says when there has been nobody to answer for too long."""

    capacity: Capacity
    seconds: float
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._seen_at = self._look_at = self.clock()

    def is_over(self) -> bool:
        now = self.clock()
        if now >= self._look_at:
            self._look_at = now + 1.0
            if self.capacity.count_workers():
                self._seen_at = now
        return now - self._seen_at >= self.seconds


class Asking:
    """The questions of one evaluation job on the background stream."""

    def __init__(
        self,
        work: Work,
        contenders: Iterable[Contender],
        material: Material,
        library: Library,
        progress: Progress,
        patience_seconds: float,
    ) -> None:
        self._work = work
        self._contenders = {one.index: one for one in contenders}
        self._items = {item.number: item for item in material.asked}
        self._num_items = len(material.items)
        self._library = library
        self._progress = progress
        self._capacity = Capacity(work.job.database, work.settings.max_batch_size)
        self._patience = _Patience(self._capacity, patience_seconds)
        self._asked: dict[int, Asked] = {}
        self._path = work.folder / "answers.jsonl"

    def answers(self) -> dict[tuple[int, int], Given]:
        """By item and column, as many as there could be: what is missing is noted. Raises `Stopped` and `DiskFull`."""
        places = [Place(item, column) for item in self._items for column in self._contenders]
        if not places:
            return {}
        DiskRoom.of(self._work.settings).require(_ANSWER_BYTES * len(places), "The evaluation")
        with OutputFile(self._path) as output:
            self._progress.begin("answers", len(output.done))
            self._ask(places, output)
        found = final_answers(read_answers(self._path, self._num_items))
        num_missing = len(places) - len(found)
        if num_missing:
            self._work.note(
                f"No inference worker was running for {self._patience.seconds:g} seconds, so {num_missing} of "
                f"{len(places)} answers are missing; start one and evaluate again."
            )
        return found

    def _ask(self, places: list[Place], output: OutputFile) -> None:
        client = connect(self._work.settings.resolved_redis_url)
        questions = BackgroundQuestions(
            client, self._work.job.claim.job_id, self._question, self._capacity.limit, result_of=result_of
        )
        try:
            is_whole = self._in_rounds(places, output, questions)
            questions.close(is_abandoned=not is_whole)
        except Superseded:
            if self._work.job.is_cancelled():  # else another attempt waits for these answers
                questions.close(is_abandoned=True)
            raise
        finally:
            client.close()

    def _in_rounds(self, places: list[Place], output: OutputFile, answerer: Answerer[Asked]) -> bool:
        """Asks again with half of the sources what was too long with all of them. False if nobody answers."""
        while places:
            is_whole = answer_lines(
                answerer,
                self._lines(places, output),
                output,
                lambda raw: self._asked[int(raw)],
                should_stop=lambda: self._work.should_stop() or self._patience.is_over(),
                on_progress=lambda: self._progress.step(len(output.done)),
            )
            self._asked.clear()
            if not is_whole:
                self._work.check()
                return False
            places = too_long(read_answers(self._path, self._num_items))
        return True

    def _lines(self, places: list[Place], output: OutputFile) -> Iterator[tuple[int, bytes]]:
        """What has no answer yet, as the loop of batches takes it."""
        for place in places:
            line = place.line(self._num_items)
            if line in output.done:
                continue
            found = self._prepared(line, place)
            if isinstance(found, Result):
                output.write([found])
            else:
                self._asked[line] = found
                yield line, str(line).encode()

    def _prepared(self, line: int, place: Place) -> Asked | Result:
        """The question with what was found about it; its result where there is nobody to ask."""
        item, contender = self._items[place.item], self._contenders[place.column]
        asked = Asked(item, contender, place.halvings)
        if not contender.is_rag:
            return asked
        try:
            sources = self._library.of(item)
        except FinetunedError as error:
            return result_of(line, asked, error)
        if not sources.hits:
            return written(line, asked, NOTHING_FOUND)
        return Asked(item, contender, place.halvings, len(sources.halved(place.halvings)), sources.search_ms)

    def _question(self, question_id: str, asked: Asked) -> Question:
        parameters, contender, sent_at = self._work.parameters, asked.contender, time.time()
        turns = asked.item.turns
        if contender.is_rag:
            turns = with_sources(turns, self._library.of(asked.item).halved(asked.halvings))
        return Question(
            id=question_id,
            project_id=self._work.project,
            reply_to=replies_of(self._work.job.claim.job_id),
            turns=turns,
            sampling=Sampling(max_new_tokens=parameters.max_new_tokens, temperature=0.0),
            model=contender.base_model,
            adapter=contender.column.adapter,
            version=contender.column.version,
            fallback=False,
            deadline=sent_at + QUESTION_SECONDS,
            asked_at=sent_at,
            is_background=True,
        )
