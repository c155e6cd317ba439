"""Generated answers: every question to every column, by the inference workers and behind whoever asks them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from shared.disk import DiskRoom
from shared.errors import FinetunedError, PromptTooLong, Superseded
from shared.generator_endpoint import GeneratorEndpoint
from shared.messages import Question, Sampling
from shared.retrieval.prompt import NOTHING_FOUND, prompt_of
from shared.streams import replies_of
from worker.batches.answering import Answerer, answer_lines
from worker.batches.native import QUESTION_SECONDS
from worker.batches.output import OutputFile, Result
from worker.batches.questions import BackgroundQuestions, connect
from worker.batches.reporting import Capacity
from worker.evaluation.answers import Asked, Given, Place, final_answers, read_answers, result_of, too_long, written
from worker.evaluation.contenders import Contender
from worker.evaluation.endpoint import endpoint_answers
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
            self._ask_workers([one for one in places if not self._is_written_elsewhere(one)], output)
            self._ask_endpoint([one for one in places if self._is_written_elsewhere(one)], output)
        return final_answers(read_answers(self._path, self._num_items))

    def _is_written_elsewhere(self, place: Place) -> bool:
        """Whether the endpoint of the settings writes, as it does for the API."""
        settings, contender = self._work.settings, self._contenders[place.column]
        is_bare = contender.is_rag and contender.column.adapter is None
        return bool(is_bare and settings.openai_base_url and settings.rag_model)

    def _ask_workers(self, places: list[Place], output: OutputFile) -> None:
        """Notes what is missing because nobody answers."""
        if not places:
            return
        client = connect(self._work.settings.resolved_redis_url)
        questions = BackgroundQuestions(
            client, self._work.job.claim.job_id, self._question, self._capacity.limit, result_of=result_of
        )
        try:
            is_whole = self._in_rounds(places, output, questions)
            questions.close(is_abandoned=not is_whole)
            if not is_whole:
                self._note_missing(places, f"No inference worker was running for {self._patience.seconds:g} seconds")
        except Superseded:
            if self._work.job.is_cancelled():  # else another attempt waits for these answers
                questions.close(is_abandoned=True)
            raise
        finally:
            client.close()

    def _ask_endpoint(self, places: list[Place], output: OutputFile) -> None:
        """Notes what is missing because the endpoint does not answer."""
        if not places:
            return
        with endpoint_answers(self._written) as answers:
            answer_lines(
                answers,
                self._lines(places, output),
                output,
                lambda raw: self._asked[int(raw)],
                should_stop=lambda: self._work.should_stop() or answers.is_away,
                on_progress=lambda: self._progress.step(len(output.done)),
            )
        self._work.check()
        self._note_missing(places, "The endpoint at OPENAI_BASE_URL did not answer as it should")

    async def _written(self, line: int, asked: Asked) -> Result:
        """From half of the sources, if all are too long for the model. Raises `EndpointUnavailable`."""
        settings, hits = self._work.settings, asked.hits
        sampling = Sampling(max_new_tokens=self._work.parameters.max_new_tokens, temperature=0.0)
        while True:
            started_at = time.monotonic()
            try:
                prompt = prompt_of(asked.item.question or "", hits)
                found = await GeneratorEndpoint(settings).write(settings.rag_model or "", prompt, sampling)
                return written(line, replace(asked, hits=hits), found.text, time.monotonic() - started_at, found)
            except PromptTooLong:
                if len(hits) == 1:
                    raise
                hits = hits[: len(hits) // 2]

    def _note_missing(self, places: list[Place], why: str) -> None:
        found = final_answers(read_answers(self._path, self._num_items))
        num_missing = sum((one.item, one.column) not in found for one in places)
        if num_missing:
            self._work.note(f"{why}, so {num_missing} of {len(places)} answers are missing; evaluate again.")

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
        asked = Asked(item, contender)
        if not contender.is_rag:
            return asked
        try:
            sources = self._library.of(item)
        except FinetunedError as error:
            return result_of(line, asked, error)
        if not sources.hits:
            return written(line, asked, NOTHING_FOUND)
        return Asked(item, contender, sources.halved(place.halvings), sources.search_ms)

    def _question(self, question_id: str, asked: Asked) -> Question:
        parameters, contender, sent_at = self._work.parameters, asked.contender, time.time()
        return Question(
            id=question_id,
            project_id=self._work.project,
            reply_to=replies_of(self._work.job.claim.job_id),
            turns=with_sources(asked.item.turns, asked.hits),
            sampling=Sampling(max_new_tokens=parameters.max_new_tokens, temperature=0.0),
            model=contender.base_model,
            adapter=contender.column.adapter,
            version=contender.column.version,
            fallback=False,
            deadline=sent_at + QUESTION_SECONDS,
            asked_at=sent_at,
            is_background=True,
        )
