"""Train the demo base model and its tokenizer: `python -m worker.base_models.demo.build`."""

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from worker.base_models.demo.corpus import documents

HERE = Path(__file__).resolve().parent
EOS = "<|endoftext|>"


@dataclass(frozen=True)
class Settings:
    """Everything that decides what the build produces."""

    seed: int = 20240501
    vocabulary: int = 3072
    positions: int = 512
    width: int = 192
    layers: int = 4
    heads: int = 6
    steps: int = 1000
    row: int = 256
    long_row_every: int = 8
    batch_tokens: int = 1024
    learning_rate: float = 3e-3
    warmup: int = 60
    threads: int = 1


def train_tokenizer(settings: Settings) -> GPT2Tokenizer:
    """Train a byte-level BPE tokenizer whose only special token ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents(settings.seed, 20_000), trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    merges: Any = [tuple(merge) for merge in trained["merges"]]
    return GPT2Tokenizer(vocab=trained["vocab"], merges=merges, model_max_length=settings.positions)


def new_model(settings: Settings) -> GPT2LMHeadModel:
    """Return the untrained model."""
    torch.manual_seed(settings.seed)
    config = GPT2Config(
        vocab_size=settings.vocabulary,
        n_positions=settings.positions,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def encoded(tokenizer: GPT2Tokenizer, seed: int) -> Iterator[list[int]]:
    """Yield documents without end, as token ids that close with the end-of-text token."""
    for number in range(1_000_000):
        texts = list(documents(seed + number, 256))
        for ids in tokenizer(texts)["input_ids"]:
            yield [*ids, 0]


def batch(source: Iterator[list[int]], rows: int, length: int) -> torch.Tensor:
    """Pack documents into rows that each start with the beginning of a document."""
    packed = []
    for _ in range(rows):
        row: list[int] = []
        while len(row) < length:
            row += next(source)
        packed.append(row[:length])
    return torch.tensor(packed)


def learning_rate(step: int, settings: Settings) -> float:
    """Warm up linearly, then follow a cosine down to a twentieth of the peak."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / (settings.steps - settings.warmup)
    return settings.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def held_out_loss(model: GPT2LMHeadModel, tokenizer: GPT2Tokenizer) -> float:
    """Return the loss on documents from a seed that training never uses."""
    source = encoded(tokenizer, seed=7)
    losses = [model(input_ids=ids, labels=ids).loss.item() for ids in (batch(source, 8, 256) for _ in range(8))]
    return float(sum(losses) / len(losses))


def train(model: GPT2LMHeadModel, tokenizer: GPT2Tokenizer, settings: Settings) -> float:
    """Run the training loop and return the mean loss of its last fifty steps."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    source = encoded(tokenizer, settings.seed)
    recent: list[float] = []
    for step in range(settings.steps):
        length = settings.positions if step % settings.long_row_every == 0 else settings.row
        ids = batch(source, settings.batch_tokens // length, length)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent = [*recent[-49:], loss.item()]
        if step % 50 == 49:
            print(f"step {step + 1} of {settings.steps}  loss {sum(recent) / len(recent):.4f}", flush=True)
    return sum(recent) / len(recent)


def main() -> None:
    """Build the tokenizer and the model, and write them beside this file."""
    settings = Settings()
    started = time.perf_counter()
    torch.set_num_threads(settings.threads)
    tokenizer = train_tokenizer(settings)
    model = new_model(settings)
    final = train(model, tokenizer, settings)
    held_out = held_out_loss(model, tokenizer)
    seconds = time.perf_counter() - started
    target = HERE / "model"
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    report = {
        **asdict(settings),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "tokens_seen": settings.steps * settings.batch_tokens,
        "final_loss": round(final, 4),
        "held_out_loss": round(held_out, 4),
        "seconds": round(seconds, 1),
        "cores": os.cpu_count(),
    }
    (HERE / "build.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
