"""Tiny models of real architectures with random weights, their tokenizers, and adapters that change what they say."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from shared.database import Database
from shared.models import AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.storage import Storage
from tests import tiny_models
from tests.tiny_models import VOCABULARY
from worker.adapter_files import MANIFEST, Manifest, list_files

CONTEXT = 96


def make_sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """LLaMA's way of decoding: `▁` is a space (the first word's is dropped); unknown characters are byte tokens."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"abcdefgh.",
        "▁ab",
        "▁de",
        "gh",
    ]
    tokenizer = Tokenizer(
        models.BPE(vocab={one: i for i, one in enumerate(pieces)}, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def make_model(architecture: str) -> PreTrainedModel:
    """A tiny model with weights so far from zero that its answers vary."""
    model = tiny_models.make_model(architecture, context=CONTEXT)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def make_tokenizer() -> PreTrainedTokenizerFast:
    return tiny_models.make_tokenizer(CONTEXT)


def save_model(architecture: str, folder: Path) -> Path:
    """A base model's folder, as a local path names it."""
    make_model(architecture).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def save_adapter(architecture: str, folder: Path, seed: int) -> Path:
    """PEFT's files of a LoRA whose weights are not zero."""
    model = make_model(architecture)
    torch.manual_seed(seed)
    targets = {"gpt2": ["c_attn", "c_fc"], "llama": ["q_proj", "up_proj"], "t5": ["q", "wi"]}[architecture]
    config = LoraConfig(
        r=2 + seed % 3,
        lora_alpha=16,
        target_modules=targets,
        fan_in_fan_out=architecture == "gpt2",
        init_lora_weights=False,
    )
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


def publish(
    database: Database, storage: Storage, base_model: Path, name: str, seed: int, *, architecture: str = "gpt2"
) -> str:
    """Publishes a version as the training worker does, and makes it live; gives its id."""
    version_id = f"version-{name}-{seed}"
    folder = save_adapter(architecture, storage.version(version_id), seed)
    make_tokenizer().save_pretrained(folder)
    style = "text2text" if architecture == "t5" else "text"
    manifest = Manifest(
        files=list_files(folder), base_model=str(base_model), base_revision=None, prompt_format=style,
        dataset_fingerprint="0" * 64, config={}, metrics={}, job_id=None, created_at=0.0, schema=1,
    )  # fmt: skip
    (folder / MANIFEST).write_text(manifest.to_json())
    row = AdapterVersion(id=version_id, base_model=str(base_model), metrics={}, config={}, size_bytes=1)
    with database.write() as session:
        AdapterRepository(session).publish("default", name, row)
    return version_id


def flip_a_byte(path: Path) -> None:
    """Damages a file without changing its size."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(bytes(content))


def add_nan(folder: Path) -> None:
    """Weights that load and make every output NaN."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in weights.items()}, folder / "adapter_model.safetensors")


def add_overflow(folder: Path) -> None:
    """Weights that are finite and make every output overflow."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: tensor * 1e30 for name, tensor in weights.items()}, folder / "adapter_model.safetensors")


def set_rank(folder: Path, rank: int) -> None:
    """A configuration that does not fit its weights."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": rank}))


def random_prompts(number: int, seed: int = 0) -> list[list[int]]:
    """Prompts of 1 to 20 tokens."""
    source = random.Random(seed)
    return [[source.randrange(1, VOCABULARY) for _ in range(source.randrange(1, 20))] for _ in range(number)]
