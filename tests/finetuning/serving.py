"""Base models whose greedy answers vary; these answers, by the engine and, as the reference, by plain PEFT."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from tests.tiny_models import EOS, make_model
from worker.inference.engine import BatchEngine
from worker.inference.runner import Runner
from worker.inference.sequence import AdapterFiles, SamplingParameters, Sequence

NUM_TOKENS = 6
WIDER = {  # rows of 4-bit layers are multiples of 64 weights, as in real models
    "gpt2": {"n_embd": 64},
    "llama": {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16},
    "t5": {"d_model": 64, "d_kv": 32, "d_ff": 128},
}


def make_base(architecture: str) -> PreTrainedModel:
    """64 wide, with weights so far from zero that answers vary."""
    narrow = make_model(architecture)
    model = type(narrow)(type(narrow.config)(**{**narrow.config.to_dict(), **WIDER[architecture]}))
    torch.manual_seed(7)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def served_answer(base: PreTrainedModel, folder: Path | None, prompt: list[int]) -> list[int]:
    """What the engine says with the adapter in `folder`, or without one."""
    engine = BatchEngine.over(Runner(base, num_slots=4, max_loaded_adapters=4))
    adapter = None if folder is None else AdapterFiles("version", folder)
    sequence = Sequence("id", prompt, SamplingParameters(max_new_tokens=NUM_TOKENS), frozenset([EOS]), adapter)
    engine.submit(sequence)
    while engine.has_work:
        for output in engine.step():
            if output.error is not None:
                raise output.error
    return sequence.tokens


def peft_answer(model: PeftModel, prompt: list[int]) -> list[int]:
    """What transformers' `generate` says with PEFT's layers."""
    ids = torch.tensor([prompt])
    tokens = (
        model.eval()
        .generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NUM_TOKENS,
            do_sample=False,
            pad_token_id=EOS,
            eos_token_id=EOS,
        )[0]
        .tolist()
    )
    answer: list[int] = tokens[1:] if model.config.is_encoder_decoder else tokens[len(prompt) :]
    return answer
