"""Tiny models of real architectures, two layers each, with random weights and a tokenizer of bytes."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
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

ARCHITECTURES = ("gpt2", "llama", "t5")
EOS_TOKEN = "<|endoftext|>"
EOS = 0
VOCABULARY = 257  # the end token, and one token a byte


def make_tokenizer(context: int = 128) -> PreTrainedTokenizerFast:
    """One token a byte, so that most characters beyond ASCII span tokens; no pad token, as GPT-2."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {EOS_TOKEN: EOS, **{symbol: index + 1 for index, symbol in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=EOS_TOKEN, eos_token=EOS_TOKEN, model_max_length=context
    )


def make_model(architecture: str, *, dropout: float = 0.1, context: int = 128) -> PreTrainedModel:
    """32 wide; the same weights at every call."""
    torch.manual_seed(7)
    if architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY, n_positions=context, n_embd=32, n_layer=2, n_head=2, bos_token_id=EOS,
                eos_token_id=EOS, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
            )
        )  # fmt: skip
    if architecture == "llama":
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context, bos_token_id=EOS,
                eos_token_id=EOS, pad_token_id=EOS,
            )
        )  # fmt: skip
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, dropout_rate=dropout,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=EOS, pad_token_id=EOS,
            eos_token_id=EOS, n_positions=context,
        )
    )  # fmt: skip


def save_model(architecture: str, folder: Path, *, context: int = 256) -> Path:
    """A base model's folder, as a local path names it."""
    make_model(architecture, context=context).save_pretrained(folder)
    make_tokenizer(context).save_pretrained(folder)
    return folder
