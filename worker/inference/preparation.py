"""Makes a question ready for an engine: who answers it, and with which prompt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import FinetunedError, InvalidRequest
from shared.logs import log_about
from shared.messages import Question
from worker.base_models.formats import Message, PromptFormat, encode_prompt, encode_raw
from worker.inference.models import LoadedModel, LoadedModels
from worker.inference.registry import Registry, Responder
from worker.inference.sequence import SamplingParameters, Sequence
from worker.inference.text import TextStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prepared:
    """A question with its sequences, one a choice; it holds its base model until that is released."""

    responder: Responder
    model: LoadedModel
    tokenizer: PreTrainedTokenizerBase
    sequences: tuple[Sequence, ...]


class Preparation:
    """Runs beside the engines' steps: looking up, verifying and loading may take long."""

    def __init__(self, registry: Registry, models: LoadedModels) -> None:
        self.registry = registry
        self.models = models

    def prepare(self, question: Question) -> Prepared:
        """Raises an error of the tree. The caller releases the model."""
        with log_about(**question.log_ids):
            return self._prepare(question)

    def _prepare(self, question: Question) -> Prepared:
        responder = self.registry.responder_for(question)
        model = self.models.acquire(responder.model, question.deadline)
        is_done = False
        try:
            prepared = prepared_for(question, responder, model)
            is_done = True
            return prepared
        finally:
            if not is_done:
                self.models.release(model.name)

    def prepare_without(self, question: Question, version_id: str, error: FinetunedError) -> Prepared:
        """Prepares again after the engine could not use the version: it answers no question any more."""
        self.registry.condemn(version_id, error)
        return self.prepare(question)


def prepared_for(question: Question, responder: Responder, model: LoadedModel) -> Prepared:
    """The question as sequences for this model's engine; holds nothing."""
    version = responder.version
    tokenizer = version.tokenizer if version else model.tokenizer
    style = version.prompt_format if version else model.prompt_format
    prompt = prompt_of(question, style, tokenizer)
    continued = prompt if question.prompt is not None and style is not PromptFormat.TEXT2TEXT else ()
    sequences = tuple(
        Sequence(
            id=f"{question.id}/{choice}",
            prompt=prompt,
            sampling=_parameters(question, choice),
            stop_tokens=model.stop_tokens | {int(tokenizer.eos_token_id)},
            adapter=version.files if version else None,
            text=TextStream(tokenizer, question.sampling.stop, continued),
            deadline=question.deadline,
            project_id=question.project_id,
            is_background=question.is_background,
            question_id=question.id,
            choice=choice,
            penalizes_prompt=style is not PromptFormat.TEXT2TEXT,
        )
        for choice in range(question.sampling.n)
    )
    return Prepared(responder, model, tokenizer, sequences)


def prompt_of(question: Question, style: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens to continue. Raises `InvalidRequest` where the chat template does not take the conversation."""
    if question.prompt is not None:
        return encode_raw(style, tokenizer, question.prompt)
    from jinja2.exceptions import TemplateError

    turns = [Message(role=turn.role, content=turn.content) for turn in question.turns]
    try:
        return encode_prompt(style, tokenizer, turns)
    except TemplateError as error:
        raise InvalidRequest(
            f"The model's chat template refuses this conversation: {error}.", param="messages"
        ) from error


def _parameters(question: Question, choice: int) -> SamplingParameters:
    asked = question.sampling
    return SamplingParameters(
        max_new_tokens=asked.max_new_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        seed=_seed(question, choice),
        top_k=asked.top_k,
        repetition_penalty=asked.repetition_penalty,
        frequency_penalty=asked.frequency_penalty,
        presence_penalty=asked.presence_penalty,
        logprobs=asked.logprobs,
    )


def _seed(question: Question, choice: int) -> int:
    """The first choice has the question's own seed, so that it says what a question for one answer would be told.
    A question without a seed takes one from its id: a worker that answers it again says the same."""
    seed = question.sampling.seed
    if choice == 0 and seed is not None:
        return seed
    source = f"{question.id if seed is None else seed}/{choice}"
    return int.from_bytes(hashlib.sha256(source.encode()).digest()[:8])
