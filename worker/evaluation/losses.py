"""Teacher-forced scores: what each model makes of the wanted answers, one base model in memory at a time.

Models are held as inference workers hold them, whatever a version was trained on: what is measured is what answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from shared.errors import AdapterBroken, BaseModelError, InvalidRequest, OutOfMemory
from shared.storage import disk_errors, make_folder, publish_file
from worker.base_models.formats import Learnable
from worker.evaluation.bases import BITS, Base, WeightsFormat, free_memory
from worker.evaluation.contenders import Contender
from worker.evaluation.material import Item, Material, encoder_of
from worker.evaluation.work import Progress, Work
from worker.finetuning.batches import Split, fit, length_of
from worker.finetuning.held_out import ExampleScore, example_scores
from worker.finetuning.loop import memory_errors

SLICE = 64  # examples whose scores are written down together: at most so many are computed again after a kill
_NO_LIMIT = 1_000_000_000  # but the model's positions
_ONE_AT_A_TIME = Split(1, 1)
_LEFT_OUT = (BaseModelError, AdapterBroken, InvalidRequest, OutOfMemory)  # of one column, and not the job's end

Scores = dict[int, ExampleScore]  # by the items' numbers


@dataclass
class Losses:
    """Scores by a column's label; and of each version's base model on the general set, by the model's name."""

    by_label: dict[str, Scores] = field(default_factory=dict)
    general: dict[str, Scores] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pass:
    """One run of a model over examples: `label` None is the base model on the general set."""

    label: str | None
    base_model: str
    version_id: str | None
    items: tuple[Item, ...]

    @property
    def key(self) -> str:
        """Names its files."""
        said = json.dumps([self.label, self.base_model, self.version_id])
        return hashlib.sha256(said.encode()).hexdigest()[:24]


def num_losses(contenders: Sequence[Contender], material: Material) -> int:
    """How many steps `measure_losses` takes, or fewer where a column falls out."""
    return sum(len(one.items) for one in _passes(contenders, material))


def measure_losses(work: Work, contenders: Sequence[Contender], material: Material, progress: Progress) -> Losses:
    """Of every column that answers by itself; what cannot be measured is noted. Raises `Stopped`."""
    losses, folder = Losses(), work.folder / "losses"
    counter = _Counter(progress)
    passes = _passes(contenders, material)
    for base_model in dict.fromkeys(one.base_model for one in passes):
        mine = [one for one in passes if one.base_model == base_model]
        if _speaks(work, base_model, material, mine):
            _measure(work, mine, folder, losses, counter)
    _tell(work, contenders, losses)
    return losses


def _tell(work: Work, contenders: Sequence[Contender], losses: Losses) -> None:
    """Where losses are not those of the base model on which a version learned, or not quite those of what answers."""
    measured = [one for one in contenders if losses.by_label.get(one.label)]
    for one in measured:
        if one.quantization != "none":
            held = WeightsFormat.of(work.settings, one.base_model)
            work.remark(
                f"{one.label} was trained on its base model in {BITS[one.quantization]}. The losses of both are those "
                f"on {held.said}, as inference workers hold them; the losses of its training were others."
            )
    if measured and work.settings.inference_weights == "int8" and not torch.cuda.is_available():
        work.remark("Inference workers answer with weights in int8; losses are those on weights in float32.")


def _passes(contenders: Sequence[Contender], material: Material) -> list[_Pass]:
    scored = tuple(item for item in material.items if item.example is not None)
    general = tuple(item for item in scored if item.source == "general")
    models = [one for one in contenders if not one.is_rag]
    passes = [_Pass(one.label, one.base_model, one.version_id, scored) for one in models]
    bare = {one.base_model for one in models if one.version_id is None}
    tuned = dict.fromkeys(one.base_model for one in models if one.version_id is not None)
    passes += [_Pass(None, base, None, general) for base in tuned if base not in bare and general]
    return sorted(passes, key=lambda one: one.version_id is not None)  # first the bare models


def _speaks(work: Work, base_model: str, material: Material, passes: Sequence[_Pass]) -> bool:
    """Whether the model reads the same tokens: else its losses would be those of other examples."""
    if base_model == work.parameters.base_model:
        return True
    named = ", ".join(one.label for one in passes if one.label is not None)
    try:
        if encoder_of(work, base_model).language == material.language:
            return True
    except BaseModelError as error:
        work.note(f"{named}: the losses are left out: {error.detail}", error)
        return False
    work.note(
        f"{named}: the losses are left out, for {base_model} writes text as other tokens than "
        f"{work.parameters.base_model}."
    )
    return False


class _Counter:
    """Counts the steps of a stage over all passes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._num_done = 0

    def ahead(self, number: int) -> None:
        """Shows `number` more than what is done."""
        self._progress.step(self._num_done + number)

    def add(self, number: int) -> None:
        self._num_done += number


def _measure(work: Work, passes: Sequence[_Pass], folder: Path, losses: Losses, counter: _Counter) -> None:
    base = Base(work, passes[0].base_model)
    for one in passes:
        try:
            scores = _scores(work, one, base, folder, counter)
        except _LEFT_OUT as error:
            base.drop()
            why = base.too_large if isinstance(error, OutOfMemory) else error.detail
            work.note(f"{one.label or one.base_model}: the losses are left out: {why}", error)
            continue
        if one.label is None or one.version_id is None:
            losses.general[one.base_model] = scores
        if one.label is not None:
            losses.by_label[one.label] = scores
    base.drop()


def _scores(work: Work, one: _Pass, base: Base, folder: Path, counter: _Counter) -> Scores:
    """Those that are on disk, and then the others."""
    ordered = sorted(one.items, key=lambda item: (-length_of(_example(item)), item.number))
    slices = [ordered[start : start + SLICE] for start in range(0, len(ordered), SLICE)]
    paths = [folder / f"{one.key}.{number}.json" for number in range(len(slices))]
    scores: Scores = {}
    missing = []
    for part, path in zip(slices, paths, strict=True):
        kept = _read(path, part)
        scores |= kept or {}
        if kept is None:
            missing.append((part, path))
    counter.add(len(scores))
    if missing:
        with base.with_version(one.version_id) as model:
            for part, path in missing:
                found = _score(work, model, part, counter)
                _keep(path, found)
                scores |= found
                counter.add(len(found))
    return scores


def _score(work: Work, model: PreTrainedModel | PeftModel, items: Sequence[Item], counter: _Counter) -> Scores:
    """One example at a time where several need more memory than there is."""
    examples = fit([_example(item) for item in items], _NO_LIMIT, model.config)

    def before_batch(num_done: int) -> None:
        work.check()
        counter.ahead(num_done)

    try:
        with memory_errors():
            found = example_scores(model, examples, before_batch=before_batch)
    except OutOfMemory:
        found = None
    if found is None:  # out here, for the error holds what the failed pass computed
        free_memory()
        with memory_errors():
            found = example_scores(model, examples, split=_ONE_AT_A_TIME, before_batch=before_batch)
    return {item.number: score for item, score in zip(items, found, strict=True)}


def _example(item: Item) -> Learnable:
    assert item.example is not None  # noqa: S101 - what `_passes` chose
    return item.example


def _read(path: Path, items: Sequence[Item]) -> Scores | None:
    """None if there is no such file, or another one's."""
    try:
        rows: list[list[Any]] = json.loads(path.read_text(encoding="ascii"))
        scores = {
            int(number): ExampleScore(float(loss), int(tokens), int(right)) for number, loss, tokens, right in rows
        }
    except (OSError, ValueError, TypeError):
        return None
    return scores if scores.keys() == {item.number for item in items} else None


def _keep(path: Path, scores: Scores) -> None:
    """Raises `DiskFull`."""
    rows = [[number, *asdict(score).values()] for number, score in scores.items()]
    staged = path.with_suffix(".staged")
    with disk_errors():
        make_folder(path.parent)
        staged.write_text(json.dumps(rows), encoding="ascii")
        publish_file(staged, path)
