"""Makes a question ready for an engine: who answers it, and with which prompt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from shared.errors import FinetunedError
from shared.messages import Question
from worker.base_models.formats import Message, encode_prompt
from worker.inference.models import LoadedModel, LoadedModels
from worker.inference.registry import Registry, Responder
from worker.inference.sequence import SamplingParameters, Sequence
from worker.inference.text import TextStream


@dataclass(frozen=True)
class Prepared:
    """A question with its sequence; it holds its base model until that is released."""

    responder: Responder
    model: LoadedModel
    sequence: Sequence


class Preparation:
    """Runs beside the engines' steps: looking up, verifying and loading may take long."""

    def __init__(self, registry: Registry, models: LoadedModels) -> None:
        self.registry = registry
        self.models = models

    def prepare(self, question: Question) -> Prepared:
        """Raises an error of the tree. The caller releases the model."""
        responder = self.registry.responder_for(question)
        model = self.models.acquire(responder.model, question.deadline)
        is_done = False
        try:
            prepared = Prepared(responder, model, _sequence(question, responder, model))
            is_done = True
            return prepared
        finally:
            if not is_done:
                self.models.release(model.name)

    def prepare_without(self, question: Question, version_id: str, error: FinetunedError) -> Prepared:
        """Prepares again after the engine could not use the version: it answers no question any more."""
        self.registry.condemn(version_id, error)
        return self.prepare(question)


def _sequence(question: Question, responder: Responder, model: LoadedModel) -> Sequence:
    version = responder.version
    tokenizer = version.tokenizer if version else model.tokenizer
    style = version.prompt_format if version else model.prompt_format
    turns = [Message(role=turn.role, content=turn.content) for turn in question.turns]
    return Sequence(
        id=question.id,
        prompt=encode_prompt(style, tokenizer, turns),
        sampling=_parameters(question),
        stop_tokens=model.stop_tokens | {int(tokenizer.eos_token_id)},
        adapter=version.files if version else None,
        text=TextStream(tokenizer),
        deadline=question.deadline,
    )


def _parameters(question: Question) -> SamplingParameters:
    """A question without a seed takes one from its id: a worker that answers it again says the same."""
    asked = question.sampling
    by_id = int.from_bytes(hashlib.sha256(question.id.encode()).digest()[:8])
    return SamplingParameters(
        max_new_tokens=asked.max_new_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        seed=by_id if asked.seed is None else asked.seed,
    )
