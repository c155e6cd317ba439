"""Questions about the documents by a model behind the OpenAI-compatible endpoint, which sees a passage at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.generator_endpoint import GeneratorEndpoint
from shared.messages import Sampling
from shared.question_files import Question
from shared.settings import Settings
from worker.batches.answering import answer_lines
from worker.batches.output import OutputFile, Result, read_output
from worker.data.texts import ExtractedText
from worker.evaluation.answers import answer_of
from worker.evaluation.endpoint import endpoint_answers
from worker.evaluation.questions import spread
from worker.evaluation.questions.written import passages_of, prompt_about, questions_in
from worker.evaluation.work import Work

_SAMPLING = Sampling(max_new_tokens=1024, temperature=0.0)


@dataclass(frozen=True)
class _Passage:
    """A piece of a document, and what the model is asked about it."""

    text: str
    prompt: str

    @property
    def custom_id(self) -> str | None:
        return None


def can_write(settings: Settings) -> bool:
    """Whether there is a model to ask."""
    return bool(settings.question_model and settings.openai_base_url)


def write_questions(work: Work, texts: Sequence[ExtractedText], num_questions: int) -> list[Question]:
    """At most so many, spread over the passages; none, with a note, where there is nobody to write them.

    What the model wrote is kept, so that the next attempt asks for the rest alone. Raises `Stopped` and `DiskFull`.
    """
    if not can_write(work.settings):
        work.note("No model writes questions: set FINETUNED_QUESTION_MODEL and OPENAI_BASE_URL on the training worker.")
        return []
    texts_of = passages_of(texts, num_questions, work.parameters.seed)
    passages = [_Passage(one, prompt_about(one, len(texts_of), num_questions)) for one in texts_of]
    path = work.folder / "written-questions.jsonl"
    with OutputFile(path) as output:
        _ask(work, passages, output)
    return _taken(work, passages, _read(path), num_questions)


def _ask(work: Work, passages: Sequence[_Passage], output: OutputFile) -> None:
    endpoint, model = GeneratorEndpoint(work.settings), work.settings.question_model or ""

    async def write(line: int, passage: _Passage) -> Result:
        written = await endpoint.write(model, passage.prompt, _SAMPLING)
        return Result(line, None, answer_of(written.text, written), {"written": written.text})

    work.job.log(f"Asking {model} for questions about {len(passages)} passages")
    with endpoint_answers(write) as answers:
        answer_lines(
            answers,
            ((line, str(line).encode()) for line in range(len(passages)) if line not in output.done),
            output,
            lambda raw: passages[int(raw)],
            should_stop=lambda: work.should_stop() or answers.is_away,
        )
    work.check()


def _read(path: Path) -> dict[int, str]:
    """By line, what was written."""
    return {one["line"]: one["body"]["written"] for one in read_output(path) if one.get("body")}


def _taken(work: Work, passages: Sequence[_Passage], written: dict[int, str], num_questions: int) -> list[Question]:
    found = [questions_in(written.get(line, ""), passage.text) for line, passage in enumerate(passages)]
    questions = spread([taken for taken, _ in found], num_questions)
    num_missing, num_dropped = len(passages) - len(written), sum(dropped for _, dropped in found)
    if num_missing:
        work.note(
            f"The model at OPENAI_BASE_URL did not answer, so nothing is asked about {num_missing} of "
            f"{len(passages)} passages."
        )
    if num_dropped:
        work.remark(
            f"{num_dropped} questions that the model wrote were dropped: their answers do not stand in the "
            "passage, or the question gives them away."
        )
    if passages and not questions:
        work.note("No question that the model wrote can be used; they are made by rule.")
    return questions
