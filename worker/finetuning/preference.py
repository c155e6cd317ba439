"""Direct preference optimization (DPO): learns which of two answers is preferred, with no reward model beside it.

Rafailov et al., 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model"
(arXiv:2305.18290), equation 7. The reference is the base model: the same model with its adapter off.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from worker.base_models.formats import Example, PreferencePair, sequences
from worker.finetuning.batches import Batch, num_targets
from worker.finetuning.objectives import MakeBatch, Scored
from worker.finetuning.scoring import Scorer

# TRL's names. A reward is beta times what an answer's log-probability has gained on the reference's; a pair is
# accurate if its preferred answer has gained more.
DETAILS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")


class Preferences:
    """The mean over pairs of -log sigmoid(reward of the preferred answer - reward of the other).

    Dropout is off, as TRL has it by default: the rewards compare two models, and noise in one of them alone would pass
    for a difference.
    """

    unit = "preference pairs"
    details: Sequence[str] = DETAILS
    has_noise = False

    def __init__(
        self, model: PeftModel, scorer: Scorer, make_batch: MakeBatch, *, is_encoder_decoder: bool, beta: float
    ) -> None:
        self._model = model
        self._scorer = scorer
        self._make_batch = make_batch
        self._is_encoder_decoder = is_encoder_decoder
        self._beta = beta
        # By id, beside the pair itself so that no other pair can get its id.
        self._references: dict[int, tuple[PreferencePair, list[float]]] = {}

    def weight(self, item: PreferencePair) -> int:
        """1; 0 if a side has nothing to learn, or both are the same."""
        return int(item.chosen.labels != item.rejected.labels and all(map(self._num_targets, sequences(item))))

    def score(self, items: Sequence[PreferencePair]) -> Scored:
        self._look_up([pair for pair in items if id(pair) not in self._references])
        references = [self._references[id(pair)][1] for pair in items]
        batch = self._make_batch([*(pair.chosen for pair in items), *(pair.rejected for pair in items)])
        log_probs, is_likeliest = self._scorer.log_probs(batch)
        sums = sums_by_owner(log_probs, batch)
        chosen, rejected = (self._beta * (sums - sums.new_tensor(references).t().flatten())).chunk(2)
        return Scored(
            loss_sum=-nn.functional.logsigmoid(chosen - rejected).sum(),
            num_correct=(is_likeliest & (batch.owners < len(items))).sum(),
            num_judged=sum(self._num_targets(pair.chosen) for pair in items),
            num_supervised=len(batch.targets),
            num_tokens=batch.num_tokens,
            details=_details(chosen.detach(), rejected.detach()),
        )

    @torch.no_grad()
    def _look_up(self, pairs: Sequence[PreferencePair]) -> None:
        """The reference's log-probabilities of both answers, kept for all epochs: one pass over the pairs in all.

        Each pair goes through the model alone, so that the last bits depend on nothing but itself: not on the pairs
        beside it, and so not on where a run was interrupted. That is why no checkpoint has to hold them.
        """
        if not pairs:
            return
        with self._model.disable_adapter():
            for pair in pairs:
                batch = self._make_batch(sequences(pair))
                log_probs, _ = self._scorer.log_probs(batch)
                self._references[id(pair)] = pair, sums_by_owner(log_probs, batch).tolist()

    def _num_targets(self, example: Example) -> int:
        return num_targets(example, is_encoder_decoder=self._is_encoder_decoder)


def sums_by_owner(values: Tensor, batch: Batch) -> Tensor:
    """(examples) sums of `values` (targets), added up in the same order each time, on a GPU too."""
    numbers = torch.arange(batch.num_examples, device=values.device)
    return torch.where(batch.owners == numbers[:, None], values, 0.0).sum(1)


def _details(chosen: Tensor, rejected: Tensor) -> Tensor:
    margins = chosen - rejected
    return torch.stack([chosen, rejected, margins, (margins > 0).to(margins.dtype)]).sum(1)


def silence(model: nn.Module) -> None:
    """Dropout off, and what else depends on the training mode, but for gradient checkpointing."""
    model.eval()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
            module.training = True  # transformers checkpoints in no other mode
            for name in {"dropout", "activation_dropout"} & vars(module).keys():  # the layer's own, in BART's kin
                setattr(module, name, 0.0)
