"""A model, its optimizer and its device: takes one optimiser step, or scores held-out examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator, DistributedType
from peft import PeftModel

from shared.errors import NonFiniteLoss
from worker.base_models.formats import Example, Learnable
from worker.finetuning.batches import Batch, Split, collate, join, micro_batches
from worker.finetuning.checkpoints import capture, restore, trainable
from worker.finetuning.joining import can_join, joined_attention
from worker.finetuning.kernels.installing import quick_operations
from worker.finetuning.objectives import Answers, Objective, Scored, Totals
from worker.finetuning.preference import Preferences, silence
from worker.finetuning.reports import EvaluationMetrics
from worker.finetuning.scoring import Scorer

if TYPE_CHECKING:
    from shared.training_config import FineTuningConfig


@dataclass(frozen=True)
class Learned:
    """One step. The losses of its items add up to `loss_sum`, and their weights to `weight`; `accuracy` is the share of
    the judged tokens that the model would have chosen; `details` are means by the objective's names; the norm is the
    gradient's before clipping."""

    loss_sum: float
    weight: int
    accuracy: float
    num_supervised: int
    num_tokens: int
    gradient_norm: float
    details: dict[str, float]


class Learner:
    """Owns the tensors that change. Device placement is accelerate's.

    Where several processes train together, each takes its share of a step's examples, and the sums of losses and
    gradients over all of them make the step: the same one that a single process would take.
    """

    def __init__(self, model: PeftModel, config: FineTuningConfig, split: Split | None = None) -> None:
        is_seq2seq = model.config.is_encoder_decoder
        self.decoder_start: int | None = model.config.decoder_start_token_id if is_seq2seq else None
        self.config = config
        self.model = model
        self.parameters = [parameter for _, parameter in trainable(model)]
        # Said outright, for otherwise several processes without a GPU would each train alone.
        self.accelerator = Accelerator(cpu=not torch.accelerator.is_available())
        adamw = torch.optim.AdamW(self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        # FSDP and DeepSpeed bring wrappers of their own, which average gradients over the processes at each pass.
        # Plain data parallelism needs none: gradients are added up once a step, however many passes each has made.
        self._adds_up = self.accelerator.distributed_type not in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        # What is called before a pass may be a collective, and processes differ in how many passes they make.
        self._is_shared = self.accelerator.num_processes > 1
        self._loss_factor = 1 if self._adds_up else self.accelerator.num_processes
        if self._adds_up:
            self.prepared = self.accelerator.prepare_model(model, evaluation_mode=True)
            self.optimizer = self.accelerator.prepare_optimizer(adamw)
        else:
            self.prepared, self.optimizer = self.accelerator.prepare(model, adamw)
        self.split = split or Split.of(config, self.accelerator.device, model.config)
        self.is_joined = can_join(model.get_base_model()) if self.split.is_joined is None else self.split.is_joined
        self.scorer = Scorer(self.prepared, model.get_output_embeddings())
        self.objective = self._objective()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it the model computes in the quickest way that is known for it; after it, as it did before."""
        with ExitStack() as stack:
            if self.is_joined:
                stack.enter_context(joined_attention(self.model.get_base_model()))
            if self.accelerator.device.type == "cpu":
                stack.enter_context(quick_operations(self.model))
            yield

    def learnable(self, items: Sequence[Learnable]) -> list[Learnable]:
        """Those of the items that have something to learn."""
        return [item for item in items if self.objective.weight(item)]

    def take_step(
        self, items: Sequence[Learnable], *, learning_rate: float, noise_seed: int, before_batch: Callable[[], None]
    ) -> Learned:
        """One optimiser step on the mean loss over the items, each by its weight, however they are split.

        `before_batch` (called before each pass; once, where several processes train) may raise: weights and optimizer
        have not changed until the step is whole. Raises `NonFiniteLoss` before anything changes.
        """
        weight = self._weight(items)
        torch.manual_seed(noise_seed + self.accelerator.process_index)
        totals = self._added_up(self._learn_from(items, weight, before_batch))
        self._add_up_gradients()
        norm = float(self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        if not (math.isfinite(totals.loss_sum) and math.isfinite(norm)):
            raise NonFiniteLoss
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return Learned(
            loss_sum=totals.loss_sum,
            weight=weight,
            accuracy=totals.accuracy,
            num_supervised=int(totals.num_supervised),
            num_tokens=int(totals.num_tokens),
            gradient_norm=norm,
            details=self._means(totals, weight),
        )

    def rehearse(self, items: Sequence[Learnable]) -> None:
        """Forward and backward as in a step, by each process on all of the items. Nothing stays of it: no gradients,
        and no random numbers that were drawn."""
        for_each = [item for item in items for _ in range(self.accelerator.num_processes)]
        device = self.accelerator.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            self._learn_from(for_each, len(for_each), before_batch=lambda: None)
        self.optimizer.zero_grad()

    @torch.no_grad()
    def rehearse_evaluation(self, items: Sequence[Learnable]) -> None:
        """Forward as in an evaluation, by each process on all of the items; nothing stays of it."""
        self.prepared.eval()
        for part in micro_batches(items, self.split, is_joined=self.is_joined):
            self.objective.score(part)

    @torch.no_grad()
    def evaluate(
        self, items: Sequence[Learnable], *, step: int, before_batch: Callable[[int], None]
    ) -> EvaluationMetrics:
        """Scores all of the items. `before_batch` gets the number done so far, and may raise to end it."""
        weight, num_done = self._weight(items), 0
        scores: list[Scored] = []
        self.prepared.eval()
        if self._is_shared:
            before_batch(0)
        for part in self._parts(items):
            if not self._is_shared:
                before_batch(num_done)
            scores.append(self.objective.score(part))
            num_done += len(part)
        totals = self._added_up(scores)
        return EvaluationMetrics(
            step=step,
            loss=totals.loss_sum / weight,
            accuracy=totals.accuracy,
            num_tokens=int(totals.num_supervised),
            details=self._means(totals, weight),
        )

    def any_process(self, flag: bool) -> bool:
        """Whether any process says so; all must ask at the same place."""
        if not self._is_shared:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device), reduction="sum"))

    def capture(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps."""
        return capture(self.model, self.optimizer)

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Puts back what `capture` gave."""
        restore(self.model, self.optimizer, tensors)

    def _learn_from(self, items: Sequence[Learnable], weight: int, before_batch: Callable[[], None]) -> list[Scored]:
        """Leaves the gradients of this process's share, and gives its passes' sums."""
        scores: list[Scored] = []
        self.prepared.train()
        if not self.objective.has_noise:
            silence(self.model)
        self.optimizer.zero_grad()
        if self._is_shared:
            before_batch()
        for part in self._parts(items):
            if not self._is_shared:
                before_batch()
            scored = self.objective.score(part)
            self.accelerator.backward(scored.loss_sum * (self._loss_factor / weight))
            scores.append(scored.detached())
        return scores

    def _objective(self) -> Objective:
        method, is_encoder_decoder = self.config.method, self.decoder_start is not None
        if method.type == "dpo":
            return Preferences(
                self.model, self.scorer, self._batch, is_encoder_decoder=is_encoder_decoder, beta=method.beta
            )
        return Answers(self.scorer, self._batch, is_encoder_decoder=is_encoder_decoder)

    def _parts(self, items: Sequence[Learnable]) -> Iterator[Sequence[Learnable]]:
        """This process's share of the items, as many at a time as go through the model together."""
        share = items[self.accelerator.process_index :: self.accelerator.num_processes]
        return micro_batches(share, self.split, is_joined=self.is_joined)

    def _batch(self, examples: Sequence[Example]) -> Batch:
        batch = join(examples) if self.is_joined else collate(examples, self.decoder_start)
        return batch.to(self.accelerator.device)

    def _weight(self, items: Sequence[Learnable]) -> int:
        return sum(self.objective.weight(item) for item in items)

    def _means(self, totals: Totals, weight: int) -> dict[str, float]:
        return {name: one / weight for name, one in zip(self.objective.details, totals.details, strict=True)}

    def _added_up(self, scores: Sequence[Scored]) -> Totals:
        """The sums over all passes and processes."""
        nothing = [0.0] * (5 + len(self.objective.details))
        total = torch.tensor([one.numbers() for one in scores] or [nothing], dtype=torch.float64).sum(0)
        if self._is_shared:
            total = self.accelerator.reduce(total.to(self.accelerator.device), reduction="sum")
        loss_sum, num_correct, num_judged, num_supervised, num_tokens, *details = total.tolist()
        return Totals(loss_sum, num_correct, num_judged, num_supervised, num_tokens, details)

    def _add_up_gradients(self) -> None:
        """The gradients of all processes' shares; of none where a process had nothing to do."""
        if not (self._is_shared and self._adds_up):
            return
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in self.parameters
        ]
        flat = self.accelerator.reduce(torch.cat([one.flatten() for one in gradients]), reduction="sum")
        sizes = [parameter.numel() for parameter in self.parameters]
        for parameter, part in zip(self.parameters, flat.split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)
