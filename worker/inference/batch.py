"""Batch inference as a library call: a file of questions, answered by one model at full throughput."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.batch_parameters import BatchLine, BatchOptions
from shared.errors import AdapterNotFound, InvalidRequest
from shared.messages import Answer, Question, Sampling, Usage
from worker.adapter_files import MANIFEST, check_files
from worker.base_models.formats import PromptFormat
from worker.base_models.loading import load_tokenizer
from worker.batches.answering import answer_lines
from worker.batches.lines import parse_line, unanswered_lines
from worker.batches.output import OutputFile, Result, Tally
from worker.inference.choices import WrittenChoice
from worker.inference.engine import Output, stepped
from worker.inference.models import LoadedModel
from worker.inference.preparation import Prepared, prepared_for
from worker.inference.registry import Responder, ServedVersion
from worker.inference.sequence import AdapterFiles

_NEVER = 253402300799.0  # the year 9999: nobody waits for these answers


def answer_file(
    model: LoadedModel,
    input_path: Path,
    output_path: Path,
    *,
    adapters: Mapping[str, Path] | None = None,
    options: BatchOptions | None = None,
    num_in_flight: int = 64,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tally:
    """Answers the lines of a jsonl file (`shared.batch_parameters.BatchLine`) into another, in the order in which the
    answers come; each names its line. Called again after a stop or a kill it answers the lines that are left.

    `adapters`: folders of PEFT's files by the names that lines may use; `options` holds for lines that say nothing
    else; `num_in_flight` lines wait or are answered at once. Returns sums over all lines of the output, earlier runs'
    too. What is wrong with a line is its result; raises `DiskFull`.
    """
    responders = {name: _responder(model, name, folder) for name, folder in (adapters or {}).items()}
    with OutputFile(output_path) as output:
        answerer = EngineAnswerer(model, responders, options or BatchOptions(), num_in_flight)
        lines = unanswered_lines(input_path, output.done)
        answer_lines(answerer, lines, output, parse_line, should_stop=should_stop)
        return output.tally


@dataclass(eq=False)
class _Flight:
    number: int
    line: BatchLine
    prepared: Prepared
    choices: list[WrittenChoice]


class EngineAnswerer:
    """Answers lines by an engine in this process; it steps the engine whenever results are asked for."""

    def __init__(
        self, model: LoadedModel, responders: Mapping[str, Responder], defaults: BatchOptions, num_in_flight: int
    ) -> None:
        self._model = model
        self._responders = responders
        self._defaults = defaults
        self._num_in_flight = num_in_flight
        self._flights: dict[str, _Flight] = {}

    @property
    def num_places(self) -> int:
        return max(0, self._num_in_flight - len(self._flights))

    @property
    def num_open(self) -> int:
        return len(self._flights)

    def ask(self, number: int, line: BatchLine) -> None:
        options = line.options_over(self._defaults)
        if options.adapter is not None and options.adapter not in self._responders:
            raise AdapterNotFound(f"No adapter '{options.adapter}' was given.")
        if options.model is not None and options.model != self._model.name:
            raise InvalidRequest(f"'{self._model.name}' is the only model here.")
        responder = Responder(self._model.name) if options.adapter is None else self._responders[options.adapter]
        question = _question(str(number), line, options, self._model.name)
        prepared = prepared_for(question, responder, self._model)
        for sequence in prepared.sequences:
            self._model.engine.submit(sequence)
        choices = [WrittenChoice(index) for index in range(len(prepared.sequences))]
        self._flights[question.id] = _Flight(number, line, prepared, choices)

    def results(self) -> list[Result]:
        found = [self._take(output) for output in stepped(self._model.engine)]
        return [result for result in found if result is not None]

    def forget(self) -> None:
        """Nothing is kept."""

    def _take(self, output: Output) -> Result | None:
        """Notes what a step did to a line; its result, if that was the end of it."""
        flight = self._flights.get(output.sequence.question_id)
        if flight is None:
            return None
        choice = flight.choices[output.sequence.choice]
        choice.take(output.sequence, output.text, output.finish_reason, flight.prepared.tokenizer)
        if output.error is None and not all(one.finish_reason for one in flight.choices):
            return None
        del self._flights[output.sequence.question_id]
        if output.error is None:
            return Result(flight.number, flight.line.custom_id, _answer(flight))
        for sequence in flight.prepared.sequences:
            self._model.engine.abort(sequence.id)
        return Result(flight.number, flight.line.custom_id, output.error)


def _responder(model: LoadedModel, name: str, folder: Path) -> Responder:
    """An adapter by its folder: one that was published here brings its tokenizer and its prompt format."""
    tokenizer, style = model.tokenizer, model.prompt_format
    if (folder / MANIFEST).exists():
        style = PromptFormat(check_files(folder).prompt_format)
        tokenizer = load_tokenizer(str(folder))
    return Responder(model.name, ServedVersion(name, 0, AdapterFiles(name, folder), style, tokenizer))


def _question(question_id: str, line: BatchLine, options: BatchOptions, model: str) -> Question:
    sampling = {name: value for name, value in options.options().items() if name in Sampling.model_fields}
    return Question(
        id=question_id,
        project_id="",
        reply_to="",
        turns=line.turns,
        sampling=Sampling.model_validate(sampling),
        model=model,
        adapter=options.adapter,
        fallback=False,
        deadline=_NEVER,
        asked_at=time.time(),
    )


def _answer(flight: _Flight) -> Answer:
    """As the service gives it, without times: they say nothing where lines wait on purpose."""
    prepared, sequences = flight.prepared, flight.prepared.sequences
    choices = [choice.message(sequence) for choice, sequence in zip(flight.choices, sequences, strict=True)]
    version = prepared.responder.version
    return Answer(
        question_id=str(flight.number),
        text=choices[0].text,
        model=prepared.responder.model,
        adapter=None if version is None else version.name,
        version=None,
        fallback=False,
        finish_reason=choices[0].finish_reason,
        usage=Usage(
            prompt_tokens=len(sequences[0].prompt), completion_tokens=sum(one.completion_tokens for one in choices)
        ),
        quality=choices[0].quality,
        queue_ms=0.0,
        first_token_ms=0.0,
        logprobs=choices[0].logprobs,
        choices=tuple(choices) if len(choices) > 1 else (),
    )
