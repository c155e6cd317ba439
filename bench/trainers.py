"""Who trains: ours, and each mode of `transformers` Trainer and TRL's SFTTrainer, all on the same LoRA model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorWithFlattening,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import get_length_grouped_indices

from bench.bare_pydantic import ensure_pydantic
from bench.children import forget_peak, peak_resident_bytes, resident_bytes
from bench.models import PADDING, Setting, add_plain_lora, load_base, prepare_process
from bench.paragraphs import END, Paragraph, num_tokens, spread_sample

if TYPE_CHECKING:
    from shared.training_config import FineTuningConfig

MOST_EPOCHS = 1000


@dataclass
class Stopwatch:
    """Times whole epochs; `is_over` once they took `enough_seconds`."""

    device: str
    enough_seconds: float
    num_epochs: int = 0
    seconds: float = 0.0
    started_at: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.num_epochs > 0 and self.seconds >= self.enough_seconds

    def start(self) -> None:
        self.started_at = self._now()

    def lap(self) -> None:
        self.seconds = self._now() - self.started_at
        self.num_epochs += 1

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@dataclass(frozen=True)
class Course:
    """What is trained on: `rows`, for `num_epochs` or until the watch is over. `is_in_order`: the rows were put in the
    order in which the contender's sampler would take them from a larger set."""

    rows: Sequence[Paragraph]
    num_epochs: int
    watch: Stopwatch
    is_in_order: bool = False


Train = Callable[[PeftModel, Course, Setting], None]


@dataclass(frozen=True)
class Contender:
    """A trainer in one of its modes. `note` says what the mode is, where its label does not."""

    label: str
    train: Train
    note: str = ""
    packages: tuple[str, ...] = ()
    groups_by_length: bool = False

    @property
    def missing(self) -> list[str]:
        """Packages that it needs and that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]


# --- ours ---------------------------------------------------------------------------------------------------------


def our_config(setting: Setting, num_epochs: int, **changes: Any) -> FineTuningConfig:
    """The product's configuration for this setting; what the setting does not say is left at its default."""
    ensure_pydantic()
    from shared.training_config import FineTuningConfig

    values: dict[str, Any] = {
        "model_name": "bench/model",
        "max_length": setting.max_length,
        "learning_rate": setting.learning_rate,
        "num_epochs": num_epochs,
        "batch_size": setting.batch_size,
        "gradient_accumulation_steps": setting.gradient_accumulation_steps,
        "lora_rank": setting.lora_rank,
        "lora_alpha": setting.lora_alpha,
        "lora_dropout": setting.lora_dropout,
        "warmup_ratio": setting.warmup_ratio,
        "quantization": setting.quantization,
        "seed": setting.seed,
    }
    return FineTuningConfig(**{**values, **changes})


def _our_lora(model: PreTrainedModel, setting: Setting) -> PeftModel:
    from worker.finetuning.lora import add_lora

    return add_lora(model, our_config(setting, 1))


def _ours(model: PeftModel, course: Course, setting: Setting) -> None:
    """The product's loop as it is: it chooses by itself how a step's examples are computed."""
    from worker.base_models.formats import Example
    from worker.finetuning.loop import train
    from worker.finetuning.reports import Metrics, StepMetrics, TrainingStarted

    def report(metrics: Metrics) -> None:
        if isinstance(metrics, TrainingStarted):
            course.watch.start()
        elif isinstance(metrics, StepMetrics) and metrics.is_last_of_epoch:
            course.watch.lap()

    train(
        model,
        [Example(row, row) for row in course.rows],
        [],
        our_config(setting, course.num_epochs),
        report=report,
        should_stop=lambda: course.watch.is_over,
    )


# --- peers --------------------------------------------------------------------------------------------------------


class _Laps(TrainerCallback):
    """Lets a peer's trainer work the stopwatch."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_begin(self, args: Any, state: Any, control: TrainerControl, **rest: Any) -> None:
        self.watch.start()

    def on_epoch_end(self, args: Any, state: Any, control: TrainerControl, **rest: Any) -> None:
        self.watch.lap()
        control.should_training_stop = control.should_training_stop or self.watch.is_over


def _arguments(course: Course, setting: Setting, folder: str) -> dict[str, Any]:
    """What both peers are told."""
    strategy = {"train_sampling_strategy": "sequential"} if course.is_in_order else {}
    return {
        "output_dir": folder,
        "per_device_train_batch_size": setting.batch_size,
        "gradient_accumulation_steps": setting.gradient_accumulation_steps,
        "num_train_epochs": course.num_epochs,
        "learning_rate": setting.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": setting.warmup_ratio,  # below 1 it is a share of all steps
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": setting.seed,
        "use_cpu": setting.device == "cpu",
        "bf16": setting.dtype == "bf16",
        "dataloader_pin_memory": setting.device == "cuda",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **strategy,
    }


def _run(trainer: Trainer, course: Course) -> None:
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Laps(course.watch))
    trainer.train()


def _transformers(*, collator: str = "padding", pads_to_max: bool = False, **options: Any) -> Train:
    """`transformers` Trainer. `collator`: `padding` to the longest of the micro-batch, or `flattening` into one row."""

    def train(model: PeftModel, course: Course, setting: Setting) -> None:
        length = setting.max_length if pads_to_max else 0
        rows = [_padded(row, length) for row in course.rows]
        collate = (
            DataCollatorWithFlattening()
            if collator == "flattening"
            else DataCollatorForLanguageModeling(_tokenizer(model.config.vocab_size), mlm=False)
        )
        with tempfile.TemporaryDirectory() as folder:
            told = TrainingArguments(**{**options, **_arguments(course, setting, folder)})
            _run(Trainer(model=model, args=told, train_dataset=rows, data_collator=collate), course)

    return train


def _trl(*, is_as_shipped: bool = False, batch: tuple[int, int] | None = None, **options: Any) -> Train:
    """TRL's SFTTrainer, with what it ships switched on (bf16, gradient checkpointing) switched off unless
    `is_as_shipped`. `batch`: micro-batch and accumulation, where the setting's would make much larger steps."""

    def train(model: PeftModel, course: Course, setting: Setting) -> None:
        from datasets import Dataset, disable_progress_bars
        from trl import SFTConfig, SFTTrainer

        disable_progress_bars()
        rows = Dataset.from_dict({"input_ids": list(course.rows)})
        with tempfile.TemporaryDirectory() as folder:
            told = _arguments(course, setting, folder)
            if batch is not None:
                told |= {"per_device_train_batch_size": batch[0], "gradient_accumulation_steps": batch[1]}
            if is_as_shipped:
                del told["bf16"]
            else:
                told |= {"gradient_checkpointing": False, "max_length": setting.max_length}
            trainer = SFTTrainer(
                model=model,
                args=SFTConfig(**{**told, **options}),
                train_dataset=rows,
                processing_class=_tokenizer(model.config.vocab_size),
            )
            _run(trainer, course)

    return train


def _padded(row: Paragraph, length: int) -> dict[str, list[int]]:
    missing = max(length - len(row), 0)
    return {"input_ids": row + [PADDING] * missing, "attention_mask": [1] * len(row) + [0] * missing}


def _tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Peers ask for a tokenizer, though the texts are tokens already: it names the token that pads."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = {f"t{index}": index for index in range(vocabulary)}
    names = {"pad_token": f"t{PADDING}", "eos_token": f"t{END}", "unk_token": f"t{END}"}
    tokenizer = Tokenizer(WordLevel(words, unk_token=f"t{END}"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="right", **names)


OURS = "finetuned"
_TRL = ("trl", "datasets")
CONTENDERS = {
    OURS: Contender("finetuned", _ours, "the loop's own choice"),
    "transformers-max-length": Contender("transformers, padding to max_length", _transformers(pads_to_max=True)),
    "transformers-dynamic": Contender("transformers, padding to the longest", _transformers()),
    "transformers-grouped": Contender(
        "transformers, group_by_length",
        _transformers(train_sampling_strategy="group_by_length"),
        "padding to the longest; its sampler's order of the whole set, of which blocks of 16 at even distances are "
        "timed",
        groups_by_length=True,
    ),
    "transformers-rebalanced": Contender(
        "transformers, batch_rebalance",
        _transformers(train_sampling_strategy="batch_rebalance"),
        "padding to the longest; its sampler splits a step's 16 examples into 4 micro-batches of like cost, by length",
    ),
    "transformers-flattened": Contender(
        "transformers, flattened",
        _transformers(collator="flattening"),
        "DataCollatorWithFlattening: a micro-batch is one row without padding, told apart by its position ids",
    ),
    "trl-shipped": Contender(
        "TRL, as shipped",
        _trl(is_as_shipped=True),
        "padding to the longest, bf16 by autocast and gradient checkpointing, which are SFTConfig's defaults",
        _TRL,
    ),
    "trl-dynamic": Contender("TRL, padding to the longest", _trl(), packages=_TRL),
    "trl-rebalanced": Contender(
        "TRL, batch_rebalance", _trl(train_sampling_strategy="batch_rebalance"), "as that of transformers", _TRL
    ),
    "trl-packing": Contender(
        "TRL, packing 4 × 1",
        _trl(packing=True, batch=(4, 1)),
        "rows of 512 by best-fit decreasing, a micro-batch of 4 of them flattened into one of 2,048 tokens with a "
        "block mask; accumulation 1, since 4 × 4 rows would be 76 examples a step and not 16",
        _TRL,
    ),
    "trl-packing-1x4": Contender(
        "TRL, packing 1 × 4", _trl(packing=True, batch=(1, 4)), "the same rows, one a micro-batch", _TRL
    ),
    "trl-wrapped": Contender(
        "TRL, packing wrapped",
        _trl(packing=True, packing_strategy="wrapped", batch=(1, 4)),
        "the tokens of all examples in one stream, cut every 512: examples see each other",
        _TRL,
    ),
    "trl-padding-free": Contender(
        "TRL, padding_free",
        _trl(padding_free=True, max_length=None),
        "a micro-batch is one row without padding; TRL names FlashAttention for it, on a CPU transformers' masks keep "
        "the examples apart",
        _TRL,
    ),
}


# --- measuring, each in a process of its own ----------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """One run of a contender. `resident_before`: the process with its model loaded, before the first step;
    `peak_bytes`: of the device where it is a GPU, else of the process."""

    seconds: float
    num_epochs: int
    num_tokens: int
    resident_before: int
    peak_resident: int
    peak_bytes: int
    num_threads: int
    accelerator: str | None
    tokens_per_second: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens_per_second", self.num_tokens / self.seconds)


def measure_speed(
    name: str, setting: Setting, base: Path, rows: Sequence[Paragraph], num_examples: int, enough_seconds: float
) -> Measured:
    """Trains on `num_examples` of the rows, lengths spread as in all of them, for whole epochs until `enough_seconds`
    are over. A step's worth of examples, the longest among them, goes before, untimed (on a GPU, an epoch too)."""
    if CONTENDERS[name].groups_by_length:
        torch.manual_seed(setting.seed)
        order = _grouped(rows, setting)
        timed = [rows[index] for index in _evenly_spaced(order, num_examples, setting.step_size)]
        warm_up = [rows[index] for index in order[: setting.step_size]]  # this sampler begins with the longest
    else:
        timed = spread_sample(rows, num_examples)
        warm_up = [max(rows, key=len), *spread_sample(rows, setting.step_size - 1)]
    if setting.device == "cuda":
        warm_up = [*warm_up, *timed]
    return _measured(name, setting, base, timed, enough_seconds, warm_up=warm_up, num_epochs=MOST_EPOCHS)


def measure_learning(name: str, setting: Setting, base: Path, rows: Sequence[Paragraph], adapter: Path) -> Measured:
    """Trains once on all the rows and saves the adapter as PEFT's files."""
    return _measured(name, setting, base, rows, 0.0, adapter=adapter)


def _measured(
    name: str,
    setting: Setting,
    base: Path,
    rows: Sequence[Paragraph],
    enough_seconds: float,
    *,
    warm_up: Sequence[Paragraph] = (),
    num_epochs: int = 1,
    adapter: Path | None = None,
) -> Measured:
    prepare_process(setting)
    contender = CONTENDERS[name]
    loaded = load_base(setting, base)
    model = _our_lora(loaded, setting) if name == OURS else add_plain_lora(loaded, setting)
    resident_before = resident_bytes()
    forget_peak()
    is_in_order = contender.groups_by_length and num_epochs > 1
    if warm_up:
        contender.train(model, Course(warm_up, 1, Stopwatch(setting.device, 0.0), is_in_order), setting)
    watch = Stopwatch(setting.device, enough_seconds)
    contender.train(model, Course(rows, num_epochs, watch, is_in_order), setting)
    is_gpu = setting.device == "cuda"
    peak_resident = peak_resident_bytes()
    measured = Measured(
        seconds=watch.seconds,
        num_epochs=watch.num_epochs,
        num_tokens=watch.num_epochs * num_tokens(rows),
        resident_before=resident_before,
        peak_resident=peak_resident,
        peak_bytes=torch.cuda.max_memory_allocated() if is_gpu else peak_resident,
        num_threads=torch.get_num_threads(),
        accelerator=torch.cuda.get_device_name() if is_gpu else None,
    )
    if adapter is not None:
        model.save_pretrained(adapter)
    return measured


def _grouped(rows: Sequence[Paragraph], setting: Setting) -> list[int]:
    """The order in which `group_by_length` takes the rows."""
    indices: list[int] = get_length_grouped_indices([len(row) for row in rows], setting.step_size)
    return indices


def _evenly_spaced(order: Sequence[int], count: int, block: int) -> list[int]:
    """About `count` of the `order`, in blocks at even distances along its first descent from long to short (its
    sampler sorts so many steps' worth of examples at a time)."""
    num_steps = max(min(len(order) // (4 * block), 50), 1)
    num_blocks = max(min(count // block, num_steps), 1)
    chosen = [block * ((2 * number + 1) * num_steps // (2 * num_blocks)) for number in range(num_blocks)]
    return [index for start in chosen for index in order[start : start + block]]
