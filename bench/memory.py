"""Memory of a training, ours and plain PEFT's: at the default configuration, and how it grows with what is trained."""

from __future__ import annotations

import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.bare_pydantic import ensure_pydantic
from bench.children import (
    GB,
    ChildFailed,
    forget_peak,
    in_child,
    limit_memory,
    peak_resident_bytes,
    resident_bytes,
)
from bench.models import SHAPES, Setting, add_plain_lora, load_base, prepare_process, save_base
from bench.paragraphs import FIRST_WORD, Paragraph
from bench.tables import publish
from bench.trainers import our_config

if TYPE_CHECKING:
    from shared.training_config import FineTuningConfig

PARTS = ("defaults", "growth")
BUDGET_BYTES = 6 * GB
PLAIN_BATCHES = (1, 2, 4)
GROWTH_SHAPES = ("gpt2-8x512", "gpt2-8x512-50k")
BATCHES, LENGTHS = (1, 4, 16), (128, 512)


@dataclass(frozen=True)
class Footprint:
    """What a training took. `before_bytes`: the model loaded, before the first step; `training_peak_bytes`: the most
    from there on; `loading_peak_bytes`: the most until then. Of the device where it is a GPU, else of the process."""

    loading_peak_bytes: int
    before_bytes: int
    training_peak_bytes: int
    tokens_per_second: float
    num_threads: int
    accelerator: str | None

    @property
    def peak_bytes(self) -> int:
        return max(self.loading_peak_bytes, self.training_peak_bytes)

    @property
    def growth_bytes(self) -> int:
        return self.training_peak_bytes - self.before_bytes


@dataclass(frozen=True)
class Load:
    """A micro-batch: so many examples of so many tokens; and the steps or micro-batches that are taken."""

    batch_size: int
    length: int
    num_timed: int = 0  # after one that is not timed; 0: that one is


def main(options: Sequence[str] = ()) -> None:
    """Prints a table for the default configuration, and one of the growth."""
    chosen = _parsed(options)
    setting = Setting(
        device=chosen.device, dtype=chosen.dtype, quantization=chosen.quantization, num_threads=chosen.threads
    )
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as folder:
        if "defaults" in chosen.parts:
            _defaults(replace(setting, shape=chosen.shape), chosen, Path(folder))
        if "growth" in chosen.parts:
            _growth(setting, chosen, Path(folder))


# --- the default configuration ------------------------------------------------------------------------------------


def _defaults(setting: Setting, chosen: Namespace, folder: Path) -> None:
    base = _saved(setting, folder)
    length = min(setting.max_length, SHAPES[setting.shape].max_position_embeddings)
    ours = _told("finetuned, default configuration", our_footprint, setting, base, Load(0, length, chosen.steps))
    plain = {
        size: _told(
            f"plain PEFT, {size} × {length}",
            plain_footprint,
            setting,
            base,
            Load(size, length, max(chosen.plain_tokens // (size * length), 1)),
        )
        for size in chosen.plain_batches
    }
    fitting = [size for size, one in plain.items() if isinstance(one, Footprint) and one.peak_bytes <= BUDGET_BYTES]
    largest = f"the largest that fits is {max(fitting)} × {length}" if fitting else "none fits"
    labels = {"finetuned, FineTuningConfig()": ours} | {
        f"plain PEFT, micro-batch {size} × {length}": one for size, one in plain.items()
    }
    publish(
        _name("memory", setting),
        f"Memory at the default configuration ({setting.shape}, {setting.dtype}, {setting.device})",
        ["training", "peak GB", "before the first step", "tokens/s", f"within {BUDGET_BYTES / GB:g} GB"],
        [[label, *_cells(one)] for label, one in labels.items()],
        {"setting": asdict(setting), "options": vars(chosen), "footprints": _plain_figures(labels)},
        notes=[
            f"Every example has {length} tokens. Ours: the default batch 4 × accumulation 4, one step untimed and "
            f"{chosen.steps} timed; how a step's examples are computed is the loop's own choice.",
            "Plain PEFT: `get_peft_model`, then `model(**batch, labels=…).loss.backward()`, a micro-batch untimed and "
            f"{chosen.plain_tokens:,} tokens timed; of its micro-batches {largest}.",
        ],
        accelerator=_accelerator(labels.values()),
        is_kept=not chosen.quick,
    )


# --- growth -------------------------------------------------------------------------------------------------------


def _growth(setting: Setting, chosen: Namespace, folder: Path) -> None:
    rows, raw = [], []
    for shape in chosen.growth_shapes:
        shaped = replace(setting, shape=shape)
        base = _saved(shaped, folder)
        for length, size in product(chosen.lengths, chosen.batches):
            where = f"{shape}, {size} × {length}"
            ours = _told(f"finetuned, {where}", our_footprint, shaped, base, Load(size, length))
            plain = _told(f"plain PEFT, {where}", plain_footprint, shaped, base, Load(size, length))
            rows.append([f"{SHAPES[shape].vocab_size:,}", f"{length}", f"{size}", *_grown(ours), *_grown(plain)])
            raw.append(
                {"shape": shape, "length": length, "batch": size, **_plain_figures({"ours": ours, "plain": plain})}
            )
    publish(
        _name("memory-growth", setting),
        f"How memory grows (GPT-2 shape, 8 layers, 512 wide, {setting.dtype}, {setting.device})",
        ["vocabulary", "length", "micro-batch", "finetuned: peak GB", "growth GB", "plain PEFT: peak GB", "growth GB"],
        rows,
        {"setting": asdict(setting), "options": vars(chosen), "rows": raw},
        notes=[
            "One step of one micro-batch, each in a process of its own. Growth: peak less what the process held "
            "with its model loaded, before the step. Ours takes a micro-batch in as many passes as its loop chooses."
        ],
        is_kept=not chosen.quick,
    )


# --- measuring, each in a process of its own ----------------------------------------------------------------------


def our_footprint(setting: Setting, base: Path, load: Load) -> Footprint:
    """The product's loop: `FineTuningConfig()` as it is where the load names no batch, else one step of that batch."""
    from worker.base_models.formats import Example
    from worker.finetuning.loop import train
    from worker.finetuning.lora import add_lora
    from worker.finetuning.reports import Metrics, StepMetrics, TrainingStarted

    prepare_process(setting)
    config = (
        our_config(setting, 1, batch_size=load.batch_size, gradient_accumulation_steps=1, max_length=load.length)
        if load.batch_size
        else _default_config()
    )
    step_size = config.batch_size * config.gradient_accumulation_steps
    model = add_lora(load_base(setting, base), config)
    before, loading = _held(setting), _peak(setting)
    _forget(setting)
    rows = _rows(setting, step_size * (1 + load.num_timed), load.length)
    times: list[float] = []

    def report(metrics: Metrics) -> None:
        if isinstance(metrics, TrainingStarted | StepMetrics):
            times.append(_now(setting))

    def is_enough() -> bool:
        return len(times) > 1 + load.num_timed

    train(model, [Example(row, row) for row in rows], [], config, report=report, should_stop=is_enough)
    first = min(1, load.num_timed)
    tokens = (len(times) - 1 - first) * step_size * load.length
    return _footprint(setting, before, loading, tokens / (times[-1] - times[first]))


def plain_footprint(setting: Setting, base: Path, load: Load) -> Footprint:
    """A bare loop over plain PEFT: one optimiser step over all its micro-batches."""
    prepare_process(setting)
    model = add_plain_lora(load_base(setting, base), setting).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=setting.learning_rate)
    before, loading = _held(setting), _peak(setting)
    _forget(setting)
    count = 1 + load.num_timed
    times = [_now(setting)]
    for _ in range(count):
        tokens = torch.tensor(_rows(setting, load.batch_size, load.length), device=setting.device)
        loss = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens).loss
        (loss / count).backward()
        del loss
        times.append(_now(setting))
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    first = min(1, load.num_timed)
    num_tokens = (count - first) * load.batch_size * load.length
    return _footprint(setting, before, loading, num_tokens / (times[-1] - times[first]))


def _limited(function: Callable[..., Footprint], setting: Setting, base: Path, load: Load) -> Footprint:
    if setting.device == "cpu":  # CUDA reserves far more addresses than it uses
        limit_memory()
    return function(setting, base, load)


def _default_config() -> FineTuningConfig:
    ensure_pydantic()
    from shared.training_config import FineTuningConfig

    return FineTuningConfig()


def _rows(setting: Setting, count: int, length: int) -> list[Paragraph]:
    generator = torch.Generator().manual_seed(setting.seed)
    vocabulary = SHAPES[setting.shape].vocab_size
    drawn: list[Paragraph] = torch.randint(FIRST_WORD, vocabulary, (count, length), generator=generator).tolist()
    return drawn


def _footprint(setting: Setting, before: int, loading: int, tokens_per_second: float) -> Footprint:
    return Footprint(
        loading_peak_bytes=loading,
        before_bytes=before,
        training_peak_bytes=_peak(setting),
        tokens_per_second=tokens_per_second,
        num_threads=torch.get_num_threads(),
        accelerator=torch.cuda.get_device_name() if setting.device == "cuda" else None,
    )


def _now(setting: Setting) -> float:
    if setting.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _held(setting: Setting) -> int:
    return torch.cuda.memory_allocated() if setting.device == "cuda" else resident_bytes()


def _peak(setting: Setting) -> int:
    return torch.cuda.max_memory_allocated() if setting.device == "cuda" else peak_resident_bytes()


def _forget(setting: Setting) -> None:
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    forget_peak()


# --- showing ------------------------------------------------------------------------------------------------------


def _told(label: str, function: Callable[..., Footprint], *arguments: Any) -> Footprint | str:
    """The footprint, or why there is none."""
    print(label, file=sys.stderr, flush=True)
    try:
        return in_child(_limited, function, *arguments)
    except ChildFailed as error:
        why = str(error)
        is_memory = any(sign in why for sign in ("OutOfMemory", "MemoryError", "DefaultCPUAllocator", "exit code -9"))
        return "not enough memory" if is_memory else why.splitlines()[-1]


def _cells(found: Footprint | str) -> list[str]:
    if isinstance(found, str):
        return [found, "–", "–", "no"]
    is_within = found.peak_bytes <= BUDGET_BYTES
    rate = f"{found.tokens_per_second:,.1f}"
    return [f"{found.peak_bytes / GB:.2f}", f"{found.before_bytes / GB:.2f}", rate, "yes" if is_within else "no"]


def _grown(found: Footprint | str) -> list[str]:
    return (
        [found, "–"] if isinstance(found, str) else [f"{found.peak_bytes / GB:.2f}", f"{found.growth_bytes / GB:.2f}"]
    )


def _plain_figures(found: dict[str, Footprint | str]) -> dict[str, Any]:
    return {label: one if isinstance(one, str) else asdict(one) for label, one in found.items()}


def _accelerator(found: Any) -> str | None:
    return next((one.accelerator for one in found if isinstance(one, Footprint)), None)


def _saved(setting: Setting, folder: Path) -> Path:
    base = folder / setting.shape
    in_child(save_base, setting, base)
    return base


def _name(start: str, setting: Setting) -> str:
    standard = Setting()
    names = ("device", "dtype", "quantization")
    return "-".join(
        [start, *(getattr(setting, one) for one in names if getattr(setting, one) != getattr(standard, one))]
    )


def _parsed(options: Sequence[str]) -> Namespace:
    parser = ArgumentParser(prog="python -m bench memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny models, nothing kept: does it run?")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--shape", choices=SHAPES, default="dialogpt-medium", help="of the default configuration")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--quantization", choices=("none", "4bit"), default="none")
    parser.add_argument("--threads", type=int, help="default: torch's own choice")
    parser.add_argument("--steps", type=int, default=1, help="timed steps at the default configuration")
    parser.add_argument("--plain-tokens", type=int, default=2048, help="timed tokens of plain PEFT")
    parser.add_argument("--plain-batches", type=int, nargs="*", default=list(PLAIN_BATCHES), help="plain PEFT's")
    parser.set_defaults(growth_shapes=list(GROWTH_SHAPES), lengths=list(LENGTHS), batches=list(BATCHES))
    if parser.parse_known_args(options)[0].quick:
        parser.set_defaults(shape="tiny", growth_shapes=["tiny"], lengths=[64], batches=[4], plain_tokens=512)
    return parser.parse_args(options)
