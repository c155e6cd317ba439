"""What a training makes a model better at: how items are scored, and what each weighs in a step's loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from worker.base_models.formats import Example
from worker.finetuning.batches import Batch, num_targets
from worker.finetuning.scoring import Scorer

MakeBatch = Callable[[Sequence[Example]], Batch]  # on the model's device


@dataclass(frozen=True)
class Scored:
    """Sums over the items of one forward pass; the tensors are on the model's device. `num_correct` of `num_judged`
    tokens are those that the model would have chosen; `details` are what the objective names so."""

    loss_sum: Tensor
    num_correct: Tensor
    num_judged: int
    num_supervised: int
    num_tokens: int
    details: Tensor | None = None

    def detached(self) -> Scored:
        """The same numbers, without what a way back would need."""
        return replace(self, loss_sum=self.loss_sum.detach())

    def numbers(self) -> list[float]:
        """The fields in their order, to be added up over passes and processes."""
        counts = (float(self.num_correct), self.num_judged, self.num_supervised, self.num_tokens)
        return [float(self.loss_sum), *counts, *([] if self.details is None else self.details.tolist())]


@dataclass(frozen=True)
class Totals:
    """`Scored`, added up over passes and processes."""

    loss_sum: float
    num_correct: float
    num_judged: float
    num_supervised: float
    num_tokens: float
    details: list[float]

    @property
    def accuracy(self) -> float:
        return self.num_correct / self.num_judged


class Objective(Protocol):
    """`unit` names the items; `details` names what is summed over them beside the loss. Dropout is on in training if
    `has_noise`."""

    unit: str
    details: Sequence[str]
    has_noise: bool

    def weight(self, item: Any) -> int:
        """The item's share in the mean that is learned; 0 if it has nothing to learn."""
        ...

    def score(self, items: Sequence[Any]) -> Scored:
        """One forward pass."""
        ...


class Answers:
    """Supervised training: the mean cross-entropy of the supervised tokens."""

    unit = "examples"
    details: Sequence[str] = ()
    has_noise = True

    def __init__(self, scorer: Scorer, make_batch: MakeBatch, *, is_encoder_decoder: bool) -> None:
        self._scorer = scorer
        self._make_batch = make_batch
        self._is_encoder_decoder = is_encoder_decoder

    def weight(self, item: Example) -> int:
        return num_targets(item, is_encoder_decoder=self._is_encoder_decoder)

    def score(self, items: Sequence[Example]) -> Scored:
        batch = self._make_batch(items)
        score, num_supervised = self._scorer.score(batch), len(batch.targets)
        return Scored(score.loss_sum, score.num_correct, num_supervised, num_supervised, batch.num_tokens)
