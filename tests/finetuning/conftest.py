"""Tiny models of real architectures, with random weights and their own tokenizers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from shared.training_config import FineTuningConfig
from worker.base_models.formats import MASKED, Example

EOS = "<|endoftext|>"
VOCABULARY = 257  # the end token, and one token a byte
ARCHITECTURES = ("gpt2", "llama", "t5")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes; pad = eos, as in GPT-2."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {EOS: 0, **{symbol: index + 1 for index, symbol in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=EOS, eos_token=EOS, pad_token=EOS, model_max_length=128
    )


def make_model(architecture: str, *, dropout: float = 0.1) -> PreTrainedModel:
    """Two layers, 32 wide; the same weights at every call."""
    torch.manual_seed(7)
    if architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY, n_positions=128, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
                resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
            )
        )  # fmt: skip
    if architecture == "llama":
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=0, pad_token_id=0,
            )
        )  # fmt: skip
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, dropout_rate=dropout,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0, pad_token_id=0,
            eos_token_id=0,
        )
    )  # fmt: skip


def make_examples(number: int, *, seed: int = 0, shortest: int = 3, longest: int = 24) -> list[Example]:
    """Random rows of different lengths; the first third of each is context. Every row ends with the end token."""
    source = random.Random(seed)
    examples = []
    for _ in range(number):
        tokens = [source.randrange(1, 40) for _ in range(source.randrange(shortest, longest))] + [0]
        masked = max(1, len(tokens) // 3)
        examples.append(Example(tokens, [MASKED] * masked + tokens[masked:]))
    return examples


def make_pairs(number: int, *, seed: int = 0) -> list[Example]:
    """Encoder inputs with decoder targets."""
    sources, targets = make_examples(number, seed=seed), make_examples(number, seed=seed + 1)
    return [Example(source.input_ids, target.input_ids) for source, target in zip(sources, targets, strict=True)]


def examples_for(architecture: str, number: int, *, seed: int = 0) -> list[Example]:
    return make_pairs(number, seed=seed) if architecture == "t5" else make_examples(number, seed=seed)


@pytest.fixture
def quick_config() -> FineTuningConfig:
    """Two epochs in a moment, dropout on."""
    return FineTuningConfig(
        model_name="tiny", learning_rate=5e-3, num_epochs=2, batch_size=2, gradient_accumulation_steps=2, lora_rank=4,
        lora_alpha=8,
    )  # fmt: skip


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """A tiny GPT-2 with its tokenizer on disk, as `from_pretrained` wants it."""
    folder = tmp_path / "tiny-gpt2"
    make_model("gpt2").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
