"""What a comparison is made on: held-out examples, questions with their wanted answers, and the general set."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from shared.errors import DocumentError, InvalidRequest, SetupFailed
from shared.evaluation_parameters import EvaluationParameters
from shared.evaluation_report import Source
from shared.messages import Turn
from shared.models import Dataset, Document
from shared.repositories.datasets import DatasetRepository
from shared.repositories.documents import DocumentRepository
from worker.base_models.formats import (
    MASKED,
    Example,
    Message,
    PromptFormat,
    encode_conversation,
    encode_text,
    format_of,
    longest_example,
    sequences,
)
from worker.base_models.loading import load_config, load_tokenizer
from worker.data import dataset as datasets_on_disk
from worker.data.dataset import hash_of_tokenizer, held_out_questions
from worker.data.examples import Exchange
from worker.data.extraction import ExtractionLimits
from worker.data.job import text_of
from worker.data.texts import ExtractedText
from worker.evaluation.general import general_set
from worker.evaluation.work import Work

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_TOKENS = 2048  # of a question with its answer, where the model has room for more

T = TypeVar("T")
Prompt = tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """One example. `example` is what losses are computed of; `turns` are asked for `wanted` if it `is_asked`.
    `seen`: the setup's training examples ask the same."""

    number: int
    source: Source
    example: Example | None = None
    turns: tuple[Turn, ...] = ()
    wanted: str | None = None
    is_asked: bool = False
    seen: bool = False

    @property
    def question(self) -> str | None:
        """What is asked, as it is shown; earlier turns with who said them."""
        if len(self.turns) < 2:
            return self.turns[0].content if self.turns else None
        return "\n".join(f"{turn.role}: {turn.content}" for turn in self.turns)


@dataclass(frozen=True)
class Language:
    """How a base model writes text as tokens: examples can be shared by models that have the same."""

    prompt_format: PromptFormat
    tokenizer_hash: str


@dataclass(frozen=True)
class Encoder:
    """Makes examples for one base model."""

    tokenizer: PreTrainedTokenizerBase
    style: PromptFormat
    max_length: int

    @property
    def language(self) -> Language:
        return Language(self.style, hash_of_tokenizer(self.tokenizer))

    def answer(self, exchange: Sequence[Message]) -> Example | None:
        """The last turn after the others; None where the base model's chat template refuses these turns."""
        from jinja2.exceptions import TemplateError

        turns = [Message(role=one["role"], content=one["content"], weight=0) for one in exchange[:-1]]
        wanted = Message(role="assistant", content=exchange[-1]["content"])
        try:
            return encode_conversation(self.style, self.tokenizer, [*turns, wanted], self.max_length)[0]
        except TemplateError:
            return None

    def passage(self, heading: str, text: str) -> list[Example]:
        return encode_text(self.style, self.tokenizer, text, heading, self.max_length)


@dataclass(frozen=True)
class Material:
    """All examples in their order, numbered from 1, for models of this language."""

    items: tuple[Item, ...]
    language: Language

    @property
    def asked(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.is_asked)


def encoder_of(work: Work, base_model: str) -> Encoder:
    """Raises a `BaseModelError`."""
    tokenizer = load_tokenizer(base_model, work.settings.model_cache_dir)
    config = load_config(base_model, work.settings.model_cache_dir)
    return Encoder(tokenizer, format_of(config, tokenizer), longest_example(MAX_TOKENS, config))


def gather(work: Work, made_document_id: str | None = None) -> Material:
    """The same in every attempt; with the made questions beside those of the files. Raises what is wrong with the base
    model, the dataset or a file of questions, and `InvalidRequest` if there is nothing at all."""
    parameters, encoder = work.parameters, encoder_of(work, work.parameters.base_model)
    held_out, prompts = _held_out(work, encoder.style)
    questions = [one for document in _documents(work, made_document_id) for one in _questions(work, document, encoder)]
    questions = _some(questions, parameters.max_examples, parameters.seed)
    questions = [replace(one, seen=_prompt_of(one.example, encoder.style) in prompts) for one in questions]
    items = [*_asked(questions, held_out, parameters), *(_general(encoder) if parameters.general else ())]
    if not items:
        raise InvalidRequest("There is nothing to compare on; name a setup job or files of questions, or set general.")
    return Material(tuple(replace(one, number=number) for number, one in enumerate(items, 1)), encoder.language)


def _asked(questions: list[Item], held_out: list[Item], parameters: EvaluationParameters) -> list[Item]:
    """All of them; those are asked that the files name and then held-out ones, until there are enough."""
    candidates = [(index, one) for index, one in enumerate([*held_out, *questions]) if one.turns]
    of_files = [index for index, one in candidates if one.source == "questions"]
    others = [index for index, one in candidates if one.source == "held_out"]
    chosen = _some(of_files, parameters.max_questions, parameters.seed)
    chosen += _some(others, parameters.max_questions - len(chosen), parameters.seed)
    asked = set(chosen)
    return [replace(one, is_asked=index in asked) for index, one in enumerate([*held_out, *questions])]


def _held_out(work: Work, style: PromptFormat) -> tuple[list[Item], set[Prompt]]:
    """Of the setup job's dataset: each example with what it answers, and what the others, which are trained on, ask.
    An example of several answers is followed by the others without their tokens, which it has."""
    dataset = _dataset(work)
    if dataset is None:
        return [], set()
    folder = work.storage.dataset(dataset.id)
    train, examples = ([sequences(one)[0] for one in part] for part in datasets_on_disk.load(folder))
    if not examples:
        work.note("The setup has held nothing out, so there are no held-out examples.")
    has_tokens = dataset.base_model == work.parameters.base_model
    if not has_tokens:
        work.note(f"The held-out examples were made for {dataset.base_model}, so their losses are left out.")
    found = held_out_questions(folder)
    if found is None:
        work.note("The dataset is of an older version, which kept no held-out questions; run the setup again.")
    exchanges: dict[int, list[Exchange]] = {}
    for one in found or ():
        exchanges.setdefault(one.example, []).append(one.exchange)
    chosen = _some(range(len(examples)), work.parameters.max_examples, work.parameters.seed)
    items = [
        item
        for number in chosen
        for item in _of_example(examples[number] if has_tokens else None, exchanges.get(number, []))
    ]
    return items, {prompt for one in train if has_tokens and (prompt := _prompt_of(one, style))}


def _prompt_of(example: Example | None, style: PromptFormat) -> Prompt | None:
    """The tokens before the first that is learned, or an encoder's; None where nothing is asked."""
    if example is None:
        return None
    if style is PromptFormat.TEXT2TEXT:
        return tuple(example.input_ids)
    end = next((place for place, label in enumerate(example.labels) if label != MASKED), 0)
    return tuple(example.input_ids[:end]) if end > 1 else None  # one alone is the start token


def _of_example(example: Example | None, exchanges: Sequence[Exchange]) -> Iterator[Item]:
    for exchange in exchanges:
        turns, wanted = _turns_of(exchange)
        yield Item(0, "held_out", example, turns, wanted)
        example = None
    if example is not None:
        yield Item(0, "held_out", example)


def _dataset(work: Work) -> Dataset | None:
    setup_job_id = work.parameters.setup_job_id
    if setup_job_id is None:
        return None
    with work.job.database.read() as session:
        dataset = DatasetRepository(session).of_job(setup_job_id)
    if dataset is None or dataset.project_id != work.project:
        raise SetupFailed("The setup job has no dataset; run it again.", param="setup_job_id")
    return dataset


def _documents(work: Work, made_document_id: str | None) -> list[Document]:
    """Raises `DocumentNotFound`."""
    ids = [*work.parameters.question_document_ids, *([made_document_id] if made_document_id else ())]
    with work.job.database.read() as session:
        documents = DocumentRepository(session)
        return [documents.get(work.project, one) for one in dict.fromkeys(ids)]


def _questions(work: Work, document: Document, encoder: Encoder) -> list[Item]:
    """Raises a `DocumentError` that names file and line."""
    settings = work.settings
    limits = ExtractionLimits(settings.extraction_timeout_seconds, settings.extraction_memory_bytes)
    try:
        text = text_of(document, limits, work.storage)
    except DocumentError as error:
        raise type(error)(f"{document.filename}: {error.detail}", param="question_document_ids") from error
    exchanges = list(_exchanges(text))
    if not exchanges:
        raise DocumentError(
            f"{document.filename} holds no question with an answer; each line needs 'question' and 'answer', or "
            "'messages'.",
            param="question_document_ids",
        )
    return [Item(0, "questions", encoder.answer(one), *_turns_of(one)) for one in exchanges]


def _exchanges(text: ExtractedText) -> Iterator[Exchange]:
    """Each answer of a conversation that counts, after the turns before it; of two answers the preferred one."""
    for conversation in text.conversations:
        for end, message in enumerate(conversation, 1):
            if end > 1 and message["role"] == "assistant" and message.get("weight", 1):
                yield conversation[:end]
    for preference in text.preferences:
        yield (*preference["prompt"], Message(role="assistant", content=preference["chosen"]))


def _turns_of(exchange: Exchange) -> tuple[tuple[Turn, ...], str]:
    """Half of a surrogate pair, which JSON can carry and no message, becomes a question mark."""
    said = [(one["role"], one["content"].encode("utf-8", "replace").decode()) for one in exchange]
    turns = tuple(Turn.model_validate({"role": role, "content": content}) for role, content in said[:-1])
    return turns, said[-1][1]


def _general(encoder: Encoder) -> Iterator[Item]:
    for one in general_set():
        if one.question is None:
            for example in encoder.passage(one.heading, one.text):
                yield Item(0, "general", example, wanted=one.text)
        else:
            turns = (Message(role="user", content=one.question), Message(role="assistant", content=one.text))
            yield Item(0, "general", encoder.answer(turns), *_turns_of(turns))


def _some(values: Iterable[T], most: int, seed: int) -> list[T]:
    """At most so many of them in their order, chosen by the seed."""
    found = list(values)
    if len(found) <= most:
        return found
    return [
        found[place] for place in sorted(random.Random(f"evaluation/{seed}").sample(range(len(found)), max(0, most)))
    ]
