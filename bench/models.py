"""The models that are trained: shapes with random weights, saved once so that every contender loads the same ones."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    logging,
)
from transformers.pytorch_utils import Conv1D

from bench.paragraphs import END

PADDING = 0
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SPECIAL: dict[str, Any] = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": PADDING}


@dataclass(frozen=True)
class Setting:
    """What all contenders share."""

    shape: str = "gpt2-8x512"
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["fp32", "bf16"] = "fp32"
    quantization: Literal["none", "4bit"] = "none"
    attention: str | None = None  # transformers' attn_implementation; None: its own choice
    num_threads: int | None = None  # None: torch's own choice
    batch_size: int = 4
    gradient_accumulation_steps: int = 4
    max_length: int = 512
    learning_rate: float = 2e-4
    warmup_ratio: float = 0.05
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    seed: int = 0

    @property
    def step_size(self) -> int:
        return self.batch_size * self.gradient_accumulation_steps


SHAPES: dict[str, PreTrainedConfig] = {
    "tiny": GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=2, **_SPECIAL),
    "tiny-llama": LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, **_SPECIAL
    ),
    "gpt2-124m": GPT2Config(vocab_size=50257, n_embd=768, n_layer=12, n_head=12, **_SPECIAL),
    "llama-134m": LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        **_SPECIAL,
    ),
    "gpt2-8x512": GPT2Config(vocab_size=8192, n_embd=512, n_layer=8, n_head=8, **_SPECIAL),
    "gpt2-8x512-50k": GPT2Config(vocab_size=50257, n_embd=512, n_layer=8, n_head=8, **_SPECIAL),
    "dialogpt-medium": GPT2Config(vocab_size=50257, n_embd=1024, n_layer=24, n_head=16, **_SPECIAL),
    "llama-7b": LlamaConfig(vocab_size=32000, max_position_embeddings=4096, **_SPECIAL),
}


def prepare_process(setting: Setting) -> None:
    """Threads, and silence: what libraries say of themselves is not what is measured."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["ACCELERATE_USE_CPU"] = str(setting.device == "cpu").lower()  # accelerate takes a GPU where it sees one
    if setting.num_threads is not None:
        torch.set_num_threads(setting.num_threads)
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def save_base(setting: Setting, folder: Path) -> None:
    """Writes the shape with random weights, as a local path names a base model."""
    prepare_process(setting)
    torch.manual_seed(setting.seed)
    with torch.device(setting.device):
        model = AutoModelForCausalLM.from_config(SHAPES[setting.shape], dtype=DTYPES[setting.dtype])
    model.save_pretrained(folder)


def load_base(setting: Setting, folder: Path) -> PreTrainedModel:
    """The base model, on the setting's device."""
    options: dict[str, Any] = {}
    if setting.quantization == "4bit":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[setting.dtype],
        )
        options["device_map"] = {"": 0 if setting.device == "cuda" else "cpu"}
    if setting.attention is not None:
        options["attn_implementation"] = setting.attention
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=DTYPES[setting.dtype], local_files_only=True, **options
    )
    return model if setting.quantization != "none" else model.to(setting.device)


def add_plain_lora(model: PreTrainedModel, setting: Setting) -> PeftModel:
    """LoRA on every linear layer but the head, put in as PEFT's own guides say; the weights that ours begins with."""
    if setting.quantization != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(
        r=setting.lora_rank,
        lora_alpha=setting.lora_alpha,
        lora_dropout=setting.lora_dropout,
        target_modules=sorted({path.rpartition(".")[2] for path, _ in frozen_layers(model)}),
        task_type=TaskType.CAUSAL_LM,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    torch.manual_seed(setting.seed)
    adapted: PeftModel = get_peft_model(model, lora)
    return adapted


def frozen_layers(model: PreTrainedModel) -> list[tuple[str, torch.nn.Module]]:
    """Paths and modules of the linear layers that LoRA adapts: all but the output head."""
    head = model.get_output_embeddings()
    return [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    ]
