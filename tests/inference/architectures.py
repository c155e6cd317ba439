"""Tiny models of many architectures with random weights, and adapters for each, made and saved by PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from tests.tiny_models import EOS, VOCABULARY

CONTEXT = 96
_TOKENS: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": EOS}
_WIDTHS: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}  # fmt: skip
_GROUPED: dict[str, Any] = {**_WIDTHS, "num_key_value_heads": 2}
_SEQ2SEQ: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 64, "max_position_embeddings": CONTEXT,
    "decoder_start_token_id": EOS, "forced_eos_token_id": None,
}  # fmt: skip
_T5: dict[str, Any] = {
    "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "n_positions": CONTEXT,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": EOS,
}  # fmt: skip

MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=2, **_TOKENS)),
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**_GROUPED, **_TOKENS)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**_GROUPED, **_TOKENS, head_dim=8)),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**_GROUPED, **_TOKENS, sliding_window=5)),
    "gemma2": lambda: tf.Gemma2ForCausalLM(
        tf.Gemma2Config(
            **_GROUPED, **_TOKENS, head_dim=8, sliding_window=5, attn_logit_softcapping=5.0, query_pre_attn_scalar=8
        )
    ),
    "gemma3": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**_GROUPED, **_TOKENS, head_dim=8, sliding_window=5)),
    "opt": lambda: tf.OPTForCausalLM(
        tf.OPTConfig(
            hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=CONTEXT,
            word_embed_proj_dim=32, **_TOKENS,
        )
    ),
    "gpt-neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**_WIDTHS, **_TOKENS)),
    "phi": lambda: tf.PhiForCausalLM(tf.PhiConfig(**_WIDTHS, **_TOKENS)),
    "t5": lambda: tf.T5ForConditionalGeneration(tf.T5Config(**_T5, **_TOKENS)),
    "bart": lambda: tf.BartForConditionalGeneration(tf.BartConfig(**_SEQ2SEQ, **_TOKENS)),
    # These cannot read slots: an attention of their own (ALiBi), and no attention at all.
    "bloom": lambda: tf.BloomForCausalLM(tf.BloomConfig(hidden_size=32, n_layer=2, n_head=4, **_TOKENS)),
    "mamba": lambda: tf.MambaForCausalLM(tf.MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, **_TOKENS)),
}  # fmt: skip
ONE_AT_A_TIME = ("bloom", "mamba")


def make(architecture: str) -> PreTrainedModel:
    """The same weights at every call, so far from zero that answers vary."""
    torch.manual_seed(7)
    model = MODELS[architecture]()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def save_adapter(architecture: str, folder: Path, seed: int) -> Path:
    """PEFT's files of a LoRA on all linear layers, of another rank for each seed."""
    torch.manual_seed(seed)
    targets = ["in_proj", "x_proj"] if architecture == "mamba" else "all-linear"
    config = LoraConfig(r=2 + seed, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    adapted = get_peft_model(make(architecture), config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(folder)
    return folder
